"""Figures hold the data they are given, at the right place and in the colours that have a meaning."""

import json

import numpy as np
import pytest

from smac_lab.arms import ARMS
from smac_lab.figures import plots, style

RNG = np.random.default_rng(0)


def made_posteriors(n_tasks=20, repeats=3, z_dim=5, shift=0.0):
    mean = RNG.normal(size=(n_tasks, repeats, z_dim)) * np.linspace(3, 0.1, z_dim)
    std = np.full_like(mean, 0.2)
    return plots.Posteriors(mean, std, mean + shift, 2 * std)


def scale_of(n_tasks, label="target velocity (m/s)"):
    return style.task_scale(np.linspace(0, 3, n_tasks)[:, None], label)


def named(fig, name):
    return [trace for trace in fig.data if trace.name == name and len(trace.x) and trace.x[0] is not None]


def no_nan(fig):
    assert "NaN" not in fig.to_json()
    json.loads(fig.to_json(), parse_constant=lambda constant: pytest.fail(constant))
    return fig


# -- what figures share --------------------------------------------------------------------------------


def test_one_colour_has_one_meaning():
    colours = [style.OFFLINE, style.SELF_COLLECTED, style.HELD_OUT, *(c for c, _ in style.PHASES.values())]
    assert len({*colours, style.OTHER_ARM}) == len(colours) + 1
    assert set(style.PHASES) == {"before", *ARMS}
    assert style.phase_colour("an arm of one's own") == style.OTHER_ARM
    assert style.TASK_CYCLE[0] == style.TASK_CYCLE[-1]


def test_task_scale_knows_angles():
    half = style.task_scale([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], "goal angle (rad)")
    np.testing.assert_allclose(half.values, [0, np.pi / 2, np.pi])
    assert not half.cyclic
    assert style.task_scale([[0.1], [0.2]], "direction (rad)").cyclic
    assert style.task_scale([[1.0, -1.0], [0.0, 1.0]], "goal angle (rad)").cyclic  # all round
    one = style.task_scale([[2.0]], "target velocity (m/s)")
    assert one.high > one.low
    assert "first parameter" in style.task_scale([[1.0, 2.0, 3.0]], "physics").label


def test_principal_axes_and_projection():
    means = np.zeros((50, 3))
    means[:, 2], means[:, 0] = np.linspace(-4, 4, 50), 0.1 * np.sin(np.arange(50))
    axes = plots.principal_axes(means + 7.0)
    np.testing.assert_allclose(np.abs(axes.directions[0]), [0, 0, 1], atol=0.02)
    assert axes.share[0] > 0.99
    np.testing.assert_allclose(axes.share.sum(), 1.0)
    np.testing.assert_allclose(plots.project(axes.centre, axes), 0.0, atol=1e-12)
    np.testing.assert_allclose(axes.directions @ axes.directions.T, np.eye(2), atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (1, 1), (2, 2)])
def test_principal_axes_of_little(shape):
    axes = plots.principal_axes(RNG.normal(size=shape))
    assert np.isfinite(np.concatenate([axes.centre, axes.directions.ravel(), axes.share])).all()
    assert plots.project(np.zeros((4, shape[1])), axes).shape == (4, 2)


def test_ellipse_has_the_extent_of_one_standard_deviation():
    axes = plots.Axes(np.zeros(3), np.eye(3)[:2], np.ones(2) / 2)
    outline = plots.ellipse([1.0, 2.0, 3.0], [0.5, 0.25, 9.0], axes)
    np.testing.assert_allclose(np.ptp(outline, axis=0), [1.0, 0.5], atol=1e-9)
    np.testing.assert_allclose((outline.max(0) + outline.min(0)) / 2, [1.0, 2.0], atol=1e-9)


# -- figures -------------------------------------------------------------------------------------------


