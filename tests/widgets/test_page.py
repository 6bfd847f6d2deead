"""Explorers as HTML files: they hold what the explorer would draw, and work in a browser without a network."""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
from pathlib import Path
from typing import Any

import browser
import numpy as np
import plotly.graph_objects as go
import pytest

import smac_lab as lab
from smac_lab import cli, widgets
from smac_lab.figures import style
from smac_lab.runs.snapshots import Snapshots, example
from smac_lab.widgets import page
from smac_lab.widgets.explorer import Explorer, Slider

# The controls of each page, with few values.
PAGES: dict[type, dict[str, list[Any]]] = {
    widgets.ShiftExplorer: {"iteration": [0, 12], "share": [0.0, 1.0], "task": [0, 3], "show": ["task", "point"]},
    widgets.ContextExplorer: {"task": [0, 3], "n": [1, 19], "source": ["offline", "self-collected"]},
    widgets.RewardExplorer: {"task": [0, 3], "iteration": [0, 20]},
    widgets.LatentJoystick: {"task": [0, 3], "z1": [-2.0, 2.0], "z2": [-1.0, 0.0]},
    widgets.RolloutGallery: {"iteration": [0, 20], "context": ["offline", "self-collected"]},
}


@pytest.fixture(scope="module")
def run() -> Snapshots:
    return example("point-robot")


