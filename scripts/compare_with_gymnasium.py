"""Compare our MuJoCo families with gymnasium's v5 environments over one control step.

`python scripts/compare_with_gymnasium.py` prints a Markdown table of the largest differences in state, observation and
reward. Documented differences in the reward are subtracted, and listed with their largest effect.
`test_against_gymnasium.py` asserts the values.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import gymnasium as gym
import mujoco
import numpy as np

import smac_lab as lab
from smac_lab.tasks import MujocoFamily

STEPS = 250  # states per comparison
EPISODES = 25  # of random actions, from which states are drawn

LATE = "gymnasium pays for positions and contact forces of the last Runge-Kutta stage, here they are those of the state"
BONUS = "gymnasium pays the alive bonus to the healthy only, here it is paid on the step of a fall, too"
DIRECTION = "gymnasium pays the speed along x, here along the task's direction"


class Sample(NamedTuple):
    """One step of gymnasium's environment; `fresh` values follow an update of derived fields."""

    body: Any
    action: np.ndarray  # in [-1, 1]
    task: np.ndarray
    reward: float
    terminated: bool
    info: Mapping[str, float]
    fresh_reward: float
    fresh_info: Mapping[str, float]
    velocity: np.ndarray  # m/s: displacement / dt of the rewarded point (`place`), from fresh fields


Differences = dict[str, float]  # effects on the reward: ours - gymnasium's


class Comparison(NamedTuple):
    family: str
    body: str  # gymnasium's id
    options: Mapping[str, Any]  # of gymnasium's environment
    differences: Callable[[Sample], Differences]
    scale: float = 1.0  # gymnasium's action for our action of 1
    drawn_physics: bool = False  # write the task's physics into gymnasium's model

    @property
    def label(self) -> str:
        return self.family + (" (drawn physics)" if self.drawn_physics else "")


class Result(NamedTuple):
    """Largest absolute values over all steps, and numbers of steps."""

    state: float
    observation: float
    reward: float  # after the documented differences
    endings_of_one: int  # steps that end the episode in only one of the two
    endings: int  # in both
    differences: Differences  # largest effect of each


def late(sample: Sample) -> float:
    return sample.fresh_reward - sample.reward


def bonus(sample: Sample) -> float:
    return sample.body._healthy_reward * (not sample.body.is_healthy)


def direction(sample: Sample, weight: float = 1.0) -> float:
    along = np.array([np.cos(sample.task[0]), np.sin(sample.task[0])])
    return weight * (sample.velocity @ along - sample.velocity[0])


def cheetah(sample: Sample) -> Differences:
    effort = np.square(sample.action).sum()
    return {
        "gymnasium pays v, here -abs(v - v*)": -abs(sample.velocity[0] - sample.task[0]) - sample.velocity[0],
        "gymnasium's control weight is 0.1, here 0.05": (0.1 - 0.05) * effort,
    }


def ant(sample: Sample) -> Differences:
    return {LATE: late(sample), DIRECTION: direction(sample), BONUS: bonus(sample)}


def ant_without_contacts(sample: Sample) -> Differences:
    return {**ant(sample), "contact forces are free here": -sample.fresh_info["reward_contact"]}


def ant_velocity_only(sample: Sample) -> Differences:
    other = sum(sample.fresh_info[term] for term in ("reward_ctrl", "reward_contact", "reward_survive"))
    return {
        LATE: late(sample),
        DIRECTION: direction(sample),
        "velocity alone is paid here, and nothing ends an episode": -other,
    }


def humanoid(sample: Sample) -> Differences:
    return {LATE: late(sample), DIRECTION: direction(sample, 1.25), BONUS: bonus(sample)}


def humanoid_without_contacts(sample: Sample) -> Differences:
    return {**humanoid(sample), "contact forces are free here": -sample.fresh_info["reward_contact"]}


def runner(sample: Sample) -> Differences:
    return {BONUS: bonus(sample)}


NO_FORCES = {"include_cfrc_ext_in_observation": False}
COMPARISONS = [
    Comparison("cheetah-vel:obs=v5", "HalfCheetah-v5", {}, cheetah),
    Comparison("ant-dir", "Ant-v5", NO_FORCES, ant),
    Comparison("ant-dir:contact_cost=False", "Ant-v5", NO_FORCES, ant_without_contacts),
    Comparison("ant-dir:velocity_only=True", "Ant-v5", NO_FORCES, ant_velocity_only),
    Comparison("humanoid-dir:obs=v5", "Humanoid-v5", {}, humanoid, scale=0.4),
    Comparison("humanoid-dir:obs=v5,contact_cost=False", "Humanoid-v5", {}, humanoid_without_contacts, scale=0.4),
    Comparison("walker-params:feet=v5", "Walker2d-v5", {}, runner),
    Comparison("walker-params", "Walker2d-v5", {"xml_file": "walker2d.xml"}, runner),
    Comparison("walker-params:feet=v5", "Walker2d-v5", {}, runner, drawn_physics=True),
    Comparison("hopper-params", "Hopper-v5", {}, runner),
    Comparison("hopper-params", "Hopper-v5", {}, runner, drawn_physics=True),
]


def gymnasium_body(name: str, **options: Any) -> Any:
    """Make gymnasium's environment, also without imageio."""
    try:
        import imageio  # noqa: F401

        stub = {}
    except ImportError:
        stub = {"imageio": types.ModuleType("imageio")}
    with mock.patch.dict(sys.modules, stub):
        return gym.make(name, **options).unwrapped


