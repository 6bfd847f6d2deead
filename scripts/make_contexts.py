"""Draw returns over the self-supervised phase of two runs with different data for the encoder.

python scripts/make_contexts.py runs/cheetah runs/near-random [docs/cheetah.png]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from smac_lab.figures import findings, style

TITLES = ("the encoder reads exploration", "the encoder reads the transitions")


def main() -> None:
    folders, out = sys.argv[1:3], Path(sys.argv[3] if len(sys.argv) > 3 else "docs/cheetah.png")
    figure, places = style.grid(list(TITLES), 380, columns=2)
    for folder, place in zip(folders, places, strict=True):
        run = findings.read_run(folder)
        first = place["col"] == 1
        for arm in run.summary["arms"]:
            colour, label = style.PHASES[arm]
            for kind, dash in (("online_context_return", "solid"), ("offline_context_return", "dot")):
                curves = findings.curves(run, [arm], [kind])[kind][arm]
                steps = curves[0][0]
                seeds = np.array([values for _, values in curves])
                known = np.isfinite(seeds).all(0)
                name = label if dash == "solid" else f"{label}, offline context"
                line = {"color": colour, "dash": dash, "width": 3 if dash == "solid" else 1.5}
                figure.add_scatter(
                    x=steps[known], y=seeds[:, known].mean(0), name=name, line=line, showlegend=first, **place
                )
                if dash == "solid":
                    for seed in seeds:
                        thin = {"color": colour, "width": 1}
                        figure.add_scatter(
                            x=steps[known], y=seed[known], line=thin, opacity=0.35, showlegend=False, **place
                        )
    figure.update_xaxes(title="iteration").update_yaxes(title="return per episode", col=1).update_yaxes(matches="y")
    figure.update_layout(
        width=1100,
        showlegend=True,
        legend={"orientation": "h", "y": -0.18, "yref": "paper", "yanchor": "top"},
        margin={"b": 110},
    )
    figure.write_image(out, scale=2)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