def values_of(explorer: Explorer, over: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The wanted values, or for the plane the listed ones next to them."""
    listed = {name: explorer.controls[name].values for name in over}
    return {
        name: [min(listed[name], key=lambda v, w=w: abs(v - w)) for w in wanted] if name in ("z1", "z2") else wanted
        for name, wanted in over.items()
    }


def data_of(file: Path) -> dict[str, Any]:
    found = re.search(r'(?s)<script id="data" type="application/json">(.*?)</script>', file.read_text())
    assert found
    return json.loads(found[1])


def read(data: dict[str, Any], entry: dict[str, Any]) -> Any:
    """A value as the page's script reads it."""
    if "at" not in entry:
        return entry["is"]
    numbers = np.frombuffer(base64.b64decode(data["numbers"]), "<u2")[entry["at"] : entry["at"] + entry["n"]]
    read = entry["low"] + (entry["high"] - entry["low"]) / (page.NAN - 1) * numbers
    return np.where(numbers == page.NAN, np.nan, read).reshape(-1, entry.get("columns", entry["n"])).squeeze()


@pytest.mark.parametrize("explorer", PAGES)
def test_a_page_holds_what_the_explorer_draws(run: Snapshots, explorer: type, tmp_path: Path) -> None:
    made = explorer(run)
    over = values_of(made, PAGES[explorer])
    before = (dict(made.state), json.loads(made.figure.to_json()))
    data = data_of(made.to_html(tmp_path / "page.html", over))
    assert (made.state, json.loads(made.figure.to_json())) == before
    assert [one["name"] for one in data["inputs"]] == list(over)
    states = list(itertools.product(*over.values()))
    assert len(data["rows"]) == len(states)
    for (text, *row), values in zip(data["rows"], states, strict=True):
        made.update(**dict(zip(over, values, strict=True)))
        assert read(data, data["pool"][text]) == made.text
        for (trace, key), number in zip(data["columns"], row, strict=True):
            shown, wanted = read(data, data["pool"][number]), made.figure.data[trace][key]
            if not isinstance(wanted, (np.ndarray, tuple)):
                assert shown == wanted
                continue
            wanted = np.asarray(wanted, float)
            shown = np.array([np.nan if v is None else v for v in shown] if isinstance(shown, list) else shown)
            scale = np.nanmax(np.abs(wanted), initial=1e-9)
            np.testing.assert_allclose(shown, wanted, atol=4e-5 * scale, equal_nan=True)


def test_the_default_is_small_enough(run: Snapshots, tmp_path: Path) -> None:
    file = widgets.RewardExplorer(run).to_html(tmp_path / "new folder" / "page.html")
    data = data_of(file)
    assert [one["name"] for one in data["inputs"]] == ["task", "iteration"]
    assert len(data["rows"]) <= 400
    assert file.stat().st_size < page.LARGEST + page.PLOTLY.stat().st_size


def test_a_page_by_task_plays_the_task_whatever_was_played(run: Snapshots, tmp_path: Path) -> None:
    made = widgets.ShiftExplorer(run, show="point", z1=0.0, z2=0.0)
    data = data_of(made.to_html(tmp_path / "page.html", {"task": [0, 3]}))
    assert all("given offline context" in read(data, data["pool"][row[0]]) for row in data["rows"])
    assert made.state["show"] == "point"


def test_a_change_in_another_thread_waits_for_the_page(run: Snapshots, tmp_path: Path, monkeypatch) -> None:
    made, threads = widgets.RewardExplorer(run), []
    draw = made.draw

    def draw_and_change() -> Any:
        if not threads:
            threads.append(threading.Thread(target=made.update, kwargs={"task": 7}))
            threads[0].start()
        return draw()

    monkeypatch.setattr(made, "draw", draw_and_change)
    data = data_of(made.to_html(tmp_path / "page.html", {"iteration": [0, 20]}))
    threads[0].join()
    assert all("Task 0" in read(data, data["pool"][row[0]]) for row in data["rows"])
    assert made.state["task"] == 7


class Curve(Explorer):
    """A custom explorer, which draws `drawn[n]`."""

    drawn: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    def make_controls(self) -> dict[str, Any]:
        return {"n": Slider("n", [0, 1], 0)}

    def frame(self) -> go.Figure:
        figure, (place,) = style.grid(["a"], 200)
        self.add(figure, "line", go.Scatter(x=[], y=[]), place)
        return figure.update_yaxes(type="log")

    def draw(self) -> dict[str, dict[str, Any]]:
        return {"line": self.drawn[self.state["n"]]}

    text = "a curve with &lt; in it"


def test_what_custom_explorers_may_draw(tmp_path: Path, monkeypatch) -> None:
    falls = np.geomspace(1e4, 1e-3, 50)
    own = {"x": np.arange(50), "y": falls, "hovertext": ["a", "b"]}
    monkeypatch.setattr(Curve, "drawn", (own, {**own, "y": np.array([1.0, np.inf, np.nan])}))
    file = Curve().to_html(tmp_path / "page.html", ["n"])
    data = data_of(file)
    (_, *first), (_, *second) = data["rows"]
    values = [[read(data, data["pool"][i]) for i in row] for row in (first, second)]
    y, hover = ([key for _, key in data["columns"]].index(name) for name in ("y", "hovertext"))
    np.testing.assert_allclose(values[0][y], falls, rtol=1e-5)  # 16 bits between the ends would lose the small ones
    assert values[1][y] == [1.0, None, None]
    assert values[0][hover] == ["a", "b"]
    assert "Infinity" not in file.read_text().partition('id="data"')[2].partition("</script>")[0]
    assert "a curve with &amp;lt; in it" in file.read_text()
    monkeypatch.setattr(Curve, "drawn", ({"x": [0]}, own))
    with pytest.raises(TypeError, match="change different properties"):
        Curve().to_html(tmp_path / "page.html", ["n"])


def test_the_command_writes_a_page(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("smac_lab.widgets.explorer.STATES", 8)
    file = tmp_path / "shift.html"
    cli.explore("point-robot", html=file)
    assert "<h1>The shift in point-robot</h1>" in file.read_text()
    assert f"wrote {file}" in capsys.readouterr().out


def test_curves_of_a_training_run_as_a_page(tmp_path: Path) -> None:
    made = widgets.TrainingMonitor(iter([(step, {"kl": 1.0 / step}) for step in range(1, 40)]), total=39)
    list(made)
    data = data_of(made.to_html(tmp_path / "page.html"))
    assert [len(one["values"]) for one in data["inputs"]] == [len(data["rows"])] == [4]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        (["tusk"], "ShiftExplorer has no tusk; it has n, share"),
        ({"task": [99]}, "task=99 is not allowed"),
        ({"share": [0.33]}, "share=0.33 is not allowed: it must be one of 21 values from 0.0 to 1.0, such as 0.35"),
        ({"task": []}, "over has no value of task: at least one is needed"),
        ("task", "over='task' is not allowed: it must map names of controls to values, or list names"),
        ({"task": 3}, "over={'task': 3} is not allowed: task must have a list of values"),
        (["task", "reduced_motion"], "reduced_motion cannot change in a page"),
        (["n", "share", "task", "iteration", "z1"], "combinations are not allowed in a page: at most 20000"),
    ],
)
def test_bad_input(run: Snapshots, tmp_path: Path, over: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        widgets.ShiftExplorer(run).to_html(tmp_path / "page.html", over)
    assert not list(tmp_path.iterdir())


def test_another_kind_of_file_or_too_much_data(run: Snapshots, tmp_path: Path, monkeypatch) -> None:
    made = widgets.RewardExplorer(run)
    with pytest.raises(ValueError, match=r"page\.pdf is not allowed: the file's name must end in \.html"):
        made.to_html(tmp_path / "page.pdf")
    monkeypatch.setattr(page, "LARGEST", 20_000)
    before = dict(made.state)
    with pytest.raises(ValueError, match=r"more than 0 MB of data after [0-9]+ states: name fewer values in over") as e:
        made.to_html(tmp_path / "page.html", ["task"])
    assert made.state == before  # while the error is still held, as a notebook holds it
    assert e.value
    assert not list(tmp_path.iterdir())


# -- in a browser ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=[(1366, 900), (375, 812)], ids=["desktop", "phone"])
def opened(request: pytest.FixtureRequest):
    if reason := browser.missing():
        pytest.skip(reason)
    with browser.Browser() as chromium, chromium.page(*request.param) as opened:
        opened.page.context.set_offline(True)
        yield opened


@pytest.fixture(scope="module")
def methods(run: Snapshots) -> widgets.AdaptationExplorer:
    config = lab.SMACConfig.preset("point-robot", "smoke")
    untrained = lab.SMAC(config, run.family.spec, seed=0)
    return widgets.AdaptationExplorer({"trained": run.before, "new": untrained}, run.family, run.tasks, run.buffer)


def look(opened: Any) -> list[str]:
    return [opened.page.locator(part).inner_html() for part in (".says", ".figure .main-svg >> nth=0")]


def wait_until(opened: Any, before: list[str]) -> None:
    for _ in range(100):
        opened.page.wait_for_timeout(50)
        if all(now != old for now, old in zip(look(opened), before, strict=True)):
            return
    raise AssertionError("the picture or its text did not change")


@pytest.mark.browser
@pytest.mark.parametrize("explorer", [*PAGES, widgets.AdaptationExplorer])
def test_every_control_of_a_page_changes_it(opened, run: Snapshots, methods, explorer: type, tmp_path: Path) -> None:
    made = methods if explorer is widgets.AdaptationExplorer else explorer(run)
    over = {"task": [0, 3], "context": ["offline", "self-collected"], "episodes": [0, 2]}
    over = values_of(made, PAGES.get(explorer, over))
    made.update(**{name: values[-1] for name, values in over.items()})
    opened.page.goto(made.to_html(tmp_path / "page.html", over).as_uri())
    opened.page.locator(".figure[data-ready]").wait_for()
    for name in (name for name in over if name != "show"):
        control = opened.page.locator(f"form [name={name}]")
        before = look(opened)
        control.focus()
        opened.page.keyboard.press("ArrowLeft" if control.get_attribute("type") else "ArrowUp")
        wait_until(opened, before)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert opened.console_errors == []


@pytest.mark.browser
def test_clicks_in_the_plane_of_a_page(opened, run: Snapshots, tmp_path: Path) -> None:
    made = widgets.LatentJoystick(run)
    listed = {name: list(made.controls[name].values[::4]) for name in ("z1", "z2")}
    opened.page.goto(made.to_html(tmp_path / "page.html", listed).as_uri())
    opened.page.locator(".figure[data-ready]").wait_for()
    before, plane = look(opened), opened.page.locator(".figure .xy .nsewdrag, .figure .nsewdrag").first
    box = plane.bounding_box()
    opened.page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.3 * box["height"])
    wait_until(opened, before)
    chosen = [opened.page.locator(f"form [name={name}]").input_value() for name in ("z1", "z2")]
    last = len(listed["z1"]) - 1
    assert [abs(int(value) - share * last) <= 1 for value, share in zip(chosen, (0.8, 0.7), strict=True)] == [True] * 2
    assert opened.console_errors == []
