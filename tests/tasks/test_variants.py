"""Variants of families: their names, what each pays and where it ends, and that no two are ever mixed up."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import smac_lab as lab
from smac_lab.data.storage import load_dataset, save_dataset
from smac_lab.tasks import FAMILIES, HalfCheetah

OPTIONS: dict[str, dict[str, list[Any]]] = {  # every option's values, the default first; none: no need to be here
    "point-robot": {"layout": ["half-circle", "square"]},
    "point-direction": {},
    "sparse-point-robot": {},
    "cheetah-vel": {"obs": ["paper", "v5"]},
    "ant-dir": {"contact_cost": [True, False], "velocity_only": [False, True]},
    "humanoid-dir": {"obs": ["paper", "v5", "contact-free"], "contact_cost": [True, False]},
    "walker-params": {"set_const": [True, False], "feet": ["paper", "v5"]},
    "hopper-params": {"set_const": [True, False]},
    "sawyer": {"scene": ["fixed", "drawn"], "aims": ["all", "seven", "three"]},
}
VARIANTS = [
    (name, dict(zip(options, values, strict=True)))
    for name, options in OPTIONS.items()
    for values in itertools.product(*options.values())
]


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_these_are_all_options(name: str) -> None:
    parameters, options = inspect.signature(FAMILIES[name]).parameters, OPTIONS.get(name, {})
    assert list(parameters) == list(options)
    assert [p.default for p in parameters.values()] == [values[0] for values in options.values()]
    # A full name tells of an option only if the instance keeps it under the same name.
    assert all(hasattr(lab.make_family(name), option) for option in options)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_a_full_name_makes_the_same_family(name: str, options: dict[str, Any]) -> None:
    family = lab.make_family(name, **options)
    changed = [f"{option}={value}" for option, value in options.items() if value != OPTIONS[name][option][0]]
    assert family.full_name == (f"{name}:{','.join(changed)}" if changed else name)
    again = lab.make_family(family.full_name)
    assert type(again) is type(family) is FAMILIES[name]
    assert {option: getattr(again, option) for option in options} == options
    assert again.full_name == family.full_name == family.spec.name
    assert again.spec == family.spec
    assert repr(family.full_name) in repr(family)


def test_variants_specs_differ() -> None:
    specs = {lab.make_family(name, **options).spec for name, options in VARIANTS}
    assert len(specs) == len({spec.name for spec in specs}) == len(VARIANTS)


def test_bad_variants_are_refused() -> None:
    for name, message in (
        ("ant-dir:contact_cost", "is not FAMILY:OPTION=VALUE"),
        ("ant-dir:contacts=False", "ant-dir has no option contacts; its options: contact_cost, velocity_only"),
        ("ant-dir:contact_cost=No", "contact_cost must be True or False, got 'No'"),
        ("ant-dir:contact_cost=0", "contact_cost must be True or False, got '0'"),
        ("point-direction:layout=square", "has no option layout; its options: none"),
        ("point-robot:layout=round", "layout must be 'half-circle' or 'square', got 'round'"),
        ("walker-params:feet=left", "feet must be 'paper' or 'v5', got 'left'"),
        ("sawyer:scene=mine", "scene must be 'fixed' or 'drawn', got 'mine'"),
        ("sawyer:aims=four", "aims must be 'all' or 'seven' or 'three', got 'four'"),
        ("ants:contact_cost=False", "unknown task family 'ants'"),
    ):
        with pytest.raises(ValueError, match=message):
            lab.make_family(name)


@pytest.mark.parametrize("value", [0, 1, np.False_])
def test_an_option_that_only_equals_an_allowed_value_is_refused(value: Any) -> None:
    """0 == False, but "contact_cost=0" is no name that `make_family` knows."""
    with pytest.raises(ValueError, match="contact_cost must be True or False, got "):
        lab.make_family("ant-dir", contact_cost=value)


def test_a_family_of_ones_own_may_have_any_options() -> None:
    usual = np.array([0.1, 0.2])

    class Heights(HalfCheetah):
        name, task_dim = "heights", 1

        def __init__(self, heights: Any = usual, weight: float = 1.0, secret: int = 3):
            super().__init__()
            self.heights, self.weight = heights, weight

        def sample_tasks(self, rng: np.random.Generator, n: int) -> np.ndarray:
            return rng.choice(self.heights, (n, 1))

        def reward(self, features: np.ndarray, actions: np.ndarray, tasks: np.ndarray) -> np.ndarray:
            return -features[:, 0]

    assert Heights().full_name == "heights"
    assert Heights(secret=4).full_name == "heights"  # not kept: nobody can tell
    assert Heights(weight=2.0).full_name == "heights:weight=2.0"
    assert Heights(np.array([0.3])).spec.name == "heights:heights=[0.3]"


def test_gymnasium_makes_variants() -> None:
    for options in ({"contact_cost": False}, {"family": "ant-dir:contact_cost=False"}):
        family = gym.make("smac_lab/AntDir-v0", **options).unwrapped.family
        assert family.full_name == "ant-dir:contact_cost=False"


# -- what is of one variant does not fit another -----------------------------------------------------------------

PAIRS = [
    ("point-robot", "point-robot:layout=square"),
    ("ant-dir", "ant-dir:contact_cost=False"),
    ("ant-dir:velocity_only=True", "ant-dir:contact_cost=False"),
    ("walker-params:feet=v5", "walker-params"),
]


class Half:
    """An agent and data of one family."""

    def __init__(self, name: str):
        self.family = lab.make_family(name)
        transitions = 2 * self.family.horizon
        self.config = dataclasses.replace(
            lab.SMACConfig.preset(name, "smoke"), behaviour_transitions=transitions, n_train_tasks=2, repeats=1
        )
        self.tasks, _ = self.family.split(2, 1, seed=0)
        self.buffer = lab.collect_behaviour(self.family, self.tasks, self.config, seed=0)

    def agent(self, seed: Any = 0) -> lab.SMAC:
        return lab.SMAC(self.config, self.family.spec, seed=seed)


@pytest.mark.parametrize(("first", "second"), [*PAIRS, PAIRS[1][::-1]])
def test_one_variant_is_refused_where_another_is_needed(first: str, second: str, tmp_path: Path) -> None:
    own, other = Half(first), Half(second)
    agent = own.agent()
    before = [parameter.clone() for part in agent.parts.values() for parameter in part.parameters()]
    lab.save(tmp_path / "agent", agent, buffer=own.buffer)
    save_dataset(tmp_path / "data", own.buffer, own.family, own.tasks, about={})
    others, kept = other.buffer.clone(), len(own.buffer)
    attempts = {
        "buffer offline": lambda: next(lab.train_offline(agent, other.buffer, steps=1)),
        "buffer online": lambda: next(lab.train_self_supervised(agent, others, own.family, own.tasks)),
        "family online": lambda: next(lab.train_self_supervised(agent, own.buffer, other.family, other.tasks)),
        "evaluate": lambda: lab.evaluate(agent, other.family, other.tasks),
        "evaluate seeds": lambda: lab.evaluate(own.agent((0, 1)), other.family, other.tasks),
        "shift's family": lambda: lab.measure_shift(agent, other.family, other.tasks, own.buffer),
        "shift's buffer": lambda: lab.measure_shift(agent, own.family, own.tasks, other.buffer),
        "shift seeds": lambda: lab.measure_shift(own.agent((0, 1)), other.family, other.tasks, own.buffer),
        "checkpoint": lambda: lab.load(tmp_path / "agent", family=other.family),
        "checkpoint of a spec": lambda: lab.load(tmp_path / "agent", family=other.family.spec),
        "data": lambda: load_dataset(tmp_path / "data", other.family),
    }
    for what, attempt in attempts.items():
        with pytest.raises((ValueError, lab.StorageError)) as caught:
            attempt()
        message = str(caught.value)
        for name in (first, second):
            assert f"{name!r}" in message, what
    assert agent.labeller is None  # refused before anything was done
    assert agent.updates == 0
    assert (len(own.buffer), len(others)) == (kept, len(other.buffer))
    after = [parameter for part in agent.parts.values() for parameter in part.parameters()]
    assert all(map(torch.equal, after, before))

    assert lab.load(tmp_path / "agent", family=own.family).buffer is not None  # its own variant fits
    assert len(load_dataset(tmp_path / "data", own.family)[0]) == kept
    assert np.isfinite(lab.evaluate(agent, lab.make_family(first), own.tasks).returns).all()


def test_joining_buffers_of_two_variants_is_refused() -> None:
    buffers = [lab.TransitionBuffer(lab.make_family(name).spec, 2) for name in PAIRS[1]]
    with pytest.raises(ValueError, match=r"name='ant-dir'.*name='ant-dir:contact_cost=False'"):
        lab.TransitionBuffer.join(buffers)


# -- the ant's variants ------------------------------------------------------------------------------------------


def ant_steps(name: str, steps: int = 40) -> tuple[list[np.ndarray], ...]:
    """Observations, rewards, features and terminations of the same four ants and actions in a variant."""
    family = lab.make_family(name)
    env = family.batch_env(lab.Tasks([0.0, 1.0, 2.0, 4.0]), num_threads=1)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    found: tuple[list[np.ndarray], ...] = ([], [], [], [])
    for _ in range(steps):
        observations, rewards, terminations, _, info = env.step(rng.uniform(-1, 1, (4, 8)))
        for column, value in zip(found, (observations, rewards, info["features"], terminations), strict=True):
            column.append(value)
    return found


def test_free_contacts_pay_what_is_paid_without_the_contact_term() -> None:
    observations, rewards, features, _ = ant_steps("ant-dir")
    free_observations, free_rewards, free_features, _ = ant_steps("ant-dir:contact_cost=False")
    cost = 5e-4 * np.array(features)[..., 2]
    assert cost.max() > 5e-4
    np.testing.assert_allclose(observations, free_observations, atol=1e-10)
    np.testing.assert_allclose(np.array(rewards) + cost, free_rewards, atol=1e-10)
    np.testing.assert_array_equal(np.array(free_features)[..., 2], 0.0)


def test_velocity_only_pays_velocity_alone() -> None:
    angles = np.array([0.0, 1.0, 2.0, 4.0])
    family = lab.make_family("ant-dir", velocity_only=True)
    env = family.batch_env(lab.Tasks(angles), num_threads=1)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        before = env.simulation.state.qpos[:, :2].copy()
        _, rewards, _, _, info = env.step(rng.uniform(-1, 1, (4, 8)))
        x, y = ((env.simulation.state.qpos[:, :2] - before) / 0.05).T
        np.testing.assert_allclose(rewards, x * np.cos(angles) + y * np.sin(angles), rtol=1e-12)
        np.testing.assert_array_equal(info["features"][:, 2], 0.0)
    assert np.abs(rewards).min() > 1e-3


def test_velocity_only_lasts_to_the_horizon() -> None:
    family = lab.make_family("ant-dir", velocity_only=True)
    env = family.batch_env(lab.Tasks(np.zeros(3)), num_threads=1)
    env.reset(seed=0)
    env.simulation.state.qpos[:, 2] = [0.75, 3.0, 1.5]
    rng = np.random.default_rng(0)
    for step in range(1, 201):
        _, _, terminations, truncations, info = env.step(rng.uniform(-1, 1, (3, 8)))
        assert not terminations.any()
        assert truncations.all() == (step == 200)
        assert not info["diverged"].any()
    env.simulation.state.qpos[1, 2] = np.nan  # broken physics ends it all the same
    with pytest.warns(RuntimeWarning, match="diverged"):
        assert env.step(np.zeros((3, 8)))[2].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("name", "reads"),
    [("ant-dir", True), ("ant-dir:contact_cost=False", False), ("ant-dir:velocity_only=True", False)],
)
def test_free_contacts_take_no_further_pass_through_the_physics(name: str, reads: bool) -> None:
    family = lab.make_family(name)
    engine = family.batch_env(lab.Tasks([0.0])).simulation.engine
    assert (engine.stage != engine._none) == reads
    assert ("cfrc_ext" in family.state_fields) == reads
    assert (family.model.nsensor > 0) == reads