def compare(comparison: Comparison, steps: int = STEPS, seed: int = 0) -> Result:
    """Step both environments from the same states with the same actions, and compare."""
    family = lab.make_family(comparison.family)
    assert isinstance(family, MujocoFamily)
    rng = np.random.default_rng(seed)
    tasks = family.sample_tasks(rng, EPISODES)
    if family.context_includes_next and not comparison.drawn_physics:
        tasks[:] = 0.0  # exponents of 0: unchanged physics
    states, actions, rows = random_states(family, tasks, steps, rng)
    tasks = tasks[rows]

    env = family.batch_env(lab.Tasks(tasks), num_threads=1)
    env.reset(seed=seed)
    simulation = env.simulation
    simulation.engine.set_state(np.arange(steps), states)
    ours = simulation.step(actions)

    body = gymnasium_body(comparison.body, **comparison.options)
    physics = family.physics(tasks) if comparison.drawn_physics else {}
    result = {"state": 0.0, "observation": 0.0, "reward": 0.0, "endings_of_one": 0, "endings": 0}
    most: Differences = {}
    for i in range(steps):
        for name, values in physics.items():
            getattr(body.model, name)[:] = values[i]
        if physics:
            mujoco.mj_setConst(body.model, mujoco.MjData(body.model))
        sample = step(body, {name: value[i] for name, value in states.items()}, actions[i], tasks[i], comparison.scale)
        for name in ("qpos", "qvel"):
            error = np.abs(getattr(simulation.state, name)[i] - getattr(body.data, name)).max()
            result["state"] = max(result["state"], error)
        result["observation"] = max(result["observation"], np.abs(ours.observations[i] - body._get_obs()).max())
        differences = comparison.differences(sample)
        error = abs(ours.rewards[i] - sample.reward - sum(differences.values()))
        result["reward"] = max(result["reward"], error)
        result["endings_of_one"] += int(ours.terminations[i]) != int(sample.terminated)
        result["endings"] += int(ours.terminations[i] and sample.terminated)
        most = {name: max(most.get(name, 0.0), abs(value)) for name, value in differences.items()}
    body.close()
    return Result(**result, differences=most)


def random_states(
    family: MujocoFamily, tasks: np.ndarray, steps: int, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Draw states and actions from episodes of random actions, with their rows in `tasks`.

    Up to a tenth of the steps are the last step of an episode that ended by termination.
    """
    env = family.batch_env(lab.Tasks(tasks), num_threads=1)
    env.reset(seed=1)
    state = env.simulation.state
    moments: dict[str, list[np.ndarray]] = {"qpos": [], "qvel": [], "action": [], "ends": []}
    for _ in range(100):
        moments["qpos"].append(state.qpos.copy())
        moments["qvel"].append(state.qvel.copy())
        moments["action"].append(rng.uniform(-1, 1, (len(tasks), family.action_dim)))
        moments["ends"].append(env.step(moments["action"][-1])[2])
    flat = {name: np.concatenate(values) for name, values in moments.items()}
    ends = rng.permutation(np.flatnonzero(flat["ends"]))[: steps // 10]
    others = rng.permutation(np.flatnonzero(~flat["ends"]))[: steps - len(ends)]
    chosen = np.concatenate([ends, others])
    return {name: flat[name][chosen] for name in ("qpos", "qvel")}, flat["action"][chosen], chosen % len(tasks)


def step(
    body: Any, state: Mapping[str, np.ndarray], action: np.ndarray, task: np.ndarray, scale: float = 1.0
) -> Sample:
    """Make one control step of gymnasium's environment from a state, other data reset."""
    mujoco.mj_resetData(body.model, body.data)
    body.set_state(state["qpos"], state["qvel"])
    before = place(body)
    _, reward, terminated, _, info = body.step(scale * action)
    mujoco.mj_forward(body.model, body.data)
    mujoco.mj_rnePostConstraint(body.model, body.data)
    velocity = (place(body) - before) / body.dt
    fresh_reward, fresh_info = body._get_rew(velocity[0], scale * action)
    return Sample(body, action, task, reward, terminated, info, fresh_reward, fresh_info, velocity)


def place(body: Any) -> np.ndarray:
    """Return the point whose velocity gymnasium rewards: the humanoid's centre of mass, or the root."""
    if type(body).__name__ == "HumanoidEnv":
        return body.model.body_mass @ body.data.xipos[:, :2] / body.model.body_mass.sum()
    return body.data.qpos[:2].copy()


def table(results: Mapping[str, Result]) -> str:
    """Format the results as Markdown."""
    lines = [
        "| family | state, max abs difference | observation | reward, after documented differences | endings, both / "
        "one only | documented differences (most that each changes a reward by) |",
        "|---|---|---|---|---|---|",
    ]
    for label, r in results.items():
        text = "; ".join(f"{name} ({value:.2g})" for name, value in r.differences.items())
        cells = [label, f"{r.state:.1e}", f"{r.observation:.1e}", f"{r.reward:.1e}"]
        lines.append("| " + " | ".join([*cells, f"{r.endings} / {r.endings_of_one}", text]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table({comparison.label: compare(comparison) for comparison in COMPARISONS}))
