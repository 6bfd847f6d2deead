"""The documentation site: it builds, its links lead somewhere, and the explorer of its front page works offline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import browser
import check_links
import draw_layers
import grimp
import make_front_page
import numpy as np
import pytest
import torch

import smac_lab as lab
from smac_lab.engine.rollout import rollout
from smac_lab.runs.snapshots import example
from smac_lab.widgets.shift import ShiftExplorer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a page that is missing, or a public name without a home, is an error."""
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_and_the_notebooks_are_in_it(site: Path) -> None:
    reference = (site / "reference.html").read_text()
    public = set(lab.__all__) - {"tasks"}
    assert {name for name in public if f'.{name}"' in reference} == public
    assert (site / "notebooks" / "00_tour.html").stat().st_size > 100_000


def test_every_explorer_of_agents_has_a_page(site: Path) -> None:
    linked = set(re.findall(r'href="explorers/(\w+)\.html"', (site / "explorers.html").read_text()))
    assert linked == {file.stem for file in (site / "explorers").glob("*.html")}
    assert len(linked) == 5


def test_no_link_is_broken(site: Path) -> None:
    assert check_links.broken(site) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#there">1</a><a href="b.html#gone">2</a><img src="c.png">')
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1><a href="https://example.org/d">3</a>')
    assert check_links.broken(tmp_path) == ["a.html: b.html#gone (no such anchor)", "a.html: c.png"]


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = r'<(?:script|img|iframe)[^>]*\bsrc="https?:[^"]+"|<link[^>]*stylesheet[^>]*"https?:[^"]+"'
    for page in site.rglob("*.html"):
        assert re.findall(loads, page.read_text()) == [], page


def test_words_of_the_reference_lead_to_the_glossary(site: Path) -> None:
    """The link checker has followed them; here, that most of the words are linked, and none in code."""
    reference = (site / "reference.html").read_text()
    assert len(set(re.findall(r'href="glossary.html#([^"]+)"', reference))) > 20
    assert not re.search(r'(?s)<(code|pre)\b[^>]*>(?:(?!</\1>).)*href="glossary', reference)


@pytest.mark.browser
def test_search_works_from_a_file(site: Path) -> None:
    if reason := browser.missing():
        pytest.skip(reason)
    with browser.Browser() as chromium, chromium.page(1366, 900) as page:
        page.page.context.set_offline(True)
        page.page.goto((site / "glossary.html").as_uri())
        page.page.locator("input.md-search__input").fill("gap_closed")
        page.page.locator(".md-search-result__link").first.wait_for()
        assert page.console_errors == []


def test_equations_are_set(site: Path) -> None:
    """As MathML, on pages and in notebooks, with nothing left over that only a script could draw."""
    pages = [*(site / "methods").glob("*.html"), *(site / "notebooks").glob("*.html")]
    found = {page.stem: page.read_text() for page in pages}
    assert sum("<math" in text for text in found.values()) > 15
    for name, text in found.items():
        shown = re.sub(r"(?s)<(script|style|code|pre)\b.*?</\1>", "", text)
        assert not re.search(r"\\\(|\\\[|\$[^$<]*\\[a-z]+[^$<]*\$|<merror|arithmatex|\\[a-z]{3,}", shown), name


def test_layers_are_drawn_from_the_code(site: Path) -> None:
    rooms = [room for layer in draw_layers.layers() for room in layer]
    counts, graph = draw_layers.imports(), grimp.build_graph("smac_lab")
    pairs = {
        (importer.split(".")[1], imported.split(".")[1])
        for importer in graph.modules - {"smac_lab"}
        for imported in graph.find_modules_directly_imported_by(importer) - {"smac_lab"}
    }
    assert set(counts) == {(a, b) for a, b in pairs if a != b and a in rooms and b in rooms}
    assert all(rooms.index(importer) < rooms.index(imported) for importer, imported in counts)
    assert (site / "design.html").read_text().count("<title>") == len(counts) + 1


# -- the front page's explorer ------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=[(1366, 900), (375, 812)], ids=["desktop", "phone"])
def front(site: Path, request: pytest.FixtureRequest):
    """The front page, opened from disk without a network."""
    if reason := browser.missing():
        pytest.skip(reason)
    with browser.Browser() as chromium, chromium.page(*request.param) as page:
        page.page.context.set_offline(True)
        page.page.goto((site / "index.html").as_uri())
        page.page.locator(".shift-explorer[data-ready]").wait_for()
        yield page


