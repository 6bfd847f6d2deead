"""The claims of the paper's abstract, the runs that answer them, and verdicts.

A claim is judged on a share, one value per seed. It holds if the 95 % interval over seeds is above its bound, does not
hold if the interval is below, and cannot be told otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from smac_lab.figures import findings, style
from smac_lab.figures.kept import Results, Summary, missing
from smac_lab.figures.stats import Array, Interval, gap_closed, over_seeds
from smac_lab.runs.sweep import Sweep

BODIES = ("cheetah-vel", "ant-dir", "humanoid-dir", "walker-params", "hopper-params")
DOMAINS = (*BODIES, "sawyer")  # the paper's
FAMILIES = ("point-robot", *DOMAINS)
PRIOR_WORK = ("macaw", "borel", "cloning", "offline-pearl")
UNABLE = ("walker-params-borel", "hopper-params-borel")  # rewards alone do not make data of another body
NEAR_RANDOM = {"behaviour_policy": "random", "exploration_transitions": 0}
VARIANTS: dict[str, dict[str, Any]] = {"default": {}, "near-random": NEAR_RANDOM}
ANSWERS = ("does not hold", "cannot be told", "holds")  # how verdicts begin

Measures = dict[str, dict[str, Array]]


class Runs(NamedTuple):
    """Runs that a claim needs: all methods and arms on all families, on one kind of data."""

    families: tuple[str, ...] = FAMILIES
    methods: tuple[str, ...] = ("smac",)
    arms: tuple[str, ...] = ("frozen",)
    variant: str = "default"


class Claim(NamedTuple):
    """A claim, and the runs that answer it.

    Args:
        says: the claim.
        share: what is judged, in words.
        bound: the least share at which it holds.
        judge: `(results, family)` to shares `(seed,)` by what is compared, NaN where undefined.
        needs: the runs; the first has the judged families.
    """

    says: str
    share: str
    bound: float
    judge: Callable[[Results, str], dict[str, Array]]
    needs: tuple[Runs, ...] = (Runs(),)


class Verdict(NamedTuple):
    """The answer to a claim on one family."""

    claim: str
    family: str
    about: str
    share: Interval
    bound: float
    seeds: int

    @property
    def words(self) -> str:
        """The verdict in words."""
        if np.isnan(self.share.point):
            return "cannot be told: there is no gap, or no gain, to measure it by"
        if self.share.low > self.bound:
            return "holds"
        if self.share.high < self.bound:
            return "does not hold"
        return f"cannot be told with {self.seeds} seed{'s' * (self.seeds > 1)}"


# -- shares ----------------------------------------------------------------------------------------------
def _scales(summary: Mapping[str, Any]) -> Iterator[tuple[str, Measures, float]]:
    """List a run's scales: returns above those of random actions, and success if it has one."""
    found = findings.measures(summary)
    yield "return", found, float(summary["random"])
    if "online_context_success" in found["before"]:
        names = {kind: f"{kind}_success" for kind in ("offline_context", "online_context", "test")}
        yield "success", {p: {k: m[name] for k, name in names.items()} for p, m in found.items()}, 0.0


def _share(part: Array, whole: Array) -> Array:
    """Divide; NaN where the whole is not positive."""
    return part / np.where(whole > 0, whole, np.nan)


def lost(results: Results, family: str) -> dict[str, Array]:
    """Return the share of offline context's gain over random actions that self-collected context loses."""
    shares = {}
    for scale, found, random in _scales(results[family]):
        before = found["before"]
        offline, online = before["offline_context"], before["online_context"]
        shares[scale] = _share(offline - online, offline - random)
    return shares


def closed(results: Results, family: str) -> dict[str, Array]:
    """Return the share of the gap that `frozen` closes; NaN where the gap is below 2 % of the gain over random ones."""
    shares = {}
    for scale, found, random in _scales(results[family]):
        before, after = found["before"], found["frozen"]
        shares[scale] = gap_closed(before, after, findings.negligible_gap(before, random)).closed
    return shares


