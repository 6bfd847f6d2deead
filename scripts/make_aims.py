"""Animate all aims of the Sawyer, acted by the script or by an agent.

python scripts/make_aims.py [--agent runs/sawyer/seed_0/frozen] [--out docs/sawyer.webp]

An agent explores as at meta-test, infers z, and acts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import smac_lab as lab
from smac_lab.engine.rollout import Policy, scripted_policy
from smac_lab.figures.video import render_episodes
from smac_lab.tasks.sawyer_scene import Aim, Scene

WIDTH, HEIGHT, CAPTION = 250, 188, 20  # pixels
EVERY, PAUSE = 3, 1500  # control steps per frame, and ms on the last frame


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--agent", type=Path, help="folder of a phase; default the script acts")
    parser.add_argument("--out", type=Path, default=Path("docs/sawyer.webp"))
    given = parser.parse_args()
    family = lab.make_family("sawyer")
    tasks = fullest(family.sample_tasks(np.random.default_rng(0), 2000))
    policy = policy_of(given.agent, family, tasks)
    film = render_episodes(policy, family, tasks, width=WIDTH, height=HEIGHT, every=EVERY)
    grid = film.frames.reshape(-1, 3, HEIGHT, 3, WIDTH, 3)  # eight tiles and an empty one
    tiles = grid.swapaxes(2, 3).reshape(-1, 9, HEIGHT, WIDTH, 3)[:, : len(Aim)]
    frames = [sheet(now, [str(family.describe(task)) for task in tasks.values]) for now in tiles]
    duration = [round(1000 / film.fps)] * (len(frames) - 1) + [PAUSE]
    frames[0].save(given.out, save_all=True, append_images=frames[1:], duration=duration, loop=0, quality=70, method=6)
    print(f"wrote {given.out}; reached at the last step:", film.episodes.rewards[:, -1] == 0)


def fullest(drawn: np.ndarray) -> lab.Tasks:
    """Choose each aim's task with the most items."""
    items = Scene.of(drawn).present.sum(1)
    return lab.Tasks(np.stack([drawn[np.where(drawn[:, 0] == aim, items, -1).argmax()] for aim in Aim]))


def policy_of(folder: Path | None, family: lab.TaskFamily, tasks: lab.Tasks) -> Policy:
    """Return the script, or the policy of a stored agent with z from its exploration."""
    if folder is None:
        return scripted_policy(family, tasks, 0.0, np.random.default_rng(0))
    agent = lab.load(folder / "checkpoint", family=family, buffer=False).agent
    posterior = lab.evaluate(agent, family, tasks, repeats=1).posterior  # (task, repeat, z_dim)
    z = lab.Gaussian(posterior.mean[:, 0], posterior.std[:, 0])
    return agent.policy(z, torch.Generator().manual_seed(0))


def sheet(pictures: np.ndarray, captions: list[str]) -> Image.Image:
    """Arrange pictures in two rows, each above its caption."""
    drawn = Image.new("RGB", (4 * WIDTH, 2 * (HEIGHT + CAPTION)), "white")
    ink, font = ImageDraw.Draw(drawn), ImageFont.load_default(13)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        corner = (i % 4 * WIDTH, i // 4 * (HEIGHT + CAPTION))
        drawn.paste(Image.fromarray(picture), corner)
        ink.text((corner[0] + 6, corner[1] + HEIGHT + 2), caption, fill="black", font=font)
    return drawn


if __name__ == "__main__":
    main()
