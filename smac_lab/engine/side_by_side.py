"""Every task, repeat and seed in one batch of simulations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from smac_lab.encoder import Gaussian
from smac_lab.engine.method import Method
from smac_lab.engine.rollout import Episodes, Policy, rollout
from smac_lab.engine.seeds import Generators
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Tasks, only_set


class SideBySide:
    """Simulations for an agent of one or several seeds, and their random numbers.

    Args:
        agent: the agent that acts.
        family, tasks: of the simulations; with several seeds, one set of tasks, or equally large sets, one per seed.
        repeats: simulations per task.
        seed: of simulations and draws, one for all seeds or one per seed.
        num_threads: physics threads; 0: PyTorch's number.

    Raises:
        ValueError: sets of tasks or `seed` do not match the agent's number of seeds, or sets differ in size.

    Attributes:
        shape: `(task, repeat)`; with several seeds `(seed, task, repeat)`.
        n: simulations per seed, task * repeat.
        generator: random stream from `seed`; with several seeds, a list.
    """

    def __init__(
        self,
        agent: Method,
        family: TaskFamily,
        tasks: Tasks | Sequence[Tasks],
        repeats: int,
        seed: int | Sequence[int],
        num_threads: int = 0,
    ):
        sets, self._seeds = _sets(agent, tasks), _each(agent, seed)
        self.env = family.batch_env(Tasks(np.concatenate([one.repeat(repeats).values for one in sets])), num_threads)
        self.shape = (*agent.seed_axis, len(sets[0]), repeats)
        self.n = len(sets[0]) * repeats
        streams = [torch.Generator(agent.device).manual_seed(one) for one in self._seeds]
        self.generator: Generators = streams[0] if agent.seeds is None else streams
        self.agent = agent

    def rollout(self, policy: Policy, shift: int) -> Episodes:
        """Run one horizon in every simulation, `(..., task * repeat, time, ...)`.

        Args:
            policy: for all simulations.
            shift: added to the seeds of the resets, for different initial states.
        """
        resets = [one * 1_000_003 + shift + i for one in self._seeds for i in range(self.n)]
        columns: Any = rollout(policy, self.env, resets)
        return Episodes(*[column.reshape(*self.agent.seed_axis, self.n, *column.shape[1:]) for column in columns])

    def posterior(self, adapted: Any) -> Gaussian:
        """Return the belief over z, `(..., task, repeat, z_dim)`; z_dim is 0 without z."""
        found = self.agent.posterior(adapted)
        if found is None:
            empty = torch.zeros(*self.shape, 0, device=self.agent.device)
            return Gaussian(empty, empty)
        return Gaussian(*(values.reshape(*self.shape, -1) for values in found))


def _sets(agent: Method, tasks: Tasks | Sequence[Tasks]) -> list[Tasks]:
    if agent.seeds is None:
        return [only_set(tasks)]
    sets = [tasks] * len(agent.seeds) if isinstance(tasks, Tasks) else list(tasks)
    if len(sets) != len(agent.seeds) or len({len(one) for one in sets}) != 1:
        sizes = ", ".join(str(len(one)) for one in sets)
        raise ValueError(f"{len(agent.seeds)} seeds need as many sets of tasks, all of one size; got sizes {sizes}")
    return sets


def _each(agent: Method, seed: int | Sequence[int]) -> list[int]:
    seeds = len(agent.seeds or (0,))
    each = [int(seed)] * seeds if isinstance(seed, (int, np.integer)) else [int(one) for one in seed]
    if len(each) != seeds:
        raise ValueError(f"seed={seed!r} is not allowed: it must be one number, or one for each of {seeds} seeds")
    return each