def near_oracle(results: Results, family: str) -> dict[str, Array]:
    """Return `frozen`'s gain over random actions as a share of the oracle's, both given self-collected context."""
    return {
        scale: _share(found["frozen"]["online_context"] - random, found["oracle"]["online_context"] - random)
        for scale, found, random in _scales(results[family])
    }


def above_prior_work(results: Results, family: str) -> dict[str, Array]:
    """Return by what share of `frozen`'s gain over random actions each method stays below it."""
    shares, own = {}, results[family]
    for method in (method for method in PRIOR_WORK if f"{family}-{method}" not in UNABLE):
        other = results[f"{family}-{method}"]
        theirs = {scale: found["before"]["online_context"] for scale, found, _ in _scales(other)}
        for scale, found, random in _scales(own):
            ours = found["frozen"]["online_context"]
            shares[f"{method}, {scale}"] = _share(ours - _by_seed(theirs[scale], other, own["seeds"]), ours - random)
    return shares


def without_exploration(results: Results, family: str) -> dict[str, Array]:
    """Return `self-labelled`'s gain from data without exploration as a share of `frozen`'s from data with it."""
    without, shares = results[f"{family}-near-random"], {}
    with_it = {scale: found["frozen"]["online_context"] for scale, found, _ in _scales(results[family])}
    for scale, found, random in _scales(without):
        theirs = _by_seed(with_it[scale], results[family], without["seeds"])
        shares[scale] = _share(found["self-labelled"]["online_context"] - random, theirs - random)
    return shares


def _by_seed(values: Array, summary: Summary, seeds: Sequence[int]) -> Array:
    """Return a summary's values for these seeds, NaN for one that it lacks."""
    known = dict(zip(summary["seeds"], values.tolist(), strict=True))
    return np.array([known.get(seed, np.nan) for seed in seeds])


CLAIMS: dict[str, Claim] = {
    "shift": Claim(
        "After the offline phase, returns from self-collected context lie far below those from offline context.",
        "share of offline context's gain over random actions that is lost", 0.1, lost,
    ),
    "closes": Claim(
        "Online data without rewards closes that gap.",
        "share of the gap that the arm `frozen` closes", 0.5, closed,
    ),
    "oracle": Claim(
        "The result comes close to that of the oracle, which goes on with true rewards.",
        "`frozen`'s gain over random actions as a share of the oracle's", 0.9, near_oracle,
        (Runs(arms=("frozen", "oracle")),),
    ),
    "prior-work": Claim(
        "It lies far above prior work on offline meta-RL.",
        "share of `frozen`'s gain over random actions that the method lacks", 0.1, above_prior_work,
        (Runs(methods=("smac", *PRIOR_WORK)),),
    ),
    "self-labelled": Claim(
        "A self-labelled encoder (ours) buys the same where the data has no exploration with true rewards.",
        "its gain over random actions as a share of `frozen`'s from data with exploration", 0.9, without_exploration,
        (Runs(("cheetah-vel",)), Runs(("cheetah-vel",), arms=("self-labelled",), variant="near-random")),
    ),
}  # fmt: skip


# -- runs ------------------------------------------------------------------------------------------------
def sweeps(
    names: Sequence[str],
    preset: str,
    out: Path,
    seeds: Sequence[int],
    kept: Results,
    families: Sequence[str] = FAMILIES,
) -> list[Sweep]:
    """List the missing runs of some claims: a sweep per variant of the data.

    Args:
        names: of claims.
        preset, out, seeds: of the runs.
        kept: results, which are not run again for the same seeds.
        families: leave out others.
    """
    found = []
    for variant, fields in VARIANTS.items():
        needs = [need for name in names for need in CLAIMS[name].needs if need.variant == variant]
        if not needs:
            continue
        columns = list(zip(*needs, strict=True))[:3]
        needed, methods, arms = (tuple(dict.fromkeys(itertools.chain(*column))) for column in columns)
        if chosen := tuple(family for family in needed if family in families):
            sweep = Sweep(str(out), chosen, preset, methods, arms, tuple(seeds), {variant: fields}, skip=UNABLE)
            found += missing(sweep, kept)
    return found


