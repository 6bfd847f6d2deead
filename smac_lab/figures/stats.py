"""Statistics of a few seeds: means, interquartile means, bootstrap intervals, and shares of a gap.

The intervals are those of Agarwal et al., "Deep RL at the Edge of the Statistical Precipice" (NeurIPS 2021, arXiv
2108.13264), computed by the authors' library, rliable: runs are resampled within each task, and the bounds are
percentiles of the aggregate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Aggregate = Literal["mean", "iqm"]


class Interval(NamedTuple):
    """An estimate and its bounds, which are NaN with a single seed."""

    point: float
    low: float
    high: float


class Gap(NamedTuple):
    """Return lost by self-collected context, before and after an arm; each `(seed,)`."""

    before: Array  # offline-context return minus self-collected-context return
    after: Array
    closed: Array  # 1 - after / before; NaN where there was no gap before
    recovered: Array  # rise of the self-collected-context return / before; NaN where there was no gap before


def interval(
    values: ArrayLike,
    aggregate: Aggregate = "mean",
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Aggregate over seeds (and tasks), with a stratified bootstrap interval.

    A resample draws seeds with replacement, for each task separately; the interval contains the middle `confidence` of
    the aggregates. It estimates how the aggregate would vary with other seeds on the same tasks. With three seeds or
    fewer, a 95 % interval spans about the whole range of the seeds.

    Args:
        values: scores, `(seed,)` or `(seed, task)`. A column must be one task for all seeds.
        aggregate: "mean", or "iqm", the interquartile mean over seeds and tasks together.
        confidence: coverage, between 0 and 1.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        The estimate and its bounds; the bounds are NaN with a single seed, all three if any value is NaN.

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

    def reduce(scores: Array) -> float:
        return float(scores.mean()) if aggregate == "mean" else interquartile_mean(scores)

    if len(scores) == 1:
        return Interval(reduce(scores), np.nan, np.nan)
    return _bootstrap(scores, reduce, resamples, confidence, seed)


def interquartile_mean(scores: Array) -> float:
    """Return the mean of the middle half of all scores, any shape.

    `rliable.metrics.aggregate_iqm` is the same through scipy's `trim_mean`, whose checks take half a second per
    bootstrap.
    """
    cut = scores.size // 4
    return float(np.sort(scores, axis=None)[cut : scores.size - cut].mean())


def _bootstrap(scores: Any, reduce: Callable[..., float], resamples: int, confidence: float, seed: int) -> Interval:
    """Bootstrap `reduce` by rliable; scores are `(seed, task)`, or a pair of such arrays."""
    from rliable import library  # imported late: it imports pandas and statsmodels

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
    """Return the mean and 95 % interval of the finite values, `(seed,)`; NaN without any."""
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    return interval(known) if len(known) else Interval(np.nan, np.nan, np.nan)


def gap_closed(before: Mapping[str, ArrayLike], after: Mapping[str, ArrayLike], least: float = 0.0) -> Gap:
    """Compute the share of the gap that an arm closes, per seed.

    gap = offline-context return - self-collected-context return; closed = 1 - gap_after / gap_before. A gap also closes
    when the offline-context return *falls*. `recovered` therefore uses self-collected-context returns alone:
    (online_after - online_before) / gap_before.

    Args:
        before, after: each with "offline_context" and "online_context", `(seed,)`.
        least: shares are NaN for seeds whose gap before is not above this.
    """
    names = ("offline_context", "online_context")
    offline, online = (np.asarray(before[name], dtype=np.float64) for name in names)
    offline_after, online_after = (np.asarray(after[name], dtype=np.float64) for name in names)
    gap_before, gap_after = offline - online, offline_after - online_after
    divisor = np.where(gap_before > least, gap_before, np.nan)
    return Gap(gap_before, gap_after, 1 - gap_after / divisor, (online_after - online) / divisor)


def share_of_range(value: ArrayLike, random: float | None, best: float | None) -> Array:
    """Normalise returns: 0 is random actions, 1 the best known controller.

    Args:
        value: returns, any shape.
        random, best: their returns; None if unknown.

    Returns:
        (value - random) / (best - random), of the same shape; NaN if one is unknown or both are equal.
    """
    value = np.asarray(value, dtype=np.float64)
    if random is None or best is None or best == random:
        return np.full(value.shape, np.nan)
    return (value - random) / (best - random)


def probability_of_improvement(x: ArrayLike, y: ArrayLike, resamples: int = 2_000, seed: int = 0) -> Interval:
    """Estimate P(X > Y) of two runs, with a stratified bootstrap 95 % interval (Agarwal et al., 2021); ties count half.

    Args:
        x, y: scores, `(seed,)` or `(seed, task)`; seeds may differ in number.
        resamples, seed: of the bootstrap.

    Returns:
        The share and its bounds; all NaN if any value is, bounds NaN if `x` or `y` has a single seed.
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
    """Return the share of scores above each tau, `(tau,)`: a performance profile (Agarwal et al., 2021, sec. 4.2)."""
    from rliable import library

    values, given = np.asarray(scores, dtype=np.float64).reshape(-1, 1), np.asarray(taus, dtype=np.float64)
    points, _ = library.create_performance_profile({"scores": values}, given, reps=2)
    found: Array = points["scores"]
    return found
