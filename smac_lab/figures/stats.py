"""Statistics of a handful of seeds: means, interquartile means, bootstrap intervals, and how much of a gap closed.

The intervals are those of Agarwal et al., "Deep RL at the Edge of the Statistical Precipice" (NeurIPS 2021,
arXiv 2108.13264), computed by the authors' library, rliable: runs are resampled within each task, percentiles
of the aggregate are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Aggregate = Literal["mean", "iqm"]


class Interval(NamedTuple):
    """An estimate and its bounds; the bounds are NaN where one seed leaves nothing to resample."""

    point: float
    low: float
    high: float


class Gap(NamedTuple):
    """Return lost to self-collected context, before and after an arm; each `(seed,)`."""

    before: Array  # offline-context return minus self-collected-context return
    after: Array
    closed: Array  # 1 - after / before; NaN where there was no gap to close
    recovered: Array  # rise of the self-collected-context return / before; NaN likewise


def interval(
    values: ArrayLike,
    aggregate: Aggregate = "mean",
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Aggregate over seeds (and tasks), with a stratified bootstrap interval.

    Every resample draws, for each task separately, as many seeds as there are, with replacement; the interval
    holds the middle `confidence` of the aggregates. It says what other seeds on these tasks might have given.
    With three seeds or fewer a 95 % interval spans about the whole range of the seeds: few seeds, little
    knowledge. The same input gives the same interval.

    Args:
        values: scores, `(seed,)` or `(seed, task)`. Columns must be the same tasks for every seed.
        aggregate: "mean", or "iqm", the interquartile mean over all seeds and tasks together.
        confidence: coverage of the interval, between 0 and 1.
        resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        The point and its bounds. With one seed there is nothing to resample, and both bounds are NaN. NaN
        everywhere where a value is NaN.

    Raises:
        ValueError: no values, a wrong shape, an unknown aggregate or a confidence outside (0, 1).
    """
    scores = np.asarray(values, dtype=np.float64)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"values must be of shape (seed,) or (seed, task) and not empty, got {np.shape(values)}")
    if aggregate not in ("mean", "iqm"):
        raise ValueError(f"aggregate must be 'mean' or 'iqm', got {aggregate!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if np.isnan(scores).any():
        return Interval(np.nan, np.nan, np.nan)

    from rliable import metrics  # here: it brings pandas and statsmodels along

    reduce = metrics.aggregate_mean if aggregate == "mean" else metrics.aggregate_iqm
    if len(scores) == 1:
        return Interval(float(reduce(scores)), np.nan, np.nan)
    return _bootstrap(scores, lambda x: float(reduce(x)), resamples, confidence, seed)


def _bootstrap(scores: Any, reduce: Callable[..., float], resamples: int, confidence: float, seed: int) -> Interval:
    """rliable's stratified bootstrap of `reduce`; of scores `(seed, task)`, or of a pair of them."""
    from rliable import library  # here: it brings pandas and statsmodels along

    state = np.random.get_state()  # noqa: NPY002  rliable draws from numpy's global generator
    try:
        np.random.seed(seed)  # noqa: NPY002
        points, bounds = library.get_interval_estimates(
            {"scores": scores}, lambda *x: np.array([reduce(*x)]), reps=resamples, confidence_interval_size=confidence
        )
    finally:
        np.random.set_state(state)  # noqa: NPY002
    low, high = bounds["scores"][:, 0]
    return Interval(float(points["scores"][0]), float(low), float(high))


def over_seeds(values: ArrayLike) -> Interval:
    """Mean and 95 % interval of those seeds that have a value, `(seed,)`; NaN where none has."""
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    return interval(known) if len(known) else Interval(np.nan, np.nan, np.nan)


def gap_closed(before: Mapping[str, ArrayLike], after: Mapping[str, ArrayLike], least: float = 0.0) -> Gap:
    """How much of what self-collected context costs an arm wins back, seed by seed.

    gap = offline-context return - self-collected-context return; closed = 1 - gap_after / gap_before. A gap also
    closes when the offline-context return *falls*, so `recovered`, which looks at the self-collected-context
    return alone, stands beside it: (online_after - online_before) / gap_before.

    Args:
        before, after: each with "offline_context" and "online_context", `(seed,)`.
        least: of a gap before that is no greater, no share is given (NaN).
    """
    names = ("offline_context", "online_context")
    offline, online = (np.asarray(before[name], dtype=np.float64) for name in names)
    offline_after, online_after = (np.asarray(after[name], dtype=np.float64) for name in names)
    gap_before, gap_after = offline - online, offline_after - online_after
    divisor = np.where(gap_before > least, gap_before, np.nan)
    return Gap(gap_before, gap_after, 1 - gap_after / divisor, (online_after - online) / divisor)


def share_of_range(value: ArrayLike, random: float | None, best: float | None) -> Array:
    """Where returns lie between random actions (0) and the best known controller (1).

    Args:
        value: returns, any shape.
        random, best: the two ends; None where unknown.

    Returns:
        (value - random) / (best - random), of the same shape; NaN where an end is unknown or they coincide.
    """
    value = np.asarray(value, dtype=np.float64)
    if random is None or best is None or best == random:
        return np.full(value.shape, np.nan)
    return (value - random) / (best - random)


def probability_of_improvement(x: ArrayLike, y: ArrayLike, resamples: int = 2_000, seed: int = 0) -> Interval:
    """P(X > Y) for a run of each, ties counting half, with a stratified bootstrap 95 % interval (Agarwal et al., 2021).

    Args:
        x, y: scores, `(seed,)` or `(seed, task)`; the numbers of seeds may differ.
        resamples, seed: of the bootstrap.

    Returns:
        The share and its bounds; NaN everywhere where a value is NaN, bounds NaN with a single seed of either.
    """
    pair = [np.asarray(scores, dtype=np.float64) for scores in (x, y)]
    pair = [scores[:, None] if scores.ndim == 1 else scores for scores in pair]
    if any(np.isnan(scores).any() or not len(scores) for scores in pair):
        return Interval(np.nan, np.nan, np.nan)

    def share(first: Array, second: Array) -> float:
        above = first[:, None] > second[None]
        return float((above + 0.5 * (first[:, None] == second[None])).mean())

    if min(map(len, pair)) == 1:
        return Interval(share(*pair), np.nan, np.nan)
    return _bootstrap(pair, share, resamples, 0.95, seed)


def profile(scores: ArrayLike, taus: ArrayLike) -> Array:
    """Share of scores above each tau, `(tau,)`: a performance profile (Agarwal et al., 2021, section 4.2)."""
    from rliable import library

    values, given = np.asarray(scores, dtype=np.float64).reshape(-1, 1), np.asarray(taus, dtype=np.float64)
    points, _ = library.create_performance_profile({"scores": values}, given, reps=2)
    found: Array = points["scores"]
    return found
