"""Many simulations of a task family at once, and the two gymnasium faces of that: BatchEnv and TaskEnv."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from smac_lab.tasks.family import Array, DynamicsFamily, MujocoFamily, TaskFamily, Tasks


class StepResult(NamedTuple):
    """One control step of every simulation; each array has a leading axis of simulations."""

    observations: Array
    features: Array
    rewards: Array
    terminations: NDArray[np.bool_]
    diverged: NDArray[np.bool_]


class Simulation:
    """`n` simulations of one family, one task each, without automatic resets.

    `state` holds the family's `state_fields`, each `(n, ...)`. A simulation that diverges is put back to the
    last finite state, its episode is ended, and the others do not notice.

    Args:
        family: what to simulate.
        tasks: task parameters, `(n, task_dim)`.
        num_threads: physics threads, 0 for all processors.
        rewards: False for reward-free interaction: the family's reward is never called and every reward is
            NaN, so that a leak cannot pass unseen.
    """

    def __init__(self, family: TaskFamily, tasks: Array, num_threads: int = 0, rewards: bool = True):
        if tasks.ndim != 2 or tasks.shape[1] != family.task_dim:
            raise ValueError(f"{family.name} needs tasks of shape (n, {family.task_dim}), got {tasks.shape}")
        self.family = family
        self.tasks = tasks
        self.rewards = rewards
        engine = _MujocoEngine if isinstance(family, MujocoFamily) else _DynamicsEngine
        self.engine: Any = engine(family, len(tasks), num_threads)
        self.state: SimpleNamespace = self.engine.state
        self._before = SimpleNamespace(**{name: value.copy() for name, value in vars(self.state).items()})

    def reset(self, ids: NDArray[np.intp], rngs: list[np.random.Generator]) -> None:
        """Put simulations `ids` into fresh initial states, each drawn from its own generator."""
        draws = [self.family.reset_state(rng, 1) for rng in rngs]
        values = {name: np.concatenate([draw[name] for draw in draws]) for name in draws[0]}
        self.engine.set_state(ids, values)

    def observe(self) -> Array:
        """Observation of every simulation, `(n, obs_dim)`."""
        return self.family.observe(self.state)

    def step(self, actions: Array) -> StepResult:
        """Apply `actions`, `(n, action_dim)` clipped to [-1, 1], for one control step."""
        before, state, family = self._before, self.state, self.family
        for name, value in vars(state).items():
            np.copyto(getattr(before, name), value)

        diverged = self.engine.step(actions)
        if diverged.any():
            ids = np.flatnonzero(diverged)
            warnings.warn(
                f"{family.name}: {len(ids)} of {len(diverged)} simulations diverged (first: simulation {ids[0]}, "
                f"task {self.tasks[ids[0]]}); their episodes end here and the step is not kept",
                RuntimeWarning,
                stacklevel=3,
            )
            self.engine.set_state(ids, {name: getattr(before, name)[ids] for name in self.engine.settable})

        features = family.measure(before, actions, state)
        rewards = (
            family.reward(features, actions, self.tasks) if self.rewards else np.full(len(self.tasks), np.nan)
        )
        return StepResult(family.observe(state), features, rewards, family.terminated(state) | diverged, diverged)


class _DynamicsEngine:
    def __init__(self, family: DynamicsFamily, n: int, num_threads: int):
        self.family = family
        start = family.reset_state(np.random.default_rng(0), n)
        self.state = SimpleNamespace(**{name: np.array(start[name], float) for name in family.state_fields})
        self.settable = family.state_fields

    def set_state(self, ids: NDArray[np.intp], values: dict[str, Array]) -> None:
        for name, value in values.items():
            getattr(self.state, name)[ids] = value

    def step(self, actions: Array) -> NDArray[np.bool_]:
        finite = np.ones(len(actions), dtype=bool)
        for name, value in self.family.dynamics(self.state, actions).items():
            np.copyto(getattr(self.state, name), value)
            finite &= np.isfinite(value).reshape(len(value), -1).all(-1)
        return ~finite


class _MujocoEngine:
    settable = ("qpos", "qvel")

    def __init__(self, family: MujocoFamily, n: int, num_threads: int):
        import mujoco
        from mujoco.batch import Batch

        self.family = family
        self.batch = Batch(family.model, nsim=n, nthread=num_threads)
        names = dict.fromkeys((*self.settable, *family.state_fields))
        self.state = SimpleNamespace(**{name: self.batch.bind(name) for name in names})
        self._control = self.batch.bind("ctrl")
        self._time = self.batch.bind("time")
        # A derived field lags one substep behind after a bare step; where the family reads one, compute it
        # at the new state. Sensors that need accelerations (contact forces) come with the last stage.
        derived = set(names) - {"qpos", "qvel"}
        self._stage = int(mujoco.mjtStage.mjSTAGE_ACC) if derived else int(mujoco.mjtStage.mjSTAGE_NONE)
        self._duration = family.frame_skip * family.model.opt.timestep
        self._none = int(mujoco.mjtStage.mjSTAGE_NONE)

    def set_state(self, ids: NDArray[np.intp], values: dict[str, Array]) -> None:
        self.batch.reset(ids, stage=self._none)  # clears time, warm start and controls
        for name, value in values.items():
            getattr(self.state, name)[ids] = value
        if self._stage != self._none:
            self.batch.forward(ids)

    def step(self, actions: Array) -> NDArray[np.bool_]:
        self._control[:] = actions
        expected = self._time + 0.5 * self._duration
        self.batch.step(nstep=self.family.frame_skip, stage=self._stage)
        # MuJoCo resets a simulation whose state is no longer finite, which turns its clock back.
        diverged = self._time < expected
        return diverged | ~np.isfinite(self.state.qpos).all(1) | ~np.isfinite(self.state.qvel).all(1)


def _check_actions(actions: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    actions = np.asarray(actions, dtype=np.float64)
    if actions.shape != shape:
        raise ValueError(f"{name} expects actions of shape {shape}, got {actions.shape}")
    if not np.isfinite(actions).all():
        raise ValueError(f"{name} got actions that are not finite: {actions[~np.isfinite(actions)][:3]} ...")
    return np.clip(actions, -1.0, 1.0)


def _spaces(family: TaskFamily) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    observation = gym.spaces.Box(-np.inf, np.inf, (family.obs_dim,), np.float64)
    return observation, gym.spaces.Box(-1.0, 1.0, (family.action_dim,), np.float32)


class BatchEnv(VectorEnv[Array, Array, Array]):
    """All tasks of a set side by side: a `gymnasium.vector.VectorEnv` with one simulation a task.

    Episodes restart in the step that ends them (`AutoresetMode.SAME_STEP`): the returned observation is the
    new episode's first, and the ended one's last is `info["final_obs"]` (mask: `info["_final_obs"]`).
    `info["features"]` holds the features of the step, `(n, feature_dim)`, and `info["diverged"]` marks
    simulations whose physics broke down in it.

    Args:
        family: task family.
        tasks: one task a simulation.
        num_threads: physics threads, 0 for all processors.
        rewards: False makes every reward NaN without computing it.

    Raises:
        ValueError: tasks of the wrong width; actions of the wrong shape or not finite.
    """

    def __init__(self, family: TaskFamily, tasks: Tasks, num_threads: int = 0, rewards: bool = True):
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.family = family
        self.tasks = tasks
        self.num_envs = len(tasks)
        self.simulation = Simulation(family, tasks.values, num_threads, rewards)
        self.single_observation_space, self.single_action_space = _spaces(family)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._rngs: list[np.random.Generator] = []
        self._elapsed = np.zeros(self.num_envs, dtype=np.int64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes; an integer seed gives simulation `i` the generator that `TaskEnv` has for `seed + i`.

        `options={"reset_mask": mask}` restarts only the simulations where `mask`, `(n,)`, is True.
        """
        if seed is not None or not self._rngs:
            seeds = [None] * self.num_envs if seed is None else seed
            if isinstance(seeds, (int, np.integer)):
                seeds = [int(seeds) + i for i in range(self.num_envs)]
            if len(seeds) != self.num_envs:
                raise ValueError(f"a list of seeds needs one for each of {self.num_envs} simulations, got {len(seeds)}")
            self._rngs = [seeding.np_random(s)[0] for s in seeds]
        mask = np.ones(self.num_envs, bool) if not options else np.asarray(options.get("reset_mask", True))
        mask = np.broadcast_to(mask.astype(bool), (self.num_envs,))
        self._restart(np.flatnonzero(mask))
        return self.simulation.observe(), {}

    def step(self, actions: ArrayLike) -> tuple[Array, Array, Array, Array, dict[str, Any]]:  # type: ignore[override]
        """One control step of every simulation; `actions` is `(n, action_dim)`, clipped to [-1, 1]."""
        if not self._rngs:
            raise gym.error.ResetNeeded("call reset() before step()")
        checked = _check_actions(actions, self.action_space.shape, self.family.name)  # type: ignore[arg-type]
        result = self.simulation.step(checked)
        self._elapsed += 1
        truncations = self._elapsed >= self.family.horizon
        observations = result.observations
        info: dict[str, Any] = {"features": result.features, "diverged": result.diverged}
        done = result.terminations | truncations
        if done.any():
            info["final_obs"], info["_final_obs"] = observations, done
            info["final_info"] = {"features": result.features, "_features": done}
            info["_final_info"] = done
            self._restart(np.flatnonzero(done))
            observations = self.simulation.observe()
        return observations, result.rewards, result.terminations, truncations, info

    def _restart(self, ids: NDArray[np.intp]) -> None:
        if len(ids):
            self.simulation.reset(ids, [self._rngs[i] for i in ids])
            self._elapsed[ids] = 0


