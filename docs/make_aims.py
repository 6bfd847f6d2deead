"""Draws docs/sawyer.png: each aim of the Sawyer at its end, reached by the script. `python docs/make_aims.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import smac_lab as lab
from smac_lab.data.collect import scripted_policy
from smac_lab.tasks.sawyer_scene import Aim, Scene
from smac_lab.video import render_episodes

SIZE = (380, 285)
family = lab.make_family("sawyer")
drawn = family.sample_tasks(np.random.default_rng(0), 2000)
items = Scene.of(drawn).present.sum(1)
sheet = Image.new("RGB", (4 * SIZE[0], 2 * SIZE[1]))
for aim in Aim:
    own = np.flatnonzero(drawn[:, 0] == aim)
    tasks = lab.Tasks(drawn[own[[items[own].argmax()]]])  # a scene with as much in it as there is
    policy = scripted_policy(family, tasks, 0.0, np.random.default_rng(0))
    frames = render_episodes(policy, family, tasks, width=SIZE[0], height=SIZE[1]).frames
    picture = Image.fromarray(frames[-1])
    ink = ImageDraw.Draw(picture)
    ink.rectangle((0, SIZE[1] - 26, *SIZE), fill="white")
    ink.text((10, SIZE[1] - 23), str(family.describe(tasks.values[0])), fill="black", font=ImageFont.load_default(16))
    sheet.paste(picture, (aim % 4 * SIZE[0], aim // 4 * SIZE[1]))
sheet.save(Path(__file__).with_name("sawyer.png"), optimize=True)
