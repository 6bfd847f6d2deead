"""Simulations of a task family, and their gymnasium interfaces: BatchEnv and TaskEnv."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from smac_lab.tasks.physics import Engine, is_sound
from smac_lab.tasks.rendering import Frames
from smac_lab.tasks.spec import Array, Tasks

MAX_PARTS = 4  # of a batch, one thread each; more gain little
PART_SIZE = 32  # simulations per part, at least


class Simulated(Protocol):
    """A family as simulation needs it; see `TaskFamily`."""

    name: ClassVar[str]
    task_dim: ClassVar[int]
    in_threads: ClassVar[bool]
    obs_dim: int
    action_dim: int
    horizon: int
    control_dt: float

    def make_engine(self, n: int, num_threads: int) -> Engine: ...
    def make_renderer(self, width: int, height: int) -> Renderer: ...
    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array: ...
    def check_tasks(self, values: Array) -> None: ...
    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]: ...
    def place(self, tasks: Array, state: Mapping[str, Array]) -> Mapping[str, Array]: ...
    def observe(self, state: SimpleNamespace) -> Array: ...
    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array: ...
    def reward(self, features: Array, actions: Array, tasks: Array) -> Array: ...
    def terminated(self, state: SimpleNamespace) -> NDArray[np.bool_]: ...


class Renderer(Protocol):
    """Interface that draws simulations."""

    def render(self, simulation: Simulation, index: int) -> Frames:
        """Draw one simulation, `(height, width, 3)`."""

    def close(self) -> None:
        """Free all resources; closing twice is fine."""


class StepResult(NamedTuple):
    """One control step, `(simulation, ...)`."""

    observations: Array
    features: Array
    rewards: Array
    terminations: NDArray[np.bool_]
    diverged: NDArray[np.bool_]


class Simulation:
    """`n` simulations of one family, one task each, without automatic resets.

    `state` contains the family's `state_fields`, each `(n, ...)`. A simulation that diverges returns to its state
    before the step, and its episode ends.

    Args:
        family: to simulate.
        tasks: task parameters, `(n, task_dim)`.
        num_threads: physics threads; 0: PyTorch's number.
        rewards: False: rewards are NaN and never computed.
    """

    def __init__(self, family: Simulated, tasks: Array, num_threads: int = 0, rewards: bool = True):
        self.family = family
        self.rewards = rewards
        self.engine: Any = family.make_engine(len(tasks), num_threads)  # an `Engine`; MuJoCo's has more
        self.state: SimpleNamespace = self.engine.state
        self._before = SimpleNamespace(**{name: value.copy() for name, value in vars(self.state).items()})
        self.set_tasks(tasks)

    def set_tasks(self, tasks: Array) -> None:
        """Set the tasks, `(n, task_dim)`; states do not change until a reset."""
        self.tasks = tasks
        self.engine.set_tasks(tasks)

    def reset(self, ids: NDArray[np.intp], rngs: list[np.random.Generator]) -> None:
        """Reset simulations `ids`, each from its generator."""
        draws = [self.family.reset_state(rng, 1) for rng in rngs]
        values = {name: np.concatenate([draw[name] for draw in draws]) for name in draws[0]}
        self.engine.set_state(ids, self.family.place(self.tasks[ids], values))

    def observe(self) -> Array:
        """Return observations, `(n, obs_dim)`, as a new array."""
        return np.array(self.family.observe(self.state), np.float64)

    def step(self, actions: Array) -> StepResult:
        """Apply `actions` in [-1, 1], `(n, action_dim)`, for one control step."""
        before, state, family = self._before, self.state, self.family
        for name, value in vars(state).items():
            np.copyto(getattr(before, name), value)

        diverged = self.engine.step(actions)
        if diverged.any():
            self._recover(np.flatnonzero(diverged))

        # A family may return views of the live state.
        features = np.array(family.measure(before, actions, state), np.float64)
        n = len(self.tasks)
        rewards = np.asarray(family.reward(features, actions, self.tasks)) if self.rewards else np.full(n, np.nan)
        if rewards.shape != (n,):
            raise ValueError(f"{family.name}: reward() must give ({n},), one number a simulation, got {rewards.shape}")
        return StepResult(self.observe(), features, rewards, family.terminated(state) | diverged, diverged)

    def _recover(self, ids: NDArray[np.intp]) -> None:
        """Reset simulations to the state before the step, or to an initial one if that is broken."""
        warnings.warn(
            f"{self.family.name}: {len(ids)} of {len(self.tasks)} simulations diverged (first: simulation {ids[0]}, "
            f"task {self.tasks[ids[0]]}); their episodes end here and the step is not kept",
            RuntimeWarning,
            stacklevel=4,
        )
        kept = {name: getattr(self._before, name)[ids] for name in self.engine.settable}
        sound = np.all([is_sound(value) for value in kept.values()], axis=0)
        first = self.family.place(self.tasks[ids], self.family.reset_state(np.random.default_rng(0), len(ids)))
        for values, which in ((kept, sound), (first, ~sound)):
            if which.any():
                self.engine.set_state(ids[which], {name: value[which] for name, value in values.items()})
        for name, value in vars(self.state).items():
            getattr(self._before, name)[ids] = value[ids]


def _check_actions(actions: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    if isinstance(actions, torch.Tensor):
        actions = actions.detach().cpu().numpy()
    actions = np.asarray(actions, dtype=np.float64)
    if actions.shape != shape:
        raise ValueError(f"{name} expects actions of shape {shape}, got {actions.shape}")
    if not np.isfinite(actions).all():
        raise ValueError(f"{name} got actions that are not finite: {actions[~np.isfinite(actions)][:3]} ...")
    return np.clip(actions, -1.0, 1.0)


def _spaces(family: Simulated) -> tuple[Any, Any]:
    observation = gym.spaces.Box(-np.inf, np.inf, (family.obs_dim,), np.float64)
    return observation, gym.spaces.Box(-1.0, 1.0, (family.action_dim,), np.float32)


class BatchEnv(VectorEnv[Array, Array, NDArray[Any]]):
    """A `gymnasium.vector.VectorEnv` with one simulation per task.

    An episode restarts in the step that ends it (`AutoresetMode.SAME_STEP`): the returned observation is the new
    episode's first, and `info["final_obs"]` (mask: `info["_final_obs"]`) is the old one's last. `info["features"]` has
    the step's features, `(n, feature_dim)`, and `info["diverged"]` marks simulations whose physics broke down.

    Args:
        family: of the tasks.
        tasks: one per simulation.
        num_threads: physics threads; 0: PyTorch's number.
        rewards: False: rewards are NaN and never computed.

    Raises:
        ValueError: tasks have a wrong width or are impossible; actions have a wrong shape or are not finite.
    """

    def __init__(self, family: Simulated, tasks: Tasks, num_threads: int = 0, rewards: bool = True):
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        if tasks.values.shape[1] != family.task_dim:
            raise ValueError(f"{family.name} needs tasks of shape (n, {family.task_dim}), got {tasks.values.shape}")
        family.check_tasks(tasks.values)
        self.family: Any = family
        self.tasks = tasks
        self.num_envs = len(tasks)
        self.num_threads = num_threads or torch.get_num_threads()
        self.rewards = rewards
        self.single_observation_space, self.single_action_space = _spaces(family)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._rngs: list[np.random.Generator | None] = [None] * self.num_envs
        self._elapsed = np.zeros(self.num_envs, dtype=np.int64)

    @functools.cached_property
    def simulation(self) -> Simulation:
        """The simulations, made on first use."""
        return Simulation(self.family, self.tasks.values, self.num_threads, self.rewards)

    @functools.cached_property
    def for_threads(self) -> list[BatchEnv]:
        """Consecutive shares for separate threads, each with some of the physics threads.

        Each share has separate physics: do not step this environment while its shares are stepped. A family without
        `in_threads` is not divided.
        """
        most = min(MAX_PARTS, self.num_threads, self.num_envs // PART_SIZE)
        n = max(1, most) if self.family.in_threads else 1
        if n == 1:
            return [self]
        chunks = np.array_split(np.arange(self.num_envs), n)
        threads = [self.num_threads // n + (i < self.num_threads % n) for i in range(n)]
        return [
            BatchEnv(self.family, self.tasks[chunk], share, self.rewards)
            for chunk, share in zip(chunks, threads, strict=True)
        ]

    def seeds(self, seed: int | Sequence[int | None] | NDArray[np.integer] | None) -> list[int | None]:
        """Convert the argument of `reset` to one seed per simulation.

        Raises:
            ValueError: a list of the wrong length.
        """
        if isinstance(seed, np.ndarray):
            seed = seed.tolist()
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(self.num_envs)]
        seeds: list[int | None] = list(seed) if seed is not None else [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(f"a list of seeds needs one for each of {self.num_envs} simulations, got {len(seeds)}")
        return seeds

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | NDArray[np.integer] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: with an integer, simulation `i` is seeded as a `TaskEnv` with `seed + i`; a list has one seed per
                simulation. None continues the present generator.
            options: `{"reset_mask": mask}` restarts only where `mask`, `(n,)`, is True.

        Returns:
            Observations, and tasks in `info["task"]`.

        Raises:
            ValueError: the list of seeds, or the mask, has the wrong length.
        """
        n = self.num_envs
        seeds = self.seeds(seed)
        mask = np.asarray((options or {}).get("reset_mask", np.ones(n, bool)))
        if mask.shape != (n,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask must hold {n} booleans, got {mask.dtype} of shape {mask.shape}")
        ids = np.flatnonzero(mask)
        for i in ids:
            if seeds[i] is not None or self._rngs[i] is None:
                self._rngs[i] = seeding.np_random(seeds[i])[0]
        self._restart(ids)
        return self.simulation.observe(), {"task": self.tasks.values.copy(), "_task": mask.copy()}

    def step(self, actions: ArrayLike) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one control step; `actions`, `(n, action_dim)`, are clipped to [-1, 1]."""
        if None in self._rngs:
            raise gym.error.ResetNeeded("call reset() before step(): some simulations have never been reset")
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
            self.simulation.reset(ids, [rng for i in ids if (rng := self._rngs[i]) is not None])
            self._elapsed[ids] = 0


class TaskEnv(gym.Env[Array, Array]):
    """One task as a `gymnasium.Env`; `gym.make` adds the family's time limit.

    Args:
        family: of the task.
        task: its parameters; None draws a new task at every reset. `options={"task": value}` of a reset replaces it
            from then on.
        render_mode: None or "rgb_array".
        width, height: of frames, pixels.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]

    def __init__(
        self,
        family: Simulated,
        task: ArrayLike | None = None,
        render_mode: str | None = None,
        width: int = 320,
        height: int = 240,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        vars(self)["metadata"] = {**self.metadata, "render_fps": max(1, round(1 / family.control_dt))}
        self.family = family
        self.render_mode = render_mode
        self.observation_space, self.action_space = _spaces(family)
        self._task = None if task is None else _task_row(family, task)
        self._started = False
        self._size = (width, height)
        self._renderer: Renderer | None = None
        start = family.sample_tasks(np.random.default_rng(0), 1) if self._task is None else self._task
        self.simulation = Simulation(family, np.array(start), num_threads=1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode; `info["task"]` is its task."""
        super().reset(seed=seed)
        if options and "task" in options:
            self._task = _task_row(self.family, options["task"])
        self.simulation.set_tasks(self.family.sample_tasks(self.np_random, 1) if self._task is None else self._task)
        self.simulation.reset(np.arange(1), [self.np_random])
        self._started = True
        return self.simulation.observe()[0], {"task": self.simulation.tasks[0].copy()}

    def step(self, action: ArrayLike) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Take one control step; `info["features"]` contains its features."""
        if not self._started:
            raise gym.error.ResetNeeded("call reset() before step()")
        checked = _check_actions(action, self.action_space.shape, self.family.name)  # type: ignore[arg-type]
        result = self.simulation.step(checked[None])
        info = {"features": result.features[0], "diverged": bool(result.diverged[0])}
        return result.observations[0], float(result.rewards[0]), bool(result.terminations[0]), False, info

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the state, `(height, width, 3)`, or return None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array'")
            return None
        if self._renderer is None:
            self._renderer = self.family.make_renderer(*self._size)
        return self._renderer.render(self.simulation, 0)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _task_row(family: Simulated, task: ArrayLike) -> Array:
    row = np.atleast_1d(np.asarray(task, dtype=np.float64))[None]
    if row.shape != (1, family.task_dim) or not np.isfinite(row).all():
        raise ValueError(f"{family.name} needs a task of {family.task_dim} finite numbers, got {task!r}")
    family.check_tasks(row)
    return row
