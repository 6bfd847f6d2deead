"""Explorers without a browser: state, figure and words follow each other."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import threading
import time

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

import smac_lab as lab
from smac_lab import widgets
from smac_lab.encoder import kl_to_prior
from smac_lab.figures import style
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.plan import Experiment
from smac_lab.runs.snapshots import Snapshots, example, read_snapshots
from smac_lab.widgets import stage

OF_AGENTS = (
    widgets.ShiftExplorer,
    widgets.ContextExplorer,
    widgets.RewardExplorer,
    widgets.LatentJoystick,
    widgets.RolloutGallery,
)


@pytest.fixture(scope="module")
def run() -> Snapshots:
    return example("point-robot-narrow")


@pytest.fixture(scope="module")
def explored(tmp_path_factory) -> Snapshots:
    """A tiny run in which the encoder reads exploration in place of what actor and critics learn from."""
    folder = tmp_path_factory.mktemp("runs") / "explored"
    config = dataclasses.replace(
        lab.SMACConfig.preset("point-robot", "smoke"),
        exploration_transitions=40, behaviour_iterations=2, behaviour_updates=5, behaviour_initial_episodes=2,
    )  # fmt: skip
    run_experiment(folder, Experiment("point-robot", "smoke", config, arms=("oracle", "frozen")), quiet=True)
    return read_snapshots(folder)


def trace(explorer, name) -> dict:
    return explorer.figure.data[explorer._traces[name]].to_plotly_json()


def drawn(explorer) -> str:
    return explorer.figure.to_json()


@pytest.mark.parametrize("explorer", OF_AGENTS)
def test_one_liner_and_every_control_changes_the_picture(run, explorer) -> None:
    made = explorer(run, iteration=12, arm="frozen")  # at iteration 0 all arms are the same agent
    assert isinstance(made.figure, go.Figure)
    for name, control in made.controls.items():
        if name == "reduced_motion":
            continue  # what films do
        if name == "other":
            made.update(rewards="another task's")
        if name in ("z1", "z2") and "show" in made.controls:
            made.update(show="point")
        # Arms whose encoders differ: that of "frozen" and that of the oracle are as before.
        value = {"arm": "self-labelled", "rewards": "shuffled"}.get(name) or other_value(control, made.state[name])
        before, words = drawn(made), made.text
        made.update(**{name: value})
        assert made.state[name] == value
        assert drawn(made) != before, name
        assert made.text != words or name in ("n",), name
    assert all(axis.title.text for axis in made.figure.select_xaxes())


def other_value(control, now):
    values = list(control.values) if hasattr(control, "values") else [True, False]
    return next(value for value in reversed(values) if value != now)


@pytest.mark.parametrize("explorer", OF_AGENTS)
def test_a_single_agent_will_do(problem, explorer) -> None:
    made = explorer(problem.agent(), problem.family, problem.train, problem.buffer)
    assert "iteration" not in made.controls
    assert made.text


@pytest.mark.parametrize("explorer", OF_AGENTS)
def test_the_same_state_is_the_same_picture_whatever_the_way_there(run, explorer) -> None:
    one, other = explorer(run), explorer(run)
    moves = {name: other_value(c, one.state[name]) for name, c in one.controls.items() if name != "reduced_motion"}
    one.update(**moves)
    for name, value in sorted(moves.items(), reverse=True):
        other.update(**{name: value})
    other.update(**{name: one.state[name] for name in other.state})
    assert drawn(one) == drawn(other)


def test_bad_state_is_refused_and_nothing_changes(run) -> None:
    made = widgets.ShiftExplorer(run)
    before = drawn(made)
    with pytest.raises(ValueError, match=r"share=1\.5 is not allowed"):
        made.update(n=3, share=1.5)
    with pytest.raises(ValueError, match="ShiftExplorer has no shift; it has n, share, arm"):
        made.update(shift=1)
    with pytest.raises(ValueError, match="arm='best' is not allowed: it must be one of 'frozen'"):
        made.update(arm="best")
    assert drawn(made) == before
    with pytest.raises(ValueError, match="all four, or Snapshots"):
        widgets.ShiftExplorer(run.before)


def test_agents_of_another_family_are_refused(run, problem) -> None:
    other = lab.make_family("point-direction")
    with pytest.raises(ValueError, match="cannot act in"):
        widgets.ShiftExplorer(run.before, other, problem.train, problem.buffer)


# -- what is shown is what the library computes ------------------------------------------------------------
def test_shift_explorer_shows_the_posteriors_of_both_contexts(run) -> None:
    made = widgets.ShiftExplorer(run, n=7, share=1.0)
    for name, source in (("offline", "offline"), ("mixed", "self-collected")):
        context = made.context_of(source)
        q = run.before.infer_posterior(context[:, :7])
        points = (q.mean.numpy() - made.axes.centre) @ made.axes.directions.T
        np.testing.assert_allclose(trace(made, name)["x"], points[:, 0], atol=1e-5)
        np.testing.assert_allclose(trace(made, name)["y"], points[:, 1], atol=1e-5)
    assert sum(trace(made, "kl offline")["y"]) == len(made.tasks)
    made.update(share=0.0)  # no self-collected transition: nothing to tell them apart
    np.testing.assert_allclose(trace(made, "mixed")["x"], trace(made, "offline")["x"])


def test_the_gap_closes_as_iterations_are_scrubbed(run) -> None:
    made = widgets.ShiftExplorer(run, arm="self-labelled")
    kept, offline, online = made.returns()
    assert kept == run.iterations
    assert offline[0] - online[0] > 5 > 3 > offline[-1] - online[-1]
    assert trace(made, "now")["x"] == [0, 0]
    made.update(iteration=20)
    assert trace(made, "now")["x"] == [20, 20]


def test_a_point_of_the_plane_is_acted(run) -> None:
    made = widgets.ShiftExplorer(run, show="point")
    made.update(**made.nearest_chosen((0.3, -0.2)))
    z = made.z_at((0.3, -0.2))
    task = made.tasks.values[made.state["task"]]
    path = stage.lines(made.family, stage.act(run.before, made.family, task, made.exact(z)))[0]
    np.testing.assert_allclose(trace(made, "acts point")["x"], path[:, 0])
    back = (z - made.axes.centre) @ made.axes.directions.T
    np.testing.assert_allclose(back, (0.3, -0.2), atol=1e-9)


def test_context_explorer_feeds_one_transition_after_another(run) -> None:
    made = widgets.ContextExplorer(run, task=3, n=5)
    context = made.context_of("offline")[[3]]
    expected = [float(kl_to_prior(run.before.infer_posterior(context[:, :n]))) for n in (1, 5)]
    curve = trace(made, "prior")
    found = [curve["y"][list(curve["x"]).index(n)] for n in (1, 5)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    reward = made.family.spec.obs_dim + made.family.spec.action_dim
    swapped = widgets.ContextExplorer(run, task=3, rewards="another task's", other=8)
    assert torch.equal(
        swapped.context("rewards another task's")[0, :, reward], made.context_of("offline")[8, :, reward]
    )
    shuffled = made.context("rewards shuffled")[0, :, reward]
    assert not torch.equal(shuffled, context[0, :, reward])
    assert torch.equal(shuffled.sort().values, context[0, :, reward].sort().values)


def test_reward_explorer_maps_the_true_reward(run) -> None:
    made = widgets.RewardExplorer(run, task=4)
    true = trace(made, "map true")
    x, y = np.meshgrid(true["x"], true["y"])
    goal = made.tasks.values[4]
    np.testing.assert_allclose(true["z"], -np.hypot(x - goal[0], y - goal[1]), atol=1e-9)
    residuals = made.residuals()["offline"]
    offline = made.transitions()["offline"]
    z = made.exact(made.z_at(made.chosen)).mean.expand(len(residuals), -1)
    with torch.no_grad():
        inputs = (run.before.tensor(offline.observations[4]), run.before.tensor(offline.actions[4]))
        decoded = run.before.reward_decoder(*inputs, z)
    np.testing.assert_allclose(residuals, decoded.numpy() - offline.rewards[4], atol=1e-5)


def test_joystick_returns_are_those_of_the_tasks(run) -> None:
    made = widgets.LatentJoystick(run, task=2)
    acted = stage.act(run.before, made.family, made.tasks.values[2], made.exact(made.z_at(made.chosen)))
    np.testing.assert_allclose(made.returns()[2], acted.returns[0])
    far = int(np.linalg.norm(made.tasks.values - made.tasks.values[2], axis=1).argmax())
    assert made.returns()[far] < made.returns()[2]
    drawn = made.draw_slowly()
    np.testing.assert_allclose(drawn["true"]["y"], acted.rewards[0])
    z = made.exact(made.z_at(made.chosen)).mean.expand(len(acted.rewards[0]), -1)
    steps = torch.as_tensor(acted.observations[0]), torch.as_tensor(acted.actions[0])
    with torch.inference_mode():
        labels = run.before.reward_decoder(*(part.float() for part in steps), z)
    np.testing.assert_allclose(drawn["decoded"]["y"], labels.numpy(), atol=1e-5)


def test_outcomes_say_whether_a_task_is_reached_where_the_family_knows() -> None:
    family = lab.make_family("sparse-point-robot")
    _, tasks = lab.starter_data(family)
    acted = lab.rollout(lambda o: 0 * o, family.batch_env(tasks[:2]), seed=0)
    assert stage.outcomes(family, tasks.values[:2], acted) == ["0.0 (not reached)"] * 2
    cheetah = lab.make_family("cheetah-vel")
    assert stage.outcomes(cheetah, np.ones((2, 1)), acted) == ["0.0", "0.0"]


# -- two kinds of offline context --------------------------------------------------------------------------
@pytest.mark.parametrize("explorer", OF_AGENTS)
def test_either_kind_of_offline_context_where_there_is_exploration(run, explored, explorer) -> None:
    assert "offline_context" not in explorer(run).controls
    made = explorer(explored, iteration=1)
    assert made.state["offline_context"] == "exploration"  # what the encoder has learned from
    seen = {}
    for kind in ("exploration", "transitions", "exploration"):
        made.update(**made.by_hand("offline_context", kind))
        assert seen.setdefault(kind, (drawn(made), made.text)) == (drawn(made), made.text)
        assert {"exploration": "exploration episodes", "transitions": "actor's transitions"}[kind] in made.text
    assert seen["exploration"][0] != seen["transitions"][0]
    with pytest.raises(ValueError, match="it must be one of 'exploration', 'transitions'"):
        made.update(offline_context="offline")


def test_switching_the_offline_context_moves_what_is_inferred_from_it(explored) -> None:
    made = widgets.ShiftExplorer(explored, iteration=2, arm="frozen")
    names = ("offline", "mixed", "kl mixed", "return offline", "return online")
    before, plane = {name: trace(made, name) for name in names}, made.plane()
    made.update(offline_context="transitions")
    after = {name: trace(made, name) for name in names}
    same = [name for name in names if repr(before[name]) == repr(after[name])]
    assert same == ["mixed", "kl mixed", "return online"]  # those of self-collected context
    assert made.plane() is plane
    agent = explored.agent("frozen", 2)
    for kind, source in (("exploration", "exploration"), ("transitions", "offline")):
        made.update(offline_context=kind)
        found = lab.measure_shift(agent, made.family, made.tasks, made.buffer, repeats=1, source=source)
        assert torch.equal(made.context_of("offline"), found.offline_contexts[:, 0])
        points = (found.offline.mean[:, 0].numpy() - made.axes.centre) @ made.axes.directions.T
        np.testing.assert_allclose(trace(made, "offline")["x"], points[:, 0], atol=1e-5)
        assert made.returns()[1][-1] == found.offline_context_return
        assert f"Mean return {found.offline_context_return:.1f} from offline context" in made.text


def test_linked_explorers_follow_the_kind_of_offline_context(run, explored) -> None:
    shift, without = widgets.ShiftExplorer(explored), widgets.ShiftExplorer(run)
    others = [explorer(explored) for explorer in OF_AGENTS[1:]]
    shift.link(*others, without)
    z = others[2].state["z1"]
    shift.update(offline_context="transitions")
    assert {other.state["offline_context"] for other in others} == {"transitions"}
    assert others[2].state["z1"] == others[1].state["z1"] == shift.state["z1"] != z  # the task's own
    assert "offline_context" not in without.state


def test_first_shown_is_the_arm_of_the_agents_own_configuration(run, explored) -> None:
    assert run.before.config.online_encoder == "self-labelled"
    assert widgets.ShiftExplorer(run).state["arm"] == "self-labelled"
    assert explored.before.config.online_encoder == "frozen"
    assert widgets.ShiftExplorer(explored).state["arm"] == "frozen"
    alone = dataclasses.replace(explored, arms={"oracle": explored.arms["oracle"]})
    assert widgets.ShiftExplorer(alone).state["arm"] == "oracle"  # there is no other


# -- links -------------------------------------------------------------------------------------------------
def test_linked_explorers_follow_each_other(run) -> None:
    shift, joystick, context = (
        c(run) for c in (widgets.ShiftExplorer, widgets.LatentJoystick, widgets.ContextExplorer)
    )
    shift.link(joystick, context)
    shift.update(task=6, iteration=20, arm="frozen")
    for other in (joystick, context):
        assert {k: other.state[k] for k in ("task", "iteration", "arm")} == {
            "task": 6,
            "iteration": 20,
            "arm": "frozen",
        }
    joystick.update(task=9)
    assert shift.state["task"] == context.state["task"] == 9
    assert shift.state["z1"] == joystick.state["z1"]  # z is shared, too


def test_a_value_that_the_other_does_not_allow_is_not_passed_on(run) -> None:
    many, few = widgets.ShiftExplorer(run), widgets.ShiftExplorer(run, shown_tasks=5)
    many.link(few)
    many.update(task=12)
    assert few.state["task"] == 0


# -- as widgets --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("explorer", OF_AGENTS)
def test_controls_set_the_state_and_follow_it(run, explorer) -> None:
    made = explorer(run)
    box = made.widget
    assert "smac-explorer" in box._dom_classes
    assert isinstance(made.figure, go.FigureWidget)
    for name, control in made.controls.items():
        value = other_value(control, made.state[name])
        made._inputs[name].value = value
        assert made.state[name] == value
        made.update(**{name: control.start})
        assert made._inputs[name].value == control.start
    assert made.text[:20].replace("'", "&#x27;") in made._says.value


def test_clicks_select_tasks_and_points(run) -> None:
    made = widgets.ShiftExplorer(run)
    made.widget  # noqa: B018
    click = type("Points", (), {})()
    click.point_inds, click.xs, click.ys = [5], [0.1], [0.2]
    made._click(made.clicks["mixed"], None, click, None)
    assert (made.state["task"], made.state["show"]) == (5, "task")
    made._click(made.clicks["anywhere"], None, click, None)
    assert (made.state["show"], made.state["z1"], made.state["z2"]) == ("point", 0.1, 0.2)


def test_films_where_they_can_be_made_and_words_where_not(run, monkeypatch) -> None:
    made = widgets.RolloutGallery(run)
    assert made.film().count("<video") == 2
    assert "autoplay" in made.film()
    made.update(reduced_motion=True)
    assert "autoplay" not in made.film()

    def nothing() -> None:
        raise RuntimeError("no OpenGL renderer works here. <apt-get>")

    monkeypatch.setattr("smac_lab.tasks.rendering.require_renderer", nothing)
    family = lab.make_family("cheetah-vel")
    agent = lab.SMAC(lab.SMACConfig.preset("cheetah-vel", "smoke"), family.spec)
    said = stage.film(agent, family, family.split(1, 1, 0)[0], agent.prior(1), "a film")
    assert "&lt;apt-get&gt;" in said
    assert "lines above show the same" in said


@pytest.mark.parametrize("name", ["cheetah-vel", "ant-dir", "walker-params", "sawyer"])
def test_bodies_are_drawn_as_lines(name) -> None:
    family = lab.make_family(name)
    tasks, _ = family.split(2, 1, 0)
    agent = lab.SMAC(lab.SMACConfig.preset(name, "smoke"), family.spec)
    episodes = stage.act(agent, family, tasks.values[0], agent.prior(2))
    lines = stage.lines(family, episodes)
    assert lines.shape == (2, family.horizon, 2)
    known = episodes.first
    assert np.isfinite(lines[known]).all()
    if not stage.axes_of(family).plane:
        np.testing.assert_allclose(lines[0, known[0], 1], episodes.features[0, known[0], 0])
    assert stage.target(family, tasks.values[0], lines).shape[1] == 2


# -- TrainingMonitor ---------------------------------------------------------------------------------------
def made_up(n: int, seconds: float = 0.0):
    for step in range(1, n + 1):
        time.sleep(seconds)
        yield step * 10, {"reward_error": 1.0 / step, "kl": float(step)}


@pytest.mark.parametrize("explorer", [widgets.ShiftExplorer, widgets.LatentJoystick])
def test_on_display_the_rollout_of_a_body_waits_until_the_state_rests(explorer, monkeypatch) -> None:
    monkeypatch.setattr("smac_lab.widgets.explorer.REST", 1.0)  # s: longer than a busy machine takes for a step
    made = explorer(example("cheetah-vel"))

    def rest() -> None:
        until = time.monotonic() + 30
        while "..." in made.text and time.monotonic() < until:
            time.sleep(0.02)

    assert made.text.endswith(".")
    assert not made.text.endswith("...")
    assert made.widget is not None
    made.update(iteration=40)
    made.update(task=3)
    rest()
    slow = list(made.draw_slowly())
    before = repr([trace(made, name) for name in slow])
    made.update(task=4)
    assert "..." in made.text
    assert repr([trace(made, name) for name in slow]) == before
    rest()
    assert "..." not in made.text
    assert made.text == explorer(example("cheetah-vel"), iteration=40, task=4).text


def test_monitor_trains_to_the_end_and_draws(problem) -> None:
    agent = problem.agent()
    monitor = widgets.TrainingMonitor(lab.train_offline(agent, problem.buffer, steps=20, log_every=5), total=20).run()
    assert monitor.status == "done"
    assert agent.updates == 20
    assert list(trace(monitor, "kl")["x"]) == [5, 10, 15, 20]
    np.testing.assert_allclose(trace(monitor, "kl")["y"], [metrics["kl"] for _, metrics in monitor.rows])
    assert "20 of 20 steps" in monitor.text


def test_monitor_averages_points() -> None:
    monitor = widgets.TrainingMonitor(made_up(5)).run()
    monitor.update(smooth=3)
    assert list(trace(monitor, "kl")["x"]) == [30, 40, 50]
    np.testing.assert_allclose(trace(monitor, "kl")["y"], [2, 3, 4])
    assert monitor.figure.layout.yaxis.type == "linear"
    assert monitor.update(log=True).figure.layout.yaxis.type == "log"


def test_monitor_stops_and_goes_on() -> None:
    monitor = widgets.TrainingMonitor(made_up(6))
    for step, _ in monitor:
        if step == 20:
            monitor.stop()
    assert monitor.status.startswith("stopped")
    assert [step for step, _ in monitor.rows] == [10, 20]
    monitor.run()
    assert [step for step, _ in monitor.rows] == [10, 20, 30, 40, 50, 60]
    assert monitor.status == "done"


def test_monitor_pauses_and_resumes() -> None:
    monitor = widgets.TrainingMonitor(made_up(6, 0.01))
    monitor.pause()
    thread = threading.Thread(target=monitor.run)
    thread.start()
    deadline = time.monotonic() + 20
    while monitor.status != "paused" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert monitor.status == "paused"
    assert len(monitor.rows) == 1
    monitor.resume()
    thread.join(20)
    assert monitor.status == "done"


def test_awaiting_hears_what_arrives_between_two_steps() -> None:
    """As in a cell that awaits: pause, resume, save and cancellation come from other tasks of the same loop."""
    monitor = widgets.TrainingMonitor(made_up(200, 0.002), save=lambda: "here")

    async def cell() -> None:
        training = asyncio.ensure_future(monitor)
        while len(monitor.rows) < 3:
            await asyncio.sleep(0.001)
        monitor.pause()
        while monitor.status != "paused":
            await asyncio.sleep(0.001)
        paused = len(monitor.rows)
        monitor.save()
        await asyncio.sleep(0.2)
        assert len(monitor.rows) == paused
        assert "Saved after" in monitor.text
        monitor.resume()
        while len(monitor.rows) < paused + 3:
            await asyncio.sleep(0.001)
        training.cancel()  # what ipykernel does at an interrupt
        assert await training is monitor

    asyncio.run(cell())
    assert monitor.status.startswith("stopped")
    assert 6 <= len(monitor.rows) < 200
    assert len(monitor.run().rows) == 200


def test_an_interrupt_leaves_agent_and_curves_usable(problem) -> None:
    agent = problem.agent()
    monitor = widgets.TrainingMonitor(lab.train_offline(agent, problem.buffer, steps=10_000, log_every=1))
    usual = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        while len(monitor.rows) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    monitor.run()
    assert signal.getsignal(signal.SIGINT) is usual
    done = len(monitor.rows)
    assert 3 <= done == agent.updates < 10_000
    assert list(trace(monitor, "kl")["x"]) == list(range(1, done + 1))
    for _ in monitor:  # the same training goes on
        break
    assert agent.updates == done + 1


def test_monitor_saves_between_steps(tmp_path, problem) -> None:
    agent = problem.agent()
    training = lab.train_offline(agent, problem.buffer, steps=6, log_every=2)
    monitor = widgets.TrainingMonitor(training, save=lambda: lab.save(tmp_path, agent))
    for step, _ in monitor:
        if step == 4:
            monitor.save()
    assert lab.load(tmp_path).agent.updates == 4
    monitor.save()
    assert lab.load(tmp_path).agent.updates == 6
    with pytest.raises(ValueError, match="nothing to save with"):
        widgets.TrainingMonitor(made_up(1)).save()


def test_colours_mean_what_they_mean_elsewhere(run) -> None:
    made = widgets.ShiftExplorer(run)
    assert trace(made, "return offline")["line"]["color"] == style.OFFLINE
    assert trace(made, "return online")["line"]["color"] == style.SELF_COLLECTED
