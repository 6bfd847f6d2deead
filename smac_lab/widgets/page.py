"""An explorer as one HTML file, with its states computed beforehand.

`Explorer.to_html` writes it. Numbers of long traces are stored in 16 bits between their least and greatest value, equal
ones once. The file contains plotly's script (`vendor/`, the bundle for Cartesian charts, MIT licence).
"""

from __future__ import annotations

import base64
import hashlib
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

    def put(self, value: Any, exact: bool = False) -> int:
        """Store a value, and return its number; `exact`: not in 16 bits."""
        array = None
        if isinstance(value, (np.ndarray, list, tuple)) and np.asarray(value).dtype.kind in "biuf":
            array = np.asarray(value, np.float64)
        key: Any = repr(value) if array is None else (array.shape, exact, hashlib.sha1(array.tobytes()).digest())
        if key not in self._places:
            self._places[key] = len(self.entries)
            self.entries.append(self._entry(value, array, exact))
            self.size += len(json.dumps(self.entries[-1])) + 2
        return self._places[key]

    def _entry(self, value: Any, array: Array | None, exact: bool) -> Any:
        if array is None:
            return {"is": list(value) if isinstance(value, (np.ndarray, tuple)) else value}
        if exact or array.size <= SHORT:
            return {"is": _listed(array)}
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
    clicks: Mapping[int, Sequence[str | None]],
    title: str,
    about: str,
) -> str:
    """Build the page.

    Args:
        figure: the figure, with all traces.
        inputs: the controls; the last changes fastest along `states`.
        states: for each combination, its values by (trace, property), and its text.
        clicks: trace to the controls that a click sets: the point's index, or its x and y; None: not on the page.
        title: heading.
        about: what one sees.

    Raises:
        ValueError: there is too much data.
    """
    pool, columns, rows = Pool(), list[tuple[int, str]](), list[list[int]]()
    exact = {i for i, trace in enumerate(figure.data) if _on_a_log_axis(figure, trace)}
    for changed, text in states:
        columns = columns or list(changed)
        if changed.keys() != set(columns):
            raise TypeError("the states of an explorer change different properties")
        rows.append([pool.put(text), *(pool.put(changed[key], key[0] in exact) for key in columns)])
        if pool.size + 6 * len(rows) * len(rows[0]) > LARGEST:
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
        first=pool.entries[rows[_first(inputs)][0]]["is"],
    )  # fmt: skip


def _first(inputs: Sequence[Input]) -> int:
    """Return the first state's number."""
    at = 0
    for one in inputs:
        at = at * len(one.values) + one.start
    return at


def _listed(array: Array) -> list[Any]:
    """Return numbers for JSON, with six digits; None where one is not finite."""
    if array.ndim > 1:
        return [_listed(row) for row in array]
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in array]


def _on_a_log_axis(figure: go.Figure, trace: Any) -> bool:
    names = (f"{which}axis{(trace[f'{which}axis'] or which)[1:]}" for which in "xy")
    return any(figure.layout[name].type == "log" for name in names)
