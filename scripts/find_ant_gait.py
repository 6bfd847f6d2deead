"""Search for the ant's scripted gait: `python scripts/find_ant_gait.py` (three minutes on two cores)."""

from __future__ import annotations

import numpy as np

from smac_lab.tasks import AntDir, Tasks
from smac_lab.tasks.ant import gait


def score(family: AntDir, parameters: np.ndarray, directions: np.ndarray, seed: int, steps: int) -> np.ndarray:
    """Compute the mean reward per step of parameter vectors, `(candidate, 19)`; ended episodes add none."""
    n, k = len(parameters), len(directions)
    coefficients, hertz = parameters[:, :18].reshape(n, 2, 3, 3).repeat(k, 0), parameters[:, 18].repeat(k)
    pursued = np.tile(directions, n)
    env = family.batch_env(Tasks(pursued))
    observations, _ = env.reset(seed=[seed + i % k for i in range(n * k)])
    total, alive = np.zeros(n * k), np.ones(n * k, dtype=bool)
    for step in range(steps):
        observations, rewards, terminations, _, _ = env.step(gait(step, observations, pursued, coefficients, hertz))
        total += rewards * alive
        alive &= ~terminations
    return total.reshape(n, k).mean(1) / steps


def search(generations: int = 45, population: int = 40, elite: int = 8, seed: int = 0) -> np.ndarray:
    """Search by the cross-entropy method; the first half of the generations has episodes of half length."""
    family, rng = AntDir(), np.random.default_rng(seed)
    mean, std = np.array([0.0] * 18 + [1.5]), np.full(19, 0.5)
    for generation in range(generations):
        candidates = mean + std * rng.standard_normal((population, 19))
        candidates[:, 18] = candidates[:, 18].clip(0.3, 5.0)
        directions = rng.uniform(0, 2 * np.pi) + np.pi / 8 * np.arange(3)
        steps = family.horizon // (2 if generation < generations // 2 else 1)
        scores = score(family, candidates, directions, int(rng.integers(2**30)), steps)
        best = candidates[np.argsort(-scores)[:elite]]
        mean = 0.2 * mean + 0.8 * best.mean(0)
        std = 0.2 * std + 0.8 * best.std(0) + 0.02 * max(0.0, 1 - generation / 40)
        print(f"generation {generation}: best {scores.max():.2f}, mean {scores.mean():.2f}", flush=True)
    return mean


if __name__ == "__main__":
    found = search().round(2)
    around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    print(found[:18].reshape(2, 3, 3).tolist(), found[18], score(AntDir(), found[None], around, 1, 200))
