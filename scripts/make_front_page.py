"""The shift explorer of the front page, with data from the shipped agents.

    python scripts/make_front_page.py --out shift-explorer.html

`make docs` calls these functions (`scripts/docs_hooks.py`). The page contains actors and reward decoders, from which
the browser computes rollouts.
"""

from __future__ import annotations

import argparse
import base64
import json
import time
from pathlib import Path

import numpy as np

PARTS = Path(__file__).parents[1] / "docs" / "explorer"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the context, self-collected


def data(example: str = "point-robot") -> dict:
    """Collect the page's data; networks and posteriors are in `halves`.

    Args:
        example: a shipped run of the point robot.
    """
    import torch

    from smac_lab.figures import style
    from smac_lab.runs import snapshots
    from smac_lab.tasks.point_robot import STEP
    from smac_lab.widgets.agents import CHOSEN
    from smac_lab.widgets.shift import ShiftExplorer

    run = snapshots.example(example)
    explorer = ShiftExplorer(run)
    blob, agents, places = [], [], {}

    def put(values) -> int:
        """Store numbers in half precision, equal arrays once, and return their offset."""
        half = np.asarray(values, np.float64).ravel().astype(np.float16)
        if (key := half.tobytes()) not in places:
            places[key] = sum(map(len, blob))
            blob.append(half)
        return places[key]

    def network(part) -> int:
        return put(np.concatenate([tensor.numpy().ravel() for tensor in part.net.state_dict().values()]))

    def add(arm: str | None, iteration: int) -> int:
        agent, key = run.agent(arm, iteration), (arm, iteration)
        offline, own = (explorer.context_of(kind, key) for kind in ("offline", "self-collected"))
        posteriors = []
        for count in (round(share * own.shape[1]) for share in SHARES):
            q = agent.infer_posterior(torch.cat([own[:, :count], offline[:, : own.shape[1] - count]], dim=1))
            posteriors.append(torch.cat(q, dim=1).numpy())  # (task, 2 * z_dim)
        agents.append(
            {"actor": network(agent.actor), "decoder": network(agent.reward_decoder), "posteriors": put(posteriors)}
        )
        return len(agents) - 1

    before, arms = add(None, 0), []
    for arm in run.arms:
        indices = [before, *(add(arm, iteration) for iteration in run.iterations[1:])]
        measured = [explorer.measured((arm if iteration else None, iteration)) for iteration in run.iterations]
        arms.append({
            "label": style.phase_label(arm), "agents": indices,
            "offline": [round(shift.offline_context_return, 2) for shift in measured],
            "online": [round(shift.online_context_return, 2) for shift in measured],
        })  # fmt: skip

    def sizes(part) -> list[int]:
        weights = [tensor for name, tensor in part.net.state_dict().items() if name.endswith("weight")]
        return [weights[0].shape[1], *(len(weight) for weight in weights)]

    axes, low, high = explorer.plane()
    shift = explorer.measured((None, 0))
    angles = np.degrees(explorer.scale.values).round().astype(int)
    return {
        "arms": arms, "agents": agents, "iterations": run.iterations, "shares": SHARES,
        "tasks": explorer.tasks.values.round(4).tolist(),
        "names": [f"goal at {angle}°" for angle in angles.tolist()],
        "colours": explorer.task_colours(), "first_task": int(np.argmax(shift.offline_returns - shift.online_returns)),
        "first_point": ((low + high) / 2).round(3).tolist(),
        "centre": axes.centre.round(5).tolist(), "directions": axes.directions.round(5).tolist(),
        "spread": axes.share.round(3).tolist(), "low": low.round(3).tolist(), "high": high.round(3).tolist(),
        "horizon": run.family.horizon, "step": STEP,
        "actor_sizes": sizes(run.before.actor), "decoder_sizes": sizes(run.before.reward_decoder),
        "offline": style.OFFLINE, "self_collected": style.SELF_COLLECTED, "chosen": CHOSEN, "grey": style.GREY,
        "halves": base64.b64encode(np.concatenate(blob).tobytes()).decode(),
    }  # fmt: skip


def script(found: dict) -> str:
    """Return the data as a script, because a page opened from disk may not load JSON."""
    return f"const SHIFT = {json.dumps(found, ensure_ascii=False)};\n"


def fragment(folder: str = "explorer") -> str:
    """Return the explorer, with scripts and styles in `folder`."""
    return (
        f'<link rel="stylesheet" href="{folder}/explorer.css">\n{(PARTS / "fragment.html").read_text()}'
        f'<script defer src="{folder}/data.js"></script>\n<script defer src="{folder}/explorer.js"></script>\n'
    )


def page(found: dict) -> str:
    """Return one self-contained page."""
    look = (PARTS / "explorer.css").read_text() + (
        ":root { color-scheme: light dark; }\n"
        "body { max-width: 1100px; margin: 0 auto; padding: 12px; font-family: system-ui, sans-serif; }\n"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>The distribution shift of offline meta-RL</title>\n<style>\n{look}</style></head>\n<body>\n"
        f"<h1>The distribution shift</h1>\n<p>{WORDS}</p>\n{(PARTS / 'fragment.html').read_text()}"
        f"<script>\n{script(found)}{(PARTS / 'explorer.js').read_text()}</script>\n</body></html>\n"
    )


WORDS = (
    "A point robot looks for a goal on a half circle and infers from context which goal it is. Filled marks are what "
    "the encoder infers per task from offline context, hollow ones what it infers from context that the agent "
    "collected itself; a line joins the two marks of a task. Before the self-supervised phase the two lie apart and "
    "the agent misses the goal: move <i>iteration</i> and see what the phase does about it, or click the plane to act "
    "with any z."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--example", default="point-robot", help="a shipped run of the point robot")
    parser.add_argument("--out", type=Path, default=Path("shift-explorer.html"))
    options = parser.parse_args()
    started = time.perf_counter()
    found = data(options.example)
    options.out.write_text(page(found))
    print(f"wrote {options.out}: {options.out.stat().st_size / 1e3:.0f} kB, {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
