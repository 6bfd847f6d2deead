"""Process that stores a run's transitions and prints its memory as JSON."""

from __future__ import annotations

import json
import sys

import numpy as np

from smac_lab.agent import SMAC
from smac_lab.bench.race import peak_memory, resident_memory
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.engine.rollout import Episodes
from smac_lab.sampling import sample_offline
from smac_lab.tasks import make_family
from smac_lab.tasks.spec import FamilySpec


def widths(spec: FamilySpec) -> dict[str, int]:
    """Return the number of values per transition, by column."""
    wide = {"observations": spec.obs_dim, "next_observations": spec.obs_dim, "actions": spec.action_dim}
    columns = (name for name in Episodes._fields if name != "valid")
    return {name: {**wide, "features": spec.feature_dim}.get(name, 1) for name in columns}


def hold(family_name: str, transitions: int, n_tasks: int, updates: int = 3) -> dict[str, int]:
    """Append `transitions` by episodes, make some of the paper's updates, and measure memory, in bytes."""
    family, rng = make_family(family_name), np.random.default_rng(0)
    buffer, agent = TransitionBuffer(family.spec, n_tasks), SMAC(SMACConfig(device="cpu"), family.spec)
    before = resident_memory()
    for episode, start in enumerate(range(0, transitions, family.horizon)):
        n = min(family.horizon, transitions - start)
        columns = {name: rng.standard_normal((n, width)) for name, width in widths(family.spec).items()}
        seen = rng.standard_normal((n + 1, family.obs_dim))
        columns |= {"observations": seen[:-1], "next_observations": seen[1:]}  # of one episode
        columns |= {"terminations": np.zeros(n), "truncations": np.zeros(n)}
        buffer.append(episode % n_tasks, columns, "offline" if episode < 6 * n_tasks else "self-collected")
    grown = resident_memory() - before
    for _ in range(updates if len(buffer) else 0):
        agent.update(sample_offline(agent, buffer))
    stored = 4 * sum(widths(family.spec).values()) * len(buffer)  # single precision
    return {"transitions": len(buffer), "stored": stored, "grown": grown, "peak": peak_memory()}


if __name__ == "__main__":
    print(json.dumps(hold(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
