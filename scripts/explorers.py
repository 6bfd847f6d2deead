"""A notebook with explorers, and their operation in a browser.

    python scripts/explorers.py [--example cheetah-vel] [--pictures FOLDER]

prints, for every slider, the time from a key press to the changed picture; `--pictures` also writes pictures on a light
and on a dark page.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("ShiftExplorer", "ContextExplorer", "RewardExplorer", "LatentJoystick", "RolloutGallery")
MONITOR = """
config = lab.SMACConfig.preset(run.family.name, "smoke")
agent = lab.SMAC(config, run.family.spec)
training = lab.train_offline(agent, run.buffer, steps=100_000, log_every=5)
monitor = widgets.TrainingMonitor(training, save=lambda: lab.save("saved", agent).name, total=100_000)
await monitor;
"""
EXPLORATION = """
from dataclasses import replace
config = replace(run.before.config, exploration_transitions=60, exploration_policy="scripted")
run = replace(run, buffer=lab.collect_behaviour(run.family, run.tasks, config), known={})
"""


def write_notebook(
    file: Path, example: str = "point-robot-narrow", monitor: bool = True, exploration: bool = False
) -> Path:
    """Write a notebook of the explorers in `NAMES` for an example, and a training monitor.

    With `exploration` (for a family with a script), the buffer has exploration, which the encoder reads instead of
    other offline transitions.
    """
    start = "import smac_lab as lab\nfrom smac_lab import widgets\nfrom smac_lab.runs.snapshots import example\n"
    sources = [
        start + f"run = example({example!r})" + (EXPLORATION.rstrip() if exploration else ""),
        *(f"shown_{i} = widgets.{name}(run)\nshown_{i}" for i, name in enumerate(NAMES)),
    ]
    sources += [MONITOR.strip(), "await monitor  # goes on\nmonitor.status, agent.updates"] if monitor else []
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for i, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    file.write_text(
        json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )
    return file


# A plotly figure's data as text.
READ_DATA = """box => JSON.stringify([...box.querySelector('.js-plotly-plot').data],
    (key, value) => ArrayBuffer.isView(value) ? Array.from(value) : key === 'uid' ? undefined : value)"""
# Milliseconds from an input to the end of the redraw.
WATCH = """box => {
    const plot = box.querySelector('.js-plotly-plot');
    box.smacTimes = [];
    let since = null;
    const start = () => { since = performance.now(); };
    for (const event of ['keydown', 'change', 'mousedown']) box.addEventListener(event, start, true);
    plot.on('plotly_afterplot', () => {
        if (since !== null) box.smacTimes.push(performance.now() - since);
        since = null;
    });
}"""


class Hands:
    """Actions of a person on one explorer of a page.

    Args:
        page: `browser.Page` after a run.
        index: of the explorer, from the top.
    """

    def __init__(self, page: Any, index: int):
        self.page = page.page
        self.box = self.page.locator(".smac-explorer").nth(index)
        self.box.scroll_into_view_if_needed()

    def data(self) -> str:
        return self.box.evaluate(READ_DATA)

    def says(self) -> str:
        return self.box.locator("[role=status]").inner_text()

    def film(self) -> str | None:
        """Return the first film's URL, or None."""
        films = self.box.locator("video")
        return films.first.get_attribute("src") if films.count() else None

    def press(self, name: str, keys: str) -> None:
        handle = self.box.locator(f".smac-{name} .noUi-handle")
        handle.focus()
        handle.press(keys)

    def choose(self, name: str, label: str) -> None:
        self.box.locator(f".smac-{name} select").select_option(label=label)

    def tick(self, name: str) -> None:
        self.box.locator(f".smac-{name} input[type=checkbox]").click()

    def click(self, button: str) -> None:
        self.box.locator(f"button.smac-{button}").click()

    def click_plane(self, x: float, y: float) -> None:
        """Click a point of the first panel, in its coordinates."""
        self.box.evaluate("box => box.querySelector('.subplot.xy').scrollIntoView({block: 'center'})")
        self.page.wait_for_timeout(300)
        place = self.box.evaluate(
            """(box, [x, y]) => { const plot = box.querySelector('.js-plotly-plot'), l = plot._fullLayout;
            const r = plot.getBoundingClientRect();
            return [r.left + l.xaxis.d2p(x) + l.xaxis._offset, r.top + l.yaxis.d2p(y) + l.yaxis._offset]; }""",
            [x, y],
        )
        self.page.mouse.move(*place)
        self.page.wait_for_timeout(200)  # plotly needs time to find the element under the pointer
        self.page.mouse.click(*place)

    def wait_for_change(self, before: str, what: str = "data", timeout: float = 30.0) -> None:
        """Wait until data, text or film differ from `before`; raise TimeoutError after `timeout` seconds."""
        read = {"data": self.data, "says": self.says, "film": self.film}[what]
        for _ in range(int(timeout / 0.05)):
            if read() != before:
                return
            self.page.wait_for_timeout(50)
        raise TimeoutError(f"{what} stayed as it was for {timeout:.0f} s")


def measure(page: Any, presses: int = 12) -> list[tuple[str, str, list[float]]]:
    """Measure every slider's response to key presses: explorer, slider, times in ms."""
    found = []
    for index, name in enumerate(NAMES):
        hands = Hands(page, index)
        hands.box.evaluate(WATCH)
        for handle in hands.box.locator(".noUi-handle").all():
            handle.focus()
            low, high = (float(handle.get_attribute(f"aria-value{end}") or 0) for end in ("min", "max"))
            now = float(handle.get_attribute("aria-valuenow") or 0)
            key = "ArrowRight" if now < (low + high) / 2 else "ArrowLeft"
            hands.box.evaluate("box => { box.smacTimes.length = 0; }")
            for _ in range(presses):
                handle.press(key)
                page.page.wait_for_timeout(350)
            label = handle.evaluate(
                "h => [...h.closest('.widget-inline-hbox').classList].find(c => c.startsWith('smac-')).slice(5)"
            )
            found.append((name, label, hands.box.evaluate("box => box.smacTimes")))
    return found


def main() -> None:
    from browser import DARK, LIGHT, Browser, JupyterLab

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--example", default="point-robot")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as here:
        write_notebook(Path(here) / "explorers.ipynb", options.example, monitor=False)
        with JupyterLab(Path(here)) as lab, Browser() as browser, browser.page(1366, 900) as page:
            page.open_notebook(lab, "explorers.ipynb")
            page.run_all()
            if options.pictures:
                page.page.set_viewport_size({"width": 1366, "height": 1500})  # the whole of the tallest
            for theme in (LIGHT, DARK) if options.pictures else ():
                page.theme(theme)
                for index, name in enumerate(NAMES):
                    hands = Hands(page, index)
                    page.page.wait_for_timeout(500)
                    file = options.pictures / f"{options.example}-{name}-{theme.split()[-1].lower()}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    hands.box.screenshot(path=file)
                    print(f"wrote {file}")
            page.page.set_viewport_size({"width": 1366, "height": 900})
            print(f"{'explorer':18s}{'slider':12s}{'presses':>8s}{'median ms':>11s}{'95th ms':>9s}")
            for name, slider, times in measure(page):
                if times:
                    middle, late = np.percentile(times, (50, 95))
                    print(f"{name:18s}{slider:12s}{len(times):8d}{middle:11.0f}{late:9.0f}")
            for problem in page.problems():
                print("problem:", problem)


if __name__ == "__main__":
    main()
