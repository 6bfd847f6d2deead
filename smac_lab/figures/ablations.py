"""Ablations: what each choice of the method is worth, on otherwise equal runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go

from smac_lab.config import SMACConfig
from smac_lab.figures import findings, style
from smac_lab.figures.kept import Results, missing
from smac_lab.figures.stats import Array, over_seeds
from smac_lab.runs.plan import slug
from smac_lab.runs.sweep import Sweep

Fields = dict[str, Any]


class Ablation(NamedTuple):
    """One choice of the method.

    Args:
        says: the choice, in words.
        others: a preset's config to the fields of each alternative.
        arms: `frozen`, and arms that are alternatives themselves.
    """

    says: str
    others: Callable[[SMACConfig], Sequence[Fields]] = lambda config: ()
    arms: tuple[str, ...] = ("frozen",)


def _tenfold(field: str) -> Callable[[SMACConfig], list[Fields]]:
    return lambda config: [{field: float(f"{getattr(config, field) * factor:.3g}")} for factor in (0.1, 10.0)]


def _one_of(field: str, *values: Any) -> Callable[[SMACConfig], list[Fields]]:
    return lambda config: [{field: value} for value in values if value != getattr(config, field)]


def _shares(config: SMACConfig) -> list[Fields]:
    total = config.prior_episodes + config.posterior_episodes
    others = {1, total // 2, total} - {config.prior_episodes, 0}
    return [{"prior_episodes": prior, "posterior_episodes": total - prior} for prior in sorted(others)]


ABLATIONS: dict[str, Ablation] = {
    "actor-loss": Ablation("the actor's loss online: AWAC and -Q, or one alone", arms=("frozen", "no-awac", "no-q")),
    "lambda": Ablation("lambda, which divides the advantages", _tenfold("awac_lambda")),
    "kl-weight": Ablation("weight of KL(q(z|h) || N(0, I))", _tenfold("kl_weight")),
    "context": Ablation("context online", _one_of("online_context", "mixed", "separate", "episodes")),
    "z": Ablation("when z is drawn anew", _one_of("z_resampling", "step", "episode")),
    "exploration": Ablation("self-collected episodes with z from the prior, and from the posterior", _shares),
}


def _label(config: SMACConfig, fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={getattr(config, name) if value is None else value}" for name, value in fields.items())


def _variant(fields: Mapping[str, Any]) -> str:
    return slug(",".join(f"{name}={value}" for name, value in fields.items()))


def _variants(config: SMACConfig) -> dict[str, Fields]:
    """List all alternatives, by the end of their folder's name."""
    found = itertools.chain(*(ablation.others(config) for ablation in ABLATIONS.values()))
    return {_variant(fields): fields for fields in found}


def sweeps(preset: str, out: Path, seeds: Sequence[int], kept: Results, families: Sequence[str]) -> list[Sweep]:
    """List the missing runs: for each family a sweep of the preset with all arms, and one of the alternatives."""
    arms = tuple(dict.fromkeys(itertools.chain(*(ablation.arms for ablation in ABLATIONS.values()))))
    found = []
    for family in families:
        config = SMACConfig.preset(family, preset)
        for variants, own in (({"default": {}}, arms), (_variants(config), ("frozen",))):
            sweep = Sweep(str(out), (family,), preset, ("smac",), own, tuple(seeds), variants)
            found += missing(sweep, kept)
    return found


class Row(NamedTuple):
    """An alternative on one family: measures have one value per seed."""

    ablation: str
    family: str
    label: str
    before: dict[str, Array]
    after: dict[str, Array]


def rows(results: Results, families: Sequence[str]) -> Iterator[Row]:
    """List what there are results of, the preset first; nothing of a choice without an alternative."""
    for name, family in itertools.product(ABLATIONS, families):
        if slug(family) in results and len(found := list(_rows(name, family, results))) > 1:
            yield from found


def _rows(name: str, family: str, results: Results) -> Iterator[Row]:
    ablation, default = ABLATIONS[name], results[slug(family)]
    config, measures = SMACConfig.from_dict(default["config"]), findings.measures(default)
    others = ablation.others(config)
    same = _label(config, dict.fromkeys(others[0])) if others else "AWAC and -Q"
    for arm in (arm for arm in ablation.arms if arm in measures):
        label = f"{same} (preset)" if arm == "frozen" else arm
        yield Row(name, family, label, measures["before"], measures[arm])
    for fields in others:
        if (folder := f"{slug(family)}-{_variant(fields)}") in results:
            other = findings.measures(results[folder])
            yield Row(name, family, _label(config, fields), other["before"], other["frozen"])


def markdown(found: Sequence[Row]) -> str:
    """Format a Markdown table per ablation: means over seeds with 95 % intervals."""

    def cell(values: Array) -> str:
        estimate = over_seeds(values)
        return f"{findings.number(estimate.point)} {findings.bounds(estimate)}".strip()

    lines: list[str] = []
    for name, own in itertools.groupby(found, lambda row: row.ablation):
        titles = [f"{style.KINDS[kind][1]}, {when}" for when in ("before", "after") for kind in style.KINDS]
        lines += ["", f"**{name}**: {ABLATIONS[name].says}.", "", f"| family | setting | {' | '.join(titles)} |"]
        lines.append("|---" * (2 + len(titles)) + "|")
        for row in own:
            cells = [cell(measures[kind]) for measures in (row.before, row.after) for kind in style.KINDS]
            lines.append(f"| {row.family} | {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines).strip()


def figure(found: Sequence[Row]) -> go.Figure:
    """Draw a panel per ablation and family: returns of each setting after the self-supervised phase."""
    panels = [list(own) for _, own in itertools.groupby(found, lambda row: (row.ablation, row.family))]
    titles = [f"{own[0].ablation}, {own[0].family}" for own in panels]
    fig, places = style.grid(titles, 60 + 34 * max(map(len, panels)), columns=1)
    for i, (own, place) in enumerate(zip(panels, places, strict=True)):
        for j, (kind, (colour, label)) in enumerate(style.KINDS.items()):
            estimates = [over_seeds(row.after[kind]) for row in own]
            fig.add_scatter(
                x=[e.point for e in estimates], y=[k + 0.2 * (j - 1) for k in range(len(own))], mode="markers",
                marker={"color": colour, "size": 9}, name=label, legendgroup=kind, showlegend=i == 0,
                error_x={
                    "type": "data", "symmetric": False, "color": colour,
                    "array": [e.high - e.point for e in estimates], "arrayminus": [e.point - e.low for e in estimates],
                }, **place,
            )  # fmt: skip
        fig.update_yaxes(tickvals=list(range(len(own))), ticktext=[r.label for r in own], autorange="reversed", **place)
        fig.update_xaxes(title_text="return", **place)
    return fig
