"""The plan of a run, stored as its `config.json`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smac_lab.arms import find_arm, folder_of
from smac_lab.config import SMACConfig
from smac_lab.data.storage import reading
from smac_lab.methods import Entry, Numbers, find_method
from smac_lab.runs.behaviour import check_recipe, uses_pearl
from smac_lab.tasks import make_family

DEFAULT_ARMS = ("frozen", "self-labelled", "oracle")


def slug(family: str) -> str:
    """Return a family's full name for file names."""
    return re.sub("[:=,]", "-", family)


# Settings of a run that may get further entries later: whether a folder has anything of an entry.
GROWS: dict[str, Callable[[Path, Any], bool]] = {
    "seeds": lambda folder, seed: (folder / f"seed_{seed}").exists(),
    "arms": lambda folder, arm: any(folder.glob(f"seed_*/{folder_of(arm)}")),
}


def is_data_set(folder: str | Path) -> bool:
    """Return whether a folder contains a data set."""
    return (Path(folder) / "dataset.json").exists()


@dataclass(frozen=True)
class Experiment:
    """The plan of an experiment.

    Args:
        family: name of the task family.
        preset: name that the config came from.
        config: every number.
        seeds: independent runs, each with its tasks, data and agent.
        arms: names from `ARMS`.
        data: folder of a data set, or of a run whose static data is used; None: collect data.
        evaluations: measurements during each arm.
        method: name from `METHODS`; the preset selects its numbers.

    Raises:
        ValueError: unknown family, method or arm, no seed, or arms for an offline method.
    """

    family: str
    preset: str
    config: SMACConfig
    seeds: tuple[int, ...] = (0,)
    arms: tuple[str, ...] = DEFAULT_ARMS
    data: str | None = None
    evaluations: int = 10
    method: str = "smac"

    def __post_init__(self) -> None:
        family = make_family(self.family)
        object.__setattr__(self, "family", family.full_name)  # one spelling per variant
        check_recipe(family, self.config)
        self.entry.check(family, self.numbers)
        if self.arms and not self.entry.goes_online:
            raise ValueError(f"arms={self.arms} is not allowed: {self.method} learns from static data alone")
        for arm in self.arms:
            find_arm(arm)
        if len(set(self.arms)) != len(self.arms):
            raise ValueError(f"arms={self.arms} is not allowed: each arm once")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={self.seeds} is not allowed: at least one seed, each once")
        if self.data is not None and len(self.seeds) > 1 and is_data_set(self.data):
            raise ValueError(
                f"a data set holds the tasks of one seed, but there are {len(self.seeds)} seeds; the folder of a run "
                "holds those of all of its seeds"
            )

    @property
    def entry(self) -> Entry:
        """The method's entry in `METHODS`."""
        return find_method(self.method)

    @property
    def numbers(self) -> Numbers | None:
        """The method's numbers under the preset."""
        return self.entry.numbers(self.preset)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as JSON can store them."""
        return {**vars(self), "config": self.config.to_dict(), "seeds": list(self.seeds), "arms": list(self.arms)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Experiment:
        """Build an experiment from the output of `to_dict`."""
        with reading("config.json"):
            config = SMACConfig.from_dict(fields["config"])
            return cls(**{**fields, "config": config, "seeds": tuple(fields["seeds"]), "arms": tuple(fields["arms"])})

    def updates(self) -> dict[str, int]:
        """Count the updates per seed by phase, in order; "behaviour" is PEARL's."""
        c = self.config
        pearl = self.data is None and uses_pearl(c)
        return {
            "behaviour": c.behaviour_iterations * c.behaviour_updates if pearl else 0,
            "offline": self.entry.updates(c, self.numbers),
            **{folder_of(arm): c.online_iterations * c.online_updates for arm in self.arms},
        }
