"""Rollouts of policies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from smac_lab.engine.policy import EpisodePolicy
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.simulation import BatchEnv
from smac_lab.tasks.spec import Array, Tasks

Policy = Callable[[Array], NDArray[np.floating]]


@runtime_checkable
class Watching(Protocol):
    """A policy that learns about the task while it acts."""

    def watch(self, actions: Array, rewards: Array, next_observations: Array) -> None:
        """Receive each step's results, `(simulation, ...)`."""


class Episodes(NamedTuple):
    """One horizon of interaction per simulation, `(simulation, time, dim)` or `(simulation, time)`.

    An episode that ends early is followed by another in its row, so that all contexts have the same length.
    """

    observations: Array
    actions: Array
    rewards: Array
    next_observations: Array
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    features: Array
    valid: NDArray[np.bool_]  # False where physics broke down: never stored

    @property
    def first(self) -> NDArray[np.bool_]:
        """Whether a step is in its row's first episode, `(simulation, time)`."""
        ended = np.cumsum(self.terminations | self.truncations, axis=-1)
        return (ended - (self.terminations | self.truncations)) == 0

    @property
    def returns(self) -> Array:
        """Undiscounted return of each row's first episode, `(simulation,)`."""
        return np.where(self.first, self.rewards, 0.0).sum(-1)

    def columns(self, simulation: int) -> dict[str, Array]:
        """Return the valid transitions of one simulation, for `TransitionBuffer.append`."""
        keep = self.valid[simulation]
        return {name: getattr(self, name)[simulation][keep] for name in self._fields if name != "valid"}


def rollout(policy: Policy, env: BatchEnv, seed: int | Sequence[int | None] | None = None) -> Episodes:
    """Run `policy` for one horizon in all simulations.

    Several threads run a single seed's `EpisodePolicy` (see `BatchEnv.for_threads`).

    Args:
        policy: observations `(n, obs_dim)` to actions `(n, action_dim)`.
        env: simulations, which are reset first.
        seed: of the resets, one or one per simulation (see `BatchEnv.reset`).

    Returns:
        Episodes with `n` rows of `horizon` steps.
    """
    seeds, parts = env.seeds(seed), env.for_threads
    if len(parts) == 1 or not isinstance(policy, EpisodePolicy) or policy.agent.seeds is not None:
        return _rollout(policy, env, seeds)
    policies = policy.for_simulations([part.num_envs for part in parts])
    starts = np.cumsum([0, *[part.num_envs for part in parts]])
    own_seeds = [seeds[start:end] for start, end in itertools.pairwise(starts)]
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(len(parts), initializer=torch.set_num_threads, initargs=(parts[-1].num_threads,)) as pool:
        episodes = list(pool.map(_rollout, policies, parts, own_seeds))
    torch.set_num_threads(threads)  # new threads would inherit the workers' number
    return Episodes(*[np.concatenate(columns) for columns in zip(*episodes, strict=True)])


def _rollout(policy: Policy, env: BatchEnv, seeds: list[int | None]) -> Episodes:
    n, horizon = env.num_envs, env.family.horizon
    obs_dim, action_dim = env.family.obs_dim, env.family.action_dim
    observations, next_observations = np.empty((2, n, horizon, obs_dim))
    actions = np.empty((n, horizon, action_dim))
    rewards = np.empty((n, horizon))
    terminations, truncations, valid = np.empty((3, n, horizon), dtype=bool)
    features = np.empty((n, horizon, env.family.spec.feature_dim))

    watch = policy.watch if isinstance(policy, Watching) else None
    observation, _ = env.reset(seed=seeds)
    for t in range(horizon):
        action = policy(observation)
        observations[:, t], actions[:, t] = observation, action
        observation, rewards[:, t], terminations[:, t], truncations[:, t], info = env.step(action)
        next_observations[:, t] = info.get("final_obs", observation)
        features[:, t], valid[:, t] = info["features"], ~info["diverged"]
        if watch is not None:
            watch(action, rewards[:, t], next_observations[:, t])
    return Episodes(observations, actions, rewards, next_observations, terminations, truncations, features, valid)


def scripted_policy(
    family: TaskFamily,
    pursued: Tasks,
    noise: float,
    rng: np.random.Generator,
    own: Tasks | None = None,
    stays: NDArray[np.bool_] | None = None,
) -> Policy:
    """Make the scripted policy towards the `pursued` tasks, with Gaussian action noise.

    Args:
        own: tasks of the data, if episodes may change the pursued task (`pursue_next`). Default: they do not.
        stays: episodes that pursue one task to the end even if `own` is given, `(n,)`.
    """
    steps, aims = itertools.count(), pursued.values.copy()
    wanders = np.full(len(aims), own is not None) if stays is None else ~stays

    def policy(observations: Array) -> Array:
        if wanders.any():
            assert own is not None
            aims[wanders] = family.pursue_next(rng, observations[wanders], aims[wanders], own.values[wanders])
        actions = family.behave(next(steps), observations, aims)
        assert actions is not None
        return np.clip(actions + noise * rng.standard_normal(actions.shape), -1.0, 1.0)

    return policy


def near_random_policy(action_dim: int, rng: np.random.Generator) -> Policy:
    """Make the policy a = tanh(N(0, I)), similar to the untrained actor of the paper's first PEARL runs."""
    return lambda observations: np.tanh(rng.standard_normal((len(observations), action_dim)))
