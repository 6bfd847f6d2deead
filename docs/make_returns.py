"""Draws docs/returns.png: every task's return, of data and agent. `python docs/make_returns.py RUN ...`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from smac_lab import plots
from smac_lab.findings import read_run

WIDTH, HEIGHT = 1150, 330


def picture(folder: str) -> Image.Image:
    """Before the self-supervised phase and after the default arm, a panel each."""
    run = read_run(folder)
    seed = run.shown_seed
    shown = {phase: run.measurements[phase][seed] for phase in ("before", str(run.default))}
    panels = {
        phase: plots.TaskReturns(found["behaviour_returns"], found["offline_returns"], found["online_returns"])
        for phase, found in shown.items()
    }
    figure = plots.returns_by_task(panels, run.scale(shown["before"]["tasks"]))
    figure.update_layout(width=WIDTH, height=HEIGHT, paper_bgcolor="white")
    image = Image.open(io.BytesIO(figure.to_image("png", width=WIDTH, height=HEIGHT))).convert("RGB")
    ImageDraw.Draw(image).text(
        (WIDTH - 330, 8), run.summary["family"].split(":")[0], "black", ImageFont.load_default(18)
    )
    return image


pictures = [picture(folder) for folder in sys.argv[1:]]
sheet = Image.new("RGB", (WIDTH, HEIGHT * len(pictures)), "white")
for i, image in enumerate(pictures):
    sheet.paste(image, (0, i * HEIGHT))
sheet.quantize(128).save(Path(__file__).with_name("returns.png"), optimize=True)
