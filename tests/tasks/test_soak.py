"""A short soak of random episodes: nothing is warned of, nothing breaks down, and the counting works."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import soak_random_episodes as soaking

import smac_lab as lab
from smac_lab.tasks import FAMILIES


@pytest.mark.parametrize("name", [*FAMILIES, "walker-params:set_const=False", "hopper-params:set_const=False"])
def test_random_episodes_set_off_no_warning(name: str) -> None:
    found = soaking.soak(name, 8)
    assert not found.python_warnings
    assert not found.mujoco_warnings
    assert found.diverged == 0
    assert found.episodes >= 8
    assert found.steps >= 8 * 5


def test_broken_physics_is_counted() -> None:
    family = lab.make_family("cheetah-vel")
    env, counted = family.batch_env(lab.Tasks([1.0, 2.0, 3.0]), num_threads=1), Counter()
    env.reset(seed=0)
    soaking.count_warnings(env, counted)
    env.step(np.zeros((3, 6)))
    assert not counted
    for expected in (2, 4):  # the restart cleared MuJoCo's own counters
        env.simulation.state.qvel[[0, 2]] = np.nan
        with pytest.warns(RuntimeWarning, match="2 of 3 simulations diverged"):
            env.step(np.zeros((3, 6)))
        assert counted == {"mjWARN_BADQVEL": expected}
    found = soaking.Soak(3, 600, Counter({"RuntimeWarning: x": 1}), counted, 4, 2.4)
    assert soaking.row("cheetah-vel", found) == (
        "| cheetah-vel | 3 | 600 | 5 (RuntimeWarning: x: 1, mjWARN_BADQVEL: 4) | 4 | 2 |"
    )
