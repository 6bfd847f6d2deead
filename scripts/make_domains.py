"""Draw docs/domains.png: a still of each body. `python scripts/make_domains.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import smac_lab as lab
from smac_lab.engine.rollout import near_random_policy, scripted_policy
from smac_lab.figures.video import render_episodes

BODIES = {  # control steps before the still
    "cheetah-vel": 12,
    "ant-dir": 30,
    "humanoid-dir": 8,
    "walker-params": 10,
    "hopper-params": 8,
    "sawyer": 40,
}
SIZE = (400, 300)


def still(name: str, steps: int) -> Image.Image:
    """Draw a body acting by its script, or near-randomly."""
    family = lab.make_family(name)
    family.horizon = steps + 1
    tasks, _ = family.split(1, 1, seed=3)
    rng = np.random.default_rng(0)
    scripted = name in ("ant-dir", "sawyer")
    policy = scripted_policy(family, tasks, 0.0, rng) if scripted else near_random_policy(family.action_dim, rng)
    picture = Image.fromarray(render_episodes(policy, family, tasks, width=SIZE[0], height=SIZE[1]).frames[-1])
    ImageDraw.Draw(picture).text((10, 6), name, fill="white", font=ImageFont.load_default(20))
    return picture


sheet = Image.new("RGB", (3 * SIZE[0], 2 * SIZE[1]))
for i, (name, steps) in enumerate(BODIES.items()):
    sheet.paste(still(name, steps), (i % 3 * SIZE[0], i // 3 * SIZE[1]))
sheet.save(Path(__file__).parents[1] / "docs" / "domains.png", optimize=True)