class TaskEnv(gym.Env[Array, Array]):
    """One task of a family as a plain `gymnasium.Env`; `gym.make` adds the family's time limit.

    Args:
        family: a task family, or the name of one.
        task: the task's parameters; None draws a new task from the family at every reset. A reset's
            `options={"task": value}` overrides it for that episode and those after it.
        render_mode: None or "rgb_array".
        width, height: size of rendered frames, pixels.
        **family_options: passed on to `make_family` when `family` is a name.
    """

    def __init__(
        self,
        family: TaskFamily | str,
        task: ArrayLike | None = None,
        render_mode: str | None = None,
        width: int = 320,
        height: int = 240,
        **family_options: Any,
    ):
        if isinstance(family, str):
            from smac_lab.tasks import make_family

            family = make_family(family, **family_options)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": max(1, round(1 / family.control_dt))}
        self.family = family
        self.render_mode = render_mode
        self.observation_space, self.action_space = _spaces(family)
        self._task = None if task is None else _task_row(family, task)
        self._size = (width, height)
        self._renderer: Any = None
        start = family.sample_tasks(np.random.default_rng(0), 1) if self._task is None else self._task
        self.simulation = Simulation(family, np.array(start), num_threads=1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode; `info["task"]` tells which task it is of."""
        super().reset(seed=seed)
        if options and "task" in options:
            self._task = _task_row(self.family, options["task"])
        self.simulation.tasks = self.family.sample_tasks(self.np_random, 1) if self._task is None else self._task
        self.simulation.reset(np.arange(1), [self.np_random])
        return self.simulation.observe()[0], {"task": self.simulation.tasks[0].copy()}

    def step(self, action: ArrayLike) -> tuple[Array, float, bool, bool, dict[str, Any]]:  # type: ignore[override]
        """One control step; `info["features"]` holds what the reward read."""
        checked = _check_actions(action, self.action_space.shape, self.family.name)  # type: ignore[arg-type]
        result = self.simulation.step(checked[None])
        info = {"features": result.features[0], "diverged": bool(result.diverged[0])}
        return result.observations[0], float(result.rewards[0]), bool(result.terminations[0]), False, info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The current state as an image `(height, width, 3)`, or None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array'")
            return None
        if isinstance(self.family, DynamicsFamily):
            return self.family.draw(self.simulation.state, self.simulation.tasks[0], *self._size)
        if self._renderer is None:
            from smac_lab.video import BodyRenderer

            self._renderer = BodyRenderer(self.family.model, *self._size)  # type: ignore[attr-defined]
        return self._renderer.draw(self.simulation.engine.batch.get_data(0))

    def close(self) -> None:
        """Release the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _task_row(family: TaskFamily, task: ArrayLike) -> Array:
    row = np.atleast_1d(np.asarray(task, dtype=np.float64))[None]
    if row.shape != (1, family.task_dim) or not np.isfinite(row).all():
        raise ValueError(f"{family.name} needs a task of {family.task_dim} finite numbers, got {task!r}")
    return row