def test_posterior_plane_shares_axes_and_joins_markers():
    panels = {"before": made_posteriors(shift=1.0), "oracle": made_posteriors()}
    tasks = scale_of(20)
    fig = no_nan(plots.posterior_plane(panels, tasks))
    axes = plots.principal_axes(np.concatenate([p.offline_mean for p in panels.values()]))
    filled, hollow = named(fig, "offline context"), named(fig, "self-collected context")
    assert len(filled) == len(hollow) == 2
    for panel, inside, outside in zip(panels.values(), filled, hollow, strict=True):
        expected = plots.project(panel.offline_mean[:, 0], axes)
        np.testing.assert_allclose(np.stack([inside.x, inside.y], 1), expected)
        np.testing.assert_allclose(np.stack([outside.x, outside.y], 1), plots.project(panel.online_mean[:, 0], axes))
        np.testing.assert_allclose(inside.marker.color, tasks.values)
        assert (inside.marker.symbol, outside.marker.symbol) == ("circle", "circle-open")
    lines = named(fig, "same task")[0]
    assert lines.x[:3] == (filled[0].x[0], hollow[0].x[0], None)
    assert fig.layout.xaxis.range == fig.layout.xaxis2.range
    assert not named(fig, "offline, 1 std")  # too many tasks for ellipses
    assert "of variance" in fig.layout.xaxis.title.text


@pytest.mark.parametrize(("n_tasks", "z_dim"), [(1, 5), (2, 1), (12, 2)])
def test_posterior_plane_of_few_tasks_has_ellipses(n_tasks, z_dim):
    fig = no_nan(plots.posterior_plane({"before": made_posteriors(n_tasks, 1, z_dim)}, scale_of(n_tasks)))
    assert named(fig, "offline, 1 std")[0].line.color == style.OFFLINE
    assert named(fig, "self-collected, 1 std")[0].line.color == style.SELF_COLLECTED


def made_returns(n_seeds=3):
    return {
        "before": {"offline_context": [-7.0, -8.0, -6.0][:n_seeds], "online_context": [-12.0, -13.0, -11.0][:n_seeds],
                   "test": [-13.0, -13.0, -13.0][:n_seeds]},
        "frozen": {"offline_context": [-6.0] * n_seeds, "online_context": [-9.0] * n_seeds, "test": [-9.5] * n_seeds},
    }  # fmt: skip


def test_return_bars_rise_from_random_and_show_every_seed():
    fig = no_nan(plots.return_bars(made_returns(), random=-20.0, best=-4.0, behaviour=-14.0))
    for kind, (colour, label) in style.KINDS.items():
        (bar,) = named(fig, label)
        np.testing.assert_allclose(bar.base + np.asarray(bar.y), [np.mean(r[kind]) for r in made_returns().values()])
        assert set(bar.marker.color) == {colour}
        (dots,) = named(fig, f"{label}, each seed")
        np.testing.assert_allclose(dots.y, np.concatenate([r[kind] for r in made_returns().values()]))
    (whisker,) = named(fig, "offline context, 95 % interval")
    np.testing.assert_allclose(whisker.error_y.array, [1.0, 0.0])  # three seeds: their range
    assert [line.y0 for line in fig.layout.shapes] == [-4.0, -14.0, -20.0]
    assert {a.text for a in fig.layout.annotations} >= {"best known \N{MINUS SIGN}4", "random actions \N{MINUS SIGN}20"}


def test_return_bars_of_one_seed_and_of_unknown_ones():
    fig = no_nan(plots.return_bars(made_returns(1)))
    assert not [t for t in fig.data if "interval" in t.name]
    assert not fig.layout.shapes
    assert named(fig, "offline context")[0].base == 0
    unknown = {"before": {"offline_context": [1.0, np.nan], "online_context": [np.nan] * 2, "test": [0.0, 0.0]}}
    (dots,) = named(no_nan(plots.return_bars(unknown)), "offline context, each seed")
    np.testing.assert_array_equal(dots.y, [1.0])


