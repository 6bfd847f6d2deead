"""An explorer as one HTML file, with its states computed beforehand.

`Explorer.to_html` writes it. Numbers of long traces are stored in 16 bits between their least and greatest value, equal
ones once. The file contains plotly's script (`vendor/`, the bundle for Cartesian charts, MIT licence).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import plotly.graph_objects as go

from smac_lab.figures.style import PLOTLY, Array

FOLDER = Path(__file__).parent
LARGEST = 3_000_000  # characters of data
SHORT = 16  # longest array stored as text
NAN = 65_535  # NaN in 16 bits


class Input(NamedTuple):
    """A control of the page.

    Args:
        name, label: of the control.
        values: in order.
        texts: how each is shown.
        start: index of the first value.
        slider: slider or list.
        sets: indices of other controls' values that a person's change of this one sets, by name.
    """

    name: str
    label: str
    values: Sequence[Any]
    texts: Sequence[str]
    start: int
    slider: bool
    sets: Mapping[str, int]


class Pool:
    """Values that states refer to by number; equal ones are stored once."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.numbers: list[bytes] = []
        self.size = 0  # characters, about
        self._places: dict[Any, int] = {}
        self._length = 0

    def put(self, value: Any) -> int:
        """Store a value, and return its number."""
        array = np.asarray(value, np.float64) if isinstance(value, (np.ndarray, list, tuple)) else None
        key: Any = repr(value) if array is None else (array.shape, hashlib.sha1(array.tobytes()).digest())
        if key not in self._places:
            self._places[key] = len(self.entries)
            self.entries.append(self._entry(value, array))
            self.size += len(json.dumps(self.entries[-1])) + 2
        return self._places[key]

    def _entry(self, value: Any, array: Array | None) -> Any:
        if array is None:
            return {"is": value}
        if array.size <= SHORT:
            return {"is": [None if np.isnan(v) else float(f"{v:.6g}") for v in array.ravel()]}
        known = array[np.isfinite(array)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        scaled = np.nan_to_num((array - low) / ((high - low) or 1.0) * (NAN - 1), nan=NAN, posinf=NAN, neginf=NAN)
        stored = scaled.round().astype("<u2").tobytes()
        entry = {"at": self._length, "n": array.size, "low": low, "high": high}
        self.numbers.append(stored)
        self._length += array.size
        self.size += 4 * len(stored) // 3
        return entry | ({"columns": array.shape[1]} if array.ndim == 2 else {})


def document(
    figure: go.Figure,
    inputs: Sequence[Input],
    states: Iterable[tuple[Mapping[tuple[int, str], Any], str]],
    clicks: Mapping[int, Sequence[str]],
    title: str,
    about: str,
) -> str:
    """Build the page.

    Args:
        figure: the figure, with all traces.
        inputs: the controls; the last changes fastest along `states`.
        states: for each combination, its values by (trace, property), and its text.
        clicks: trace to the controls that a click sets: the point's index, or its x and y.
        title: heading.
        about: what one sees.

    Raises:
        ValueError: there is too much data.
    """
    pool, columns, rows = Pool(), list[tuple[int, str]](), list[list[int]]()
    for changed, text in states:
        columns += [key for key in changed if key not in columns]
        rows.append([pool.put(text), *(pool.put(changed[key]) for key in columns if key in changed)])
        if len(rows[-1]) != len(columns) + 1:
            raise TypeError("the states of an explorer change different properties")
        if pool.size > LARGEST:
            raise ValueError(
                f"the page would hold more than {LARGEST / 1e6:.0f} MB of data after {len(rows)} states: name fewer "
                "values in over"
            )
    data = {
        "figure": json.loads(figure.to_json()),
        "inputs": [one._asdict() for one in inputs],
        "columns": columns,
        "rows": rows,
        "pool": pool.entries,
        "numbers": base64.b64encode(b"".join(pool.numbers)).decode(),
        "clicks": {str(trace): list(names) for trace, names in clicks.items()},
    }
    frame = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("page.html.jinja")
    return frame.render(
        title=title, about=about, data=data, plotly=PLOTLY.read_text(encoding="utf-8"),
        script=(FOLDER / "page.js").read_text(encoding="utf-8"), height=int(figure.layout.height),
        first=html.unescape(pool.entries[rows[_first(inputs)][0]]["is"]),
    )  # fmt: skip


def _first(inputs: Sequence[Input]) -> int:
    """Return the first state's number."""
    at = 0
    for one in inputs:
        at = at * len(one.values) + one.start
    return at
