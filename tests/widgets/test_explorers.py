"""Explorers in a real JupyterLab, in headless Chromium: every control moved, and the picture follows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import browser
import pytest
from explorers import NAMES, Hands, write_notebook

pytestmark = pytest.mark.browser
CHOICES = {
    "arm": "frozen encoder",
    "source": "self-collected",
    "offline_context": "the actor's transitions",
    "rewards": "shuffled",
    "context": "offline",
    "show": "the task",  # moving z has chosen the point
}
# What else of an explorer has a class of its own; what films do is tested apart.
NO_CONTROLS = ("explorer", "controls", "says", "player", "play", "reduced_motion", "stale")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The notebook with all explorers, run; its last cell trains until it is stopped."""
    if reason := browser.missing():
        pytest.skip(reason)
    here = tmp_path_factory.mktemp("notebooks")
    write_notebook(here / "explorers.ipynb", exploration=True)
    with browser.JupyterLab(here) as lab, browser.Browser() as chromium, chromium.page(1366, 900) as page:
        page.open_notebook(lab, "explorers.ipynb")
        page.page.evaluate(browser.START_RUN)
        page.page.locator(".smac-explorer").nth(len(NAMES)).wait_for(timeout=240_000)  # the monitor, which now trains
        page.settle()
        yield page


def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("SMAC_LAB_SCREENSHOTS", tmp_path))


def test_training_monitor_while_it_trains(page) -> None:
    """First, as it holds the kernel: buttons work while the cell runs."""
    hands = Hands(page, len(NAMES))
    before = hands.data()
    hands.wait_for_change(before)
    hands.click("pause")
    hands.page.locator("[role=status]", has_text="paused").wait_for()
    still = hands.data()
    hands.page.wait_for_timeout(700)
    assert hands.data() == still
    hands.press("smooth", "ArrowRight")
    hands.wait_for_change(still)
    hands.click("resume")
    hands.wait_for_change(hands.data())
    hands.click("save")
    hands.page.locator("[role=status]", has_text="Saved after").wait_for()
    hands.click("stop")
    # The next cell goes on with it, until the kernel is interrupted; between two cells there is nothing to interrupt.
    ended = hands.page.locator(".jp-CodeCell .jp-InputArea-prompt", has_text=re.compile(r"\d"))
    ended.nth(len(NAMES) + 1).wait_for()
    hands.page.locator("[role=status]", has_text="running").wait_for()
    hands.wait_for_change(hands.data())
    page.page.evaluate(f"() => {browser.KERNEL}.interrupt()")
    hands.page.locator("[role=status]", has_text="stopped").wait_for()
    page.page.wait_for_function("() => window.smacRun === 'done'", timeout=60_000)
    assert page.problems() == []
    assert "('stopped; run() goes on', " in page.cells()[-1].text


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_every_control_changes_the_picture(page, index, tmp_path) -> None:
    hands = Hands(page, index)
    if NAMES[index] != "RolloutGallery":  # which starts there; at iteration 0 all arms are one agent
        before = hands.data()
        hands.press("iteration", "End")
        hands.wait_for_change(before)
    names = hands.box.locator("[class*=smac-]").evaluate_all(
        """all => [...new Set(all.flatMap(e => [...e.classList])
            .filter(c => c.startsWith('smac-')).map(c => c.slice(5)))]"""
    )
    moved = []
    for name in names:
        control = hands.box.locator(f".smac-{name}").first
        before, said = hands.data(), hands.says()
        if name in CHOICES:
            hands.choose(name, CHOICES[name])
        elif (
            name in ("z1", "z2", "task", "n", "share", "iteration", "other") and control.locator(".noUi-handle").count()
        ):
            if name == "other":
                hands.choose("rewards", "another task's")
                hands.wait_for_change(before)
                before = hands.data()
            at_end = name in ("n", "share", "iteration", "other")
            hands.press(name, "ArrowLeft" if at_end else "ArrowRight")
        else:
            assert name in NO_CONTROLS, f"how is {name} moved?"
            continue
        hands.wait_for_change(before)
        hands.wait_for_change(said, "says")
        moved.append(name)
        if name == "arm" and NAMES[index] != "RolloutGallery":  # what a frozen encoder infers never changes
            before = hands.data()
            hands.choose("arm", "self-labelled encoder")
            hands.wait_for_change(before)
    assert "offline_context" in moved
    assert len(moved) >= 4, names
    hands.box.screenshot(path=pictures(tmp_path) / f"{NAMES[index]}.png")
    assert page.problems() == []


def test_clicks_in_the_plane(page) -> None:
    hands = Hands(page, 0)
    at = hands.box.evaluate(  # the task that lies farthest from the selected one
        """box => { const data = box.querySelector('.js-plotly-plot').data;
        const named = name => data.find(t => t.name?.startsWith(name) && t.mode === 'markers');
        const all = named('offline context'), selected = named('selected task');
        const far = [...all.x].map((x, i) => Math.hypot(x - selected.x[0], all.y[i] - selected.y[0]));
        const i = far.indexOf(Math.max(...far));
        return [all.x[i], all.y[i]]; }"""
    )
    before = hands.says()
    hands.click_plane(*at)
    hands.wait_for_change(before, "says")
    assert "given offline context" in hands.says()
    corner = hands.box.evaluate(  # the layer that feels clicks ends a little within the axes
        """box => { const l = box.querySelector('.js-plotly-plot')._fullLayout;
            return [l.xaxis.range, l.yaxis.range].map(([low, high]) => low + 0.1 * (high - low)); }"""
    )
    before = hands.says()
    hands.click_plane(*corner)
    hands.wait_for_change(before, "says")
    assert "given the chosen point" in hands.says()
    assert page.problems() == []


def test_films_play_and_keep_still_where_asked(page) -> None:
    hands = Hands(page, NAMES.index("RolloutGallery"))
    film = hands.film()
    assert film is not None
    assert film.startswith("data:video/mp4")
    hands.box.evaluate("box => box.querySelector('video').play()")
    hands.page.wait_for_function("() => document.querySelector('.smac-explorer video').currentTime > 0", timeout=30_000)
    hands.tick("reduced_motion")
    hands.choose("context", "self-collected")
    hands.choose("context", "offline")
    hands.box.locator(".smac-player.smac-stale").wait_for()
    hands.click("play")
    hands.wait_for_change(film, "film")
    hands.box.locator(".smac-player.smac-stale").wait_for(state="detached")
    assert hands.box.locator("video").first.get_attribute("autoplay") is None
    assert page.problems() == []


def test_on_a_dark_page(page, tmp_path) -> None:
    page.theme(browser.DARK)
    for index, name in enumerate(NAMES):
        hands = Hands(page, index)
        colour = hands.box.locator(".main-svg text").first.evaluate("text => getComputedStyle(text).fill")
        assert min(int(part) for part in re.findall(r"\d+", colour)[:3]) > 150, (name, colour)
        hands.box.screenshot(path=pictures(tmp_path) / f"{name}-dark.png")
    page.theme(browser.LIGHT)
