"""Task families: the base classes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smac_lab.tasks.physics import DynamicsEngine, Engine, MujocoEngine
from smac_lab.tasks.rendering import BodyRenderer, Frames
from smac_lab.tasks.simulation import BatchEnv, Renderer, Simulation, TaskEnv
from smac_lab.tasks.spec import Array, FamilySpec, Tasks


class TaskFamily:
    """A simulated body, its spaces, horizon, reward, and distribution of tasks.

    A family is data and pure functions on arrays with a leading axis of simulations. To make a custom family, subclass
    an existing one and override what differs; an instance works wherever a named family does.

    The reward depends only on `features`, `actions` and the task. Buffers store the features, so `reward` can relabel
    data with the true rewards of another task.
    """

    name: ClassVar[str]
    task_dim: ClassVar[int] = 1
    obs_dim: int
    action_dim: int
    horizon: int = 200  # control steps
    control_dt: float = 1.0  # seconds per control step
    in_threads: ClassVar[bool] = False  # whether MuJoCo computes the steps, which then run in threads
    state_fields: tuple[str, ...]  # that `observe`, `measure` and `terminated` may read
    context_includes_next: ClassVar[bool] = False  # whether context contains s', as for differing dynamics
    task_label: ClassVar[str] = "task"  # axis label, with unit
    feature_label: ClassVar[str] = "first feature"  # of the first feature of `measure`

    @property
    def full_name(self) -> str:
        """The name with the options that are not at their defaults, `ant-dir:contact_cost=False`.

        `make_family` accepts this name; data, agents and results record it. An option is a constructor's argument that
        the instance keeps under the same name.
        """
        parameters = inspect.signature(type(self)).parameters.values()
        values = {p.name: getattr(self, p.name) for p in parameters if hasattr(self, p.name)}
        defaults = {p.name: p.default for p in parameters}
        changed = [f"{name}={values[name]}" for name in values if not np.array_equal(values[name], defaults[name])]
        return f"{self.name}:{','.join(changed)}" if changed else self.name

    # -- the definition: override these ------------------------------------------------------------------
    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        """Draw `n` task parameters, `(n, task_dim)`."""
        raise NotImplementedError

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        """Draw `n` initial states: state-field name to `(n, ...)`."""
        raise NotImplementedError

    def place(self, tasks: Array, state: Mapping[str, Array]) -> Mapping[str, Array]:
        """Adapt initial states to their `tasks`, `(n, task_dim)`; by default, unchanged."""
        return state

    def check_tasks(self, tasks: Array) -> None:
        """Raise ValueError if one of the `tasks`, `(n, task_dim)`, is impossible."""

    def rewards_alone_differ(self, task: Array, others: Array) -> NDArray[np.bool_]:
        """Mark `others`, `(n, task_dim)`, whose data differ from `task`'s, `(task_dim,)`, in rewards alone."""
        return np.ones(len(others), bool)

    def observe(self, state: SimpleNamespace) -> Array:
        """Return the observation of each state, `(n, obs_dim)`."""
        raise NotImplementedError

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        """Compute features: the inputs of the reward, besides the action, `(n, feature_dim)`."""
        raise NotImplementedError

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        """Compute the reward of each transition, `(n,)`."""
        raise NotImplementedError

    def terminated(self, state: SimpleNamespace) -> NDArray[np.bool_]:
        """Return whether each episode terminates here, `(n,)`; by default, none does."""
        first = getattr(state, self.state_fields[0])
        return np.zeros(len(first), dtype=bool)

    # -- optional: used by behaviour data and reports ----------------------------------------------------
    def controller(self, observations: Array, tasks: Array) -> Array | None:
        """Return the best hand-written controller's actions, `(n, action_dim)`, or None."""
        return None

    def velocity_error(self, features: Array, tasks: Array) -> Array | None:
        """Return |v - v*| (m/s) of each transition, `(n,)`, or None if the task is not a velocity."""
        return None

    def behave(self, step: int, observations: Array, tasks: Array) -> Array | None:
        """Return scripted actions towards `tasks` at control step `step`, `(n, action_dim)`, or None.

        The default is the `controller`.
        """
        return self.controller(observations, tasks)

    def detours(self, rng: np.random.Generator, tasks: Array) -> Array:
        """Draw the tasks that the script pursues in place of `tasks`, `(n, task_dim)` each."""
        return self.sample_tasks(rng, len(tasks))

    def pursue_next(self, rng: np.random.Generator, observations: Array, pursued: Array, tasks: Array) -> Array:
        """Return the tasks that scripted episodes pursue from now on, `(n, task_dim)`; default: `pursued`.

        Override this to reach several tasks within an episode.
        """
        return pursued

    def success(self, features: Array, tasks: Array) -> NDArray[np.bool_] | None:
        """Return whether each transition reaches its task, `(n,)`; None if not defined."""
        return None

    def describe(self, task: Array) -> str | None:
        """Describe one task, `(task_dim,)`, in words, or return None."""
        return None

    # -- derived from the definition ---------------------------------------------------------------------
    def split(self, n_train: int, n_test: int, seed: int) -> tuple[Tasks, Tasks]:
        """Draw training and held-out tasks, all different.

        Raises:
            ValueError: a side has no task, or the family has too few different tasks.
        """
        if n_train < 1 or n_test < 1:
            raise ValueError(f"a split needs at least one task on each side, got n_train={n_train}, n_test={n_test}")
        rng, n = np.random.default_rng(seed), n_train + n_test
        values = self.sample_tasks(rng, n)
        for _ in range(100):
            _, first = np.unique(values, axis=0, return_index=True)
            if len(first) == n:
                break
            values = np.concatenate([values[np.sort(first)], self.sample_tasks(rng, n - len(first))])
        else:
            raise ValueError(f"{self.full_name} has no {n} different tasks; drawn were {len(first)}")
        return Tasks(values[:n_train]), Tasks(values[n_train:])

    def batch_env(self, tasks: Tasks, num_threads: int = 0, rewards: bool = True) -> BatchEnv:
        """Make one simulation per task; see `BatchEnv`."""
        return BatchEnv(self, tasks, num_threads=num_threads, rewards=rewards)

    def task_env(self, task: ArrayLike | None = None, render_mode: str | None = None) -> TaskEnv:
        """Make a single simulation without a time limit; see `TaskEnv`."""
        return TaskEnv(self, task=task, render_mode=render_mode)

    def make_engine(self, n: int, num_threads: int) -> Engine:
        """Make the engine of `n` simulations."""
        raise NotImplementedError

    def make_renderer(self, width: int, height: int) -> Renderer:
        """Make a renderer of pictures of `width` by `height` pixels."""
        raise NotImplementedError

    @functools.cached_property
    def spec(self) -> FamilySpec:
        """Sizes of this family."""
        rng = np.random.default_rng(0)
        simulation = Simulation(self, self.sample_tasks(rng, 1), num_threads=1, rewards=False)
        simulation.reset(np.arange(1), [rng])
        obs_dim = simulation.observe().shape[1]
        if obs_dim != self.obs_dim:
            raise ValueError(f"{self.name}: observe() gives {obs_dim} numbers, but obs_dim is {self.obs_dim}")
        features = simulation.step(np.zeros((1, self.action_dim))).features
        if features.ndim != 2:
            raise ValueError(f"{self.name}: measure() must give (n, feature_dim), got {features.shape} for n=1")
        feature_dim = features.shape[1]
        context_dim = obs_dim + self.action_dim + 1 + (obs_dim if self.context_includes_next else 0)
        return FamilySpec(
            self.full_name, obs_dim, self.action_dim, self.task_dim, feature_dim, context_dim, self.horizon
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.full_name!r})"