def test_kl_histograms_count_every_task():
    kl = {
        phase: plots.Divergences(RNG.gamma(2, size=50), RNG.gamma(3, size=50), np.r_[0.0, RNG.gamma(4, size=49)])
        for phase in ("before", "frozen", "oracle")
    }
    fig = no_nan(plots.kl_histograms(kl))
    assert len(fig.data) == 9
    assert all(sum(trace.y) == 50 for trace in fig.data)
    assert [t.marker.color for t in fig.data[:3]] == [style.phase_colour(phase) for phase in kl]
    assert {t.marker.color for t in fig.data[3:]} == {style.OFFLINE, style.SELF_COLLECTED}
    no_nan(plots.kl_histograms({"before": plots.Divergences([1.0], [1.0], [1.0])}))


def test_learning_curves_average_where_all_seeds_are():
    seeds = [([0, 1, 2, 3], [0.0, np.nan, 2.0, 9.0]), ([0, 2], [2.0, 4.0])]
    fig = no_nan(
        plots.learning_curves({"online_context_return": {"frozen": seeds}, "shift": {"oracle": seeds[:1]}}, best=5.0)
    )
    (mean,) = named(fig, "frozen encoder")
    np.testing.assert_allclose(mean.x, [0, 2])
    np.testing.assert_allclose(mean.y, [1.0, 3.0])
    np.testing.assert_allclose(named(fig, "frozen encoder, seed 0")[0].x, [0, 2, 3])
    assert named(fig, "oracle (true rewards)")[0].line.color == style.phase_colour("oracle")
    assert len(fig.layout.shapes) == 1  # best, in the panel of returns alone


def test_trajectories_in_the_plane():
    paths = np.cumsum(RNG.normal(size=(4, 20, 2)), 1)
    goals = RNG.normal(size=(4, 2))
    panels = {"before": plots.Rollouts(paths, paths + 1), "oracle": plots.Rollouts(paths, paths)}
    fig = no_nan(plots.trajectories(panels, scale_of(4), goals, radius=0.2))
    crosses = named(fig, "goal")
    assert len(crosses) == 4  # two phases, two kinds of context
    np.testing.assert_allclose(np.stack([crosses[3].x, crosses[3].y], 1), goals)
    lines = [t for t in fig.data if t.name.startswith("target velocity")]
    assert len(lines) == 16
    np.testing.assert_allclose(lines[4].y, paths[0, :, 1] + 1)
    assert lines[0].line.color == lines[4].line.color == crosses[0].marker.line.color[0]  # a task, a colour
    assert sum(bool(t.showlegend) for t in crosses) == 1


def test_trajectories_over_time():
    speeds = RNG.normal(size=(3, 10, 1))
    panels = {"before": plots.Rollouts(speeds, speeds)}
    fig = no_nan(plots.trajectories(panels, scale_of(3), [1.0, 2.0, 3.0], goal_name="target", dt=0.05))
    lines = [t for t in fig.data if t.name.startswith("target velocity")]
    np.testing.assert_allclose(lines[1].x, 0.05 * np.arange(10))
    np.testing.assert_allclose(named(fig, "target")[2].y, [3.0, 3.0])
    no_nan(plots.trajectories({"before": plots.Rollouts(speeds[:1], speeds[:1])}, scale_of(1)))


def test_shift_bars_and_overview():
    fig = no_nan(plots.shift_bars({"before": [1.0, 3.0], "self-labelled": [0.5, 0.5]}))
    bar = named(fig, "normalised shift")[0]
    np.testing.assert_allclose(bar.y, [2.0, 0.5])
    assert list(bar.marker.color) == [style.phase_colour("before"), style.phase_colour("self-labelled")]
    picture = no_nan(plots.overview({"before": made_posteriors()}, scale_of(20), made_returns(), random=-20.0))
    assert len(named(picture, "same task")) == 1
    assert len({t.xaxis for t in picture.data}) == 2


def test_figures_suit_light_and_dark_pages():
    for fig in (plots.shift_bars({"before": [1.0]}), plots.return_bars(made_returns())):
        assert fig.layout.paper_bgcolor == fig.layout.plot_bgcolor == "rgba(0,0,0,0)"
        assert fig.layout.width is None  # as wide as its page