# -- verdicts --------------------------------------------------------------------------------------------
def verdicts(names: Sequence[str], results: Results, families: Sequence[str] = FAMILIES) -> list[Verdict]:
    """Judge claims on every one of the families that has results."""
    found = []
    for name in names:
        claim = CLAIMS[name]
        for family in (family for family in claim.needs[0].families if family in families):
            try:
                shares = claim.judge(results, family)
            except KeyError:  # a run or an arm without result
                continue
            for about, values in shares.items():
                known = int(np.isfinite(values).sum())
                found.append(Verdict(name, family, about, over_seeds(values), claim.bound, known))
    return found


def markdown(found: Sequence[Verdict]) -> str:
    """Format verdicts as a Markdown table per claim, misses first."""
    lines: list[str] = []
    for name in dict.fromkeys(verdict.claim for verdict in found):
        claim = CLAIMS[name]
        own = [verdict for verdict in found if verdict.claim == name]
        own.sort(key=lambda verdict: next(i for i, words in enumerate(ANSWERS) if verdict.words.startswith(words)))
        lines += ["", f"**{claim.says}** Judged: {claim.share}, at least {findings.number(claim.bound, True)}.", ""]
        lines += ["| family | measure | share [95 %] | seeds | verdict |", "|---|---|---|---|---|"]
        for v in own:
            share = f"{findings.number(v.share.point, True)} {findings.bounds(v.share, True)}".strip()
            lines.append(f"| {v.family} | {v.about} | {share} | {v.seeds} | {v.words} |")
    return "\n".join(lines).strip()


def in_brief(found: Sequence[Verdict]) -> str:
    """Format verdicts as one Markdown table: on which families each claim holds, misses first."""
    lines = [f"| claim | {' | '.join(ANSWERS)} |", "|---" * (1 + len(ANSWERS)) + "|"]
    for name in dict.fromkeys(verdict.claim for verdict in found):
        cells = []
        for answer in ANSWERS:
            by_family: dict[str, list[str]] = {}
            for verdict in found:
                if verdict.claim == name and verdict.words.startswith(answer):
                    by_family.setdefault(verdict.family, []).append(verdict.about.removesuffix(", return"))
            cells.append("; ".join(_on(family, abouts) for family, abouts in by_family.items()))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _on(family: str, abouts: Sequence[str]) -> str:
    return family if list(abouts) == ["return"] else f"{family} ({', '.join(abouts)})"


def figure(found: Sequence[Verdict]) -> go.Figure:
    """Draw each claim's shares with intervals, and its bound."""
    names = list(dict.fromkeys(verdict.claim for verdict in found))
    most = max(sum(verdict.claim == name for verdict in found) for name in names)
    titles = [f"{name}: {CLAIMS[name].share} (dotted: the bound)".replace("`", "") for name in names]
    fig, places = style.grid(titles, 80 + 24 * most, columns=1)
    for name, place in zip(names, places, strict=True):
        own = [verdict for verdict in found if verdict.claim == name]
        fig.add_scatter(
            x=[v.share.point for v in own], y=[f"{v.family}, {v.about}" for v in own], mode="markers", showlegend=False,
            marker={"color": style.OFFLINE, "size": 9}, name=name,
            error_x={
                "type": "data", "symmetric": False,
                "array": [v.share.high - v.share.point for v in own],
                "arrayminus": [v.share.point - v.share.low for v in own],
            }, **place,
        )  # fmt: skip
        fig.add_vline(x=CLAIMS[name].bound, line_dash="dot", **place)
        fig.update_yaxes(autorange="reversed", **place)
        fig.update_xaxes(tickformat=".0%", **place)
    return fig