def check_option(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ValueError unless an option is allowed; 0 is not False, as `full_name` would differ."""
    if not any(value == one and type(value) is type(one) for one in allowed):
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")


class DynamicsFamily(TaskFamily):
    """A family whose next state is a formula."""

    def dynamics(self, state: SimpleNamespace, action: Array) -> Mapping[str, Array]:
        """Compute the next states, name to `(n, ...)`."""
        raise NotImplementedError

    def render(self, state: SimpleNamespace, task: Array, width: int, height: int) -> Frames:
        """Draw the first simulation, `(height, width, 3)`."""
        raise NotImplementedError

    def make_engine(self, n: int, num_threads: int) -> Engine:
        return DynamicsEngine(self.reset_state(np.random.default_rng(0), n), self.state_fields, self.dynamics)

    def make_renderer(self, width: int, height: int) -> Renderer:
        return _Drawing(self, width, height)


class _Drawing:
    def __init__(self, family: DynamicsFamily, width: int, height: int):
        self.family, self.size = family, (width, height)

    def render(self, simulation: Simulation, index: int) -> Frames:
        state = {name: value[index : index + 1] for name, value in vars(simulation.state).items()}
        return self.family.render(SimpleNamespace(**state), simulation.tasks[index], *self.size)

    def close(self) -> None:
        """Do nothing."""


class MujocoFamily(TaskFamily):
    """A family simulated by MuJoCo.

    `state_fields` names MjData fields, `qpos` and `qvel` always among them. Derived fields (`xpos`, `cfrc_ext`, ...)
    cost one more forward pass per control step and describe the state *after* the step. `settable_fields` are those
    that `reset_state` returns.

    If bodies differ between tasks, override `physics`.
    """

    xml: str  # among the models that gymnasium installs
    frame_skip: ClassVar[int] = 5
    state_fields: tuple[str, ...] = ("qpos", "qvel")
    settable_fields: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    camera: ClassVar[dict[str, Any]] = {}  # arguments of `BodyRenderer` that differ from its defaults
    set_const: bool = True  # recompute the constants derived from fields changed by `physics`
    in_threads: ClassVar[bool] = True

    def physics(self, tasks: Array) -> Mapping[str, Array]:
        """Return the MjModel fields that tasks change, name to `(n, ...)`; by default, none."""
        return {}

    def control(self, state: SimpleNamespace, actions: Array) -> Mapping[str, Array]:
        """Return the MjData fields that actions in [-1, 1] set, name to `(n, ...)`; by default, `ctrl`."""
        return {"ctrl": actions}

    def make_engine(self, n: int, num_threads: int) -> Engine:
        return MujocoEngine(self, n, num_threads)

    def make_renderer(self, width: int, height: int) -> Renderer:
        return _Body(BodyRenderer(self.model, width, height, **self.camera))

    def edit_model(self, spec: Any) -> None:
        """Change the `mujoco.MjSpec` before it is compiled."""

    @functools.cached_property
    def model(self) -> Any:
        """The compiled `mujoco.MjModel`."""
        mujoco = _load_mujoco()
        spec = mujoco.MjSpec.from_file(str(self.xml_path))
        self.edit_model(spec)
        # Scaling the mass in the compiler is deprecated. Scaling it and the solver's scales afterwards gives the same
        # model bit for bit.
        total_mass, spec.compiler.settotalmass = spec.compiler.settotalmass, -1.0
        model = spec.compile()
        if total_mass > 0:
            mujoco.mj_setTotalmass(model, total_mass)
            mujoco.mj_setConst(model, mujoco.MjData(model))
            model.stat.meanmass, model.stat.meaninertia = model.body_mass[1:].mean(), model.dof_M0.mean()
        return model

    @property
    def xml_path(self) -> Any:
        """Path of the MJCF file that gymnasium installs."""
        from pathlib import Path

        import gymnasium

        return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / self.xml

    @property
    def xml_hash(self) -> str:
        """SHA-256 of the MJCF file, recorded with data."""
        import hashlib

        return hashlib.sha256(self.xml_path.read_bytes()).hexdigest()


class _Body:
    def __init__(self, renderer: BodyRenderer):
        self.renderer, self.close = renderer, renderer.close

    def render(self, simulation: Simulation, index: int) -> Frames:
        return self.renderer.render(simulation.engine.data(index))


def add_accelerometer(spec: Any, body: str) -> None:
    """Make MuJoCo compute `cfrc_ext`, which is zero unless a sensor requires it."""
    import mujoco

    spec.body(body).add_site(name="accelerometer")
    spec.add_sensor(
        name="accelerometer",
        type=mujoco.mjtSensor.mjSENS_ACCELEROMETER,
        objtype=mujoco.mjtObj.mjOBJ_SITE,
        objname="accelerometer",
    )


def _load_mujoco() -> Any:
    """Import mujoco without writing MUJOCO_LOG.TXT; warnings still go to stderr."""
    import mujoco

    log = mujoco.MjLogConfig.get()
    if log.logto_file and log.logfile == "MUJOCO_LOG.TXT":  # a file that the user chose is kept
        log.logto_file = False
        log.set()
    return mujoco
