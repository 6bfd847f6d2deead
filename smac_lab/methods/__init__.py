"""Methods of meta-RL by name: SMAC, and prior work on the same data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from smac_lab.agent import SMAC
from smac_lab.config import MethodName, SMACConfig
from smac_lab.engine.meter import Metrics
from smac_lab.engine.method import Method
from smac_lab.methods.borel import BOReL, BOReLNumbers, check_borel, train_borel
from smac_lab.methods.cloning import Cloning
from smac_lab.methods.macaw import MACAW, MACAWNumbers, train_macaw
from smac_lab.methods.offline_pearl import OfflinePEARL
from smac_lab.tasks.family import TaskFamily
from smac_lab.training import train_offline

Numbers = MACAWNumbers | BOReLNumbers


class Entry(NamedTuple):
    """A method.

    Args:
        make: `(config, spec, seed=...)` to an agent; also takes `numbers=...` if the method has any.
        learn: `(agent, buffer, family, tasks, steps, log_every)` to a generator.
        updates: `(config, numbers)` to the updates of the phase.
        paper: numbers as published; None if the config has all.
        cpu, smoke: changes to `paper`, for ten minutes on two cores, and for seconds.
        check: `(family, numbers)`; raises ValueError if the method cannot learn the family.
        goes_online: whether arms of the self-supervised phase may follow.
        seeds_at_once: whether one agent may have several seeds.
    """

    make: type[Any]
    learn: Callable[..., Iterator[tuple[int, Metrics]]]
    updates: Callable[[SMACConfig, Any], int]
    paper: Numbers | None = None
    cpu: dict[str, Any] = {}  # noqa: RUF012 - never written to
    smoke: dict[str, Any] = {}  # noqa: RUF012 - never written to
    check: Callable[[TaskFamily, Any], None] = lambda family, numbers: None
    goes_online: bool = False
    seeds_at_once: bool = True

    def numbers(self, preset: str) -> Numbers | None:
        """Return the numbers under a preset, if any."""
        changes = {"cpu": self.cpu, "smoke": self.smoke}.get(preset, {})
        return None if self.paper is None else dataclasses.replace(self.paper, **changes)

    def agent(self, config: SMACConfig, spec: Any, seed: Any, numbers: Numbers | None, **parts: Any) -> Method:
        """Make an agent."""
        own = {} if self.paper is None else {"numbers": numbers}
        made: Method = self.make(config, spec, seed=seed, **own, **parts)
        return made


def _offline_steps(config: SMACConfig, numbers: Any) -> int:
    return config.offline_steps


def _smac_offline(agent: Any, buffer: Any, family: Any, tasks: Any, steps: int, log_every: int) -> Any:
    return train_offline(agent, buffer, steps, log_every)


def _both_stages(config: SMACConfig, numbers: BOReLNumbers) -> int:
    return numbers.belief_updates + numbers.policy_updates


MACAW_CPU: dict[str, Any] = {
    "steps": 4_000,  # three minutes
    "hidden": (64, 64),  # expensive: each task has an adapted copy of all parameters
    "latent": 16,  # maps have `latent` times as many parameters as layers
    "value_rate": 1e-3,  # higher, for few steps
    "actor_rate": 1e-3,  # likewise
}
BOREL_CPU: dict[str, Any] = {
    "belief_updates": 2_000,  # on one core, two minutes (point robot) or eight (half-cheetah)
    "policy_updates": 12_000,  # seven minutes
    "policy_tasks": 8,  # half of the paper's, for twice as many updates
    "batch_size": 128,  # likewise
}
MACAW_SMOKE: dict[str, Any] = {
    "steps": 20, "hidden": (16, 16), "latent": 4, "inner_batch_size": 16, "batch_size": 16,
}  # fmt: skip
BOREL_SMOKE: dict[str, Any] = {
    "belief_updates": 10, "policy_updates": 10, "hidden": 16, "policy_hidden": (16, 16), "batch_size": 16,
    "policy_tasks": 4, "episodes": 2,
}  # fmt: skip
# As SMAC's authors ran them: MACAW without weight transforms and advantage head, BOReL without reward relabelling.
MACAW_IN_SMAC = MACAWNumbers(
    steps=100_000, tasks=10, inner_batch_size=32, batch_size=128, contiguous=False, hidden=(300, 300, 300),
    layers="biases", value_step=1e-2, actor_step=1e-2, value_rate=1e-3, actor_rate=1e-3, advantage_head=0.0,
)  # fmt: skip
BOREL_IN_SMAC = BOReLNumbers(relabel=False, policy_updates=400_000)

METHODS: dict[MethodName, Entry] = {
    "smac": Entry(SMAC, _smac_offline, _offline_steps, goes_online=True),
    "cloning": Entry(Cloning, _smac_offline, _offline_steps),
    "offline-pearl": Entry(OfflinePEARL, _smac_offline, _offline_steps),
    "macaw": Entry(
        MACAW, train_macaw, lambda config, n: n.steps, MACAWNumbers(), MACAW_CPU, MACAW_SMOKE,
    ),
    "borel": Entry(
        BOReL, train_borel, _both_stages, BOReLNumbers(), BOREL_CPU, BOREL_SMOKE, check_borel, seeds_at_once=False,
    ),
    "macaw-in-smac": Entry(
        MACAW, train_macaw, lambda config, n: n.steps, MACAW_IN_SMAC,
        {"steps": 4_000, "hidden": (64, 64), "latent": 16}, MACAW_SMOKE,
    ),
    "borel-in-smac": Entry(
        BOReL, train_borel, _both_stages, BOREL_IN_SMAC, BOREL_CPU, BOREL_SMOKE, check_borel, seeds_at_once=False,
    ),
}  # fmt: skip


def find_method(name: str) -> Entry:
    """Return the method of that name.

    Raises:
        ValueError: no method has that name.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; known methods: {', '.join(METHODS)}")
    return METHODS[name]


def name_of(agent: Any) -> MethodName:
    """Return the name of an agent's method; "smac" for a class not in `METHODS`."""
    return next((name for name, entry in METHODS.items() if entry.make is type(agent)), "smac")