@pytest.mark.browser
def test_explorer_follows_every_control(front, tmp_path: Path) -> None:
    page, steps = front.page, []
    box = page.locator(".shift-explorer")
    panels = {name: box.locator(f".{name} svg g") for name in ("latent", "robot", "gets")}
    paths = panels["robot"].locator("path.path")

    def drawn() -> dict[str, str]:
        return {name: panel.inner_html() for name, panel in panels.items()}

    def changed(before: dict[str, str]) -> set[str]:
        steps.append(float(box.get_attribute("data-step")))
        return {name for name, now in drawn().items() if now != before[name]}

    def press(name: str, key: str) -> None:
        box.locator(f"input[name={name}]").focus()
        page.keyboard.press(key)

    assert paths.count() == 2
    for name, key, moves in (
        ("iteration", "End", {"latent", "robot", "gets"}),
        ("iteration", "ArrowLeft", {"latent", "robot", "gets"}),
        ("share", "ArrowLeft", {"latent", "robot"}),
        ("task", "ArrowRight", {"latent", "robot"}),
        ("z1", "ArrowRight", {"latent", "robot"}),
        ("z2", "ArrowLeft", {"latent", "robot"}),
    ):
        before, said = drawn(), box.locator(f"input[name={name}]").get_attribute("aria-valuetext")
        press(name, key)
        assert changed(before) == moves, name
        assert box.locator(f"input[name={name}]").get_attribute("aria-valuetext") != said
    before = drawn()
    box.locator("select[name=arm]").select_option(label="self-labelled encoder")
    assert changed(before) == {"latent", "robot", "gets"}

    # a click in an empty corner chooses its z; one on a task's mark selects the task
    plane = box.locator(".latent > svg")
    plane.evaluate("svg => svg.scrollIntoView({block: 'center'})")
    width = plane.bounding_box()["width"]
    seen = []
    for at in (0.2, 0.9), (0.9, 0.1):
        plane.click(position={"x": at[0] * width, "y": at[1] * width * 0.85})
        assert paths.count() == 1
        seen.append(paths.get_attribute("d"))
    assert seen[0] != seen[1]
    mark = panels["latent"].locator("circle").last.bounding_box()
    page.mouse.click(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert paths.count() == 2

    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
    assert front.console_errors == []
    print(f"first picture after {box.get_attribute('data-ready')} ms; a step takes {np.median(steps)} ms (median)")
    page.locator("label", has_text="iteration").scroll_into_view_if_needed()
    pictures = Path(os.environ.get("SMAC_LAB_SCREENSHOTS", tmp_path))
    front.screenshot(pictures / f"front-{page.viewport_size['width']}.png")


@pytest.mark.browser
def test_explorer_acts_as_the_agent_does(front) -> None:
    """Returns in the table are those of the shipped agent, acting in the family itself."""
    page = front.page
    page.reload()
    page.locator(".shift-explorer[data-ready]").wait_for()
    run = example("point-robot")
    explorer = ShiftExplorer(run)
    for iteration in (0, 20):
        explorer.update(arm="frozen", iteration=iteration)
        agent, given = run.agent("frozen", iteration), explorer.posteriors()
        page.locator("[name=iteration]").fill(str(run.iterations.index(iteration)))
        for task in (0, 13):
            page.locator("[name=task]").fill(str(task))
            shown = page.locator(".shift-explorer tbody td").all_inner_texts()
            expected = []
            for q in given:
                z = lab.Gaussian(q.mean[[task]], torch.zeros(1, agent.config.z_dim))
                episode = rollout(agent.policy(z, torch.Generator()), run.family.batch_env(run.tasks[[task]]))
                steps = (agent.tensor(x) for x in (episode.observations, episode.actions))
                decoded = agent.reward_decoder(*steps, z.mean.expand(1, run.family.horizon, -1))
                expected += [float(episode.returns[0]), float(decoded.detach().sum())]
            numbers = [float(text.replace("\N{MINUS SIGN}", "-")) for text in shown]
            np.testing.assert_allclose(numbers, expected, atol=0.1)


def test_explorer_is_small_and_the_same_each_time(site: Path, tmp_path: Path) -> None:
    assert (site / "explorer" / "data.js").stat().st_size < 400_000
    assert (site / "shift-explorer.html").stat().st_size < 450_000
    assert (site / "explorer" / "data.js").read_text() == make_front_page.script(make_front_page.data())
