"""Base of all explorers: a checked state, its figure, controls, links, and a film player."""

from __future__ import annotations

import contextlib
import functools
import html
import itertools
import math
import re
import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import plotly.graph_objects as go

from smac_lab.figures import style

T = TypeVar("T")
REST = 0.12  # s of rest before slow parts are drawn
STATES = 400  # of a page, by default
MOST_STATES = 20_000  # of a page
Traces = dict[str, dict[str, Any]]  # trace to its changing properties
STYLE = """<style>
.smac-explorer { width: 100%; overflow: hidden; }
.smac-explorer .smac-controls { flex-flow: row wrap; }
.smac-explorer .smac-controls .widget-readout { width: auto; max-width: none; flex: none; white-space: nowrap; }
.smac-explorer .smac-says { line-height: 1.45; padding: 2px 4px 6px; color: var(--jp-ui-font-color1, inherit); }
.smac-explorer .smac-says video { max-width: 100%; border-radius: 4px; display: block; }
.smac-explorer .smac-stale { opacity: 0.3; }
.smac-explorer .js-plotly-plot .main-svg g:not(.hoverlayer *) > text {
  fill: var(--jp-ui-font-color1, #707070) !important; }
.smac-explorer .legendpoints path[style*="fill: rgb(0, 0, 0)"] { fill: var(--jp-ui-font-color1, #707070) !important; }
.smac-explorer .legendpoints path[style*="stroke: rgb(0, 0, 0)"] {
  stroke: var(--jp-ui-font-color1, #707070) !important; }
.smac-explorer :focus-visible { outline: 2px solid #56B4E9; outline-offset: 1px; }
</style>"""


class Slider(NamedTuple):
    """A number from a list.

    Every control has two methods: `check` returns a value in standard form, or raises ValueError; `widget` makes the
    ipywidget of the value.
    """

    label: str
    values: Sequence[Any]  # in ascending order
    start: Any
    text: Callable[[Any], str] = str
    any_between: bool = False  # whether `update` takes numbers between the values

    def check(self, name: str, value: Any) -> Any:
        low, high = self.values[0], self.values[-1]
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if self.any_between and number and low <= value <= high:
            return float(value)
        if number and value in self.values:
            return self.values[list(self.values).index(value)]
        listed = ", ".join(map(str, self.values)) if len(self.values) <= 12 else f"{low} to {high}"
        if len(self.values) > 12 and number and low <= value <= high and not self.any_between:
            listed = f"{len(self.values)} values from {listed}, such as {nearest(self.values, value)}"
        raise ValueError(
            f"{name}={value!r} is not allowed: it must be {'within' if self.any_between else 'one of'} {listed}"
        )

    def widget(self) -> Any:
        import ipywidgets

        options = [(self.text(value), value) for value in self.values]
        return ipywidgets.SelectionSlider(options=options, continuous_update=True, **_look(self.label, "360px"))


class Choice(NamedTuple):
    """One of a few values."""

    label: str
    values: Sequence[Any]
    start: Any
    text: Callable[[Any], str] = str

    def check(self, name: str, value: Any) -> Any:
        if value not in self.values:
            raise ValueError(f"{name}={value!r} is not allowed: it must be one of {', '.join(map(repr, self.values))}")
        return value

    def widget(self) -> Any:
        import ipywidgets

        return ipywidgets.Dropdown(options=[(self.text(v), v) for v in self.values], **_look(self.label, "300px"))


class Switch(NamedTuple):
    """True or False."""

    label: str
    start: bool
    values: Sequence[bool] = (False, True)
    text: Callable[[Any], str] = str

    def check(self, name: str, value: Any) -> bool:
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name}={value!r} is not allowed: it must be True or False")
        return bool(value)

    def widget(self) -> Any:
        import ipywidgets

        return ipywidgets.Checkbox(indent=False, **_look(self.label, "auto"))


Control = Slider | Choice | Switch  # one variable of a state, and its input


def _look(label: str, width: str) -> dict[str, Any]:
    return {
        "description": label,
        "style": {"description_width": "initial"},
        "layout": {"width": width, "margin": "2px 14px 2px 2px"},
    }


class Explorer:
    """A figure of a state, which controls set in a notebook and `update(name=value)` sets in code.

    A subclass defines the controls (`make_controls`), the empty figure (`frame`) and the properties of traces that
    depend on the state (`draw`). `draw` must be quick: it trains nothing, and caches slow results (`once`).

    Attributes:
        takes_long: whether `draw_slowly` is too slow for each step of a slider.
        clicks: trace to the controls that a click sets: one, the index of the point; two, its x and y.
        varied: the controls that `to_html` varies by default.
        unpaged: controls of the layout or of films, which `to_html` cannot vary.
        about: what one sees, in three sentences.
        state: control to value.
        figure: a plotly Figure; once displayed, a FigureWidget.
    """

    takes_long = False
    clicks: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    varied: ClassVar[tuple[str, ...]] = ()
    unpaged: ClassVar[tuple[str, ...]] = ("reduced_motion",)
    about: ClassVar[str] = ""

    def __init__(self, **state: Any):
        self._kept: dict[Hashable, Any] = {}
        self._traces: dict[str, int] = {}
        self._shown: Traces = {}
        self._drawing, self._timer = threading.RLock(), threading.Timer(0.0, self._rested)
        self._listeners: list[Callable[[dict[str, Any]], None]] = []
        self._widget: Any = None
        self._inputs: dict[str, Any] = {}
        self._busy, self._drawn = False, False
        self.controls: dict[str, Control] = {**self.make_controls(), "reduced_motion": Switch("reduce motion", False)}
        self.state: dict[str, Any] = {name: control.start for name, control in self.controls.items()}
        self.figure: go.Figure = self.frame()
        for update in (self.figure.update_xaxes, self.figure.update_yaxes):  # margins take a fifth of a redraw
            update(automargin=False, ticklabeloverflow="allow")
        self.update(**state)

    # -- defined by a subclass ---------------------------------------------------------------------------
    def make_controls(self) -> dict[str, Control]:
        """Return the controls by name."""
        raise NotImplementedError

    def frame(self) -> go.Figure:
        """Return the figure with all traces (`self.add`), empty."""
        raise NotImplementedError

    def draw(self) -> Traces:
        """Return the trace properties of `self.state`."""
        raise NotImplementedError

    def draw_slowly(self) -> Traces:
        """Return further properties; if `takes_long`, a displayed explorer first waits `REST` s without a change."""
        return {}

    @property
    def text(self) -> str:
        """Description of the figure, one or two sentences."""
        raise NotImplementedError

    def settle(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Return `changes` and those that follow from them."""
        return changes

    def by_hand(self, name: str, value: Any) -> dict[str, Any]:
        """Return the changes when a person sets a control."""
        return {name: value}

    def film(self) -> str:
        """Return the film as HTML; empty if there is none."""
        return ""

    # -- state -------------------------------------------------------------------------------------------
    def update(self, **changes: Any) -> Explorer:
        """Set variables of the state, and redraw this and linked explorers.

        Raises:
            ValueError: a name or a value is not allowed; the state is then unchanged.
        """
        if unknown := [name for name in changes if name not in self.controls]:
            raise ValueError(f"{type(self).__name__} has no {', '.join(unknown)}; it has {', '.join(self.controls)}")
        checked = {name: self.controls[name].check(name, value) for name, value in changes.items()}
        with self._drawing:  # `to_html` may be at work in another thread
            checked = self.settle(checked)
            moved = {name: value for name, value in checked.items() if self.state[name] != value}
            if not moved and self._drawn:
                return self
            self.state.update(checked)
            self.redraw()
        self._drawn = True
        if self._widget is not None:
            self._player.add_class("smac-stale")  # a film of another state
        for listen in self._listeners:
            listen(moved)
        return self

    def redraw(self) -> None:
        """Redraw from the state."""
        later = self.takes_long and self._widget is not None
        with self._drawing:  # widgets' messages may arrive in another thread
            self._fill(self.draw() if later else self.draw() | self.draw_slowly())
            self._show_state()
            if later:
                self._timer.cancel()
                self._timer = threading.Timer(REST, self._rested)
                self._timer.daemon = True
                self._timer.start()

    def _rested(self) -> None:
        with self._drawing:
            self._fill(self.draw_slowly())
            self._show_state()

    def _start_again(self) -> None:
        self._shown.clear()
        self.redraw()

    def _fill(self, traces: Traces) -> None:
        with self.figure.batch_update():
            for name, properties in traces.items():
                shown = self._shown.setdefault(name, {})
                fresh = {key: value for key, value in properties.items() if not _same(shown.get(key), value)}
                shown.update(fresh)
                trace = self.figure.data[self._traces[name]]
                for key, value in fresh.items():  # a browser redraws all that it receives
                    trace[key] = value

    def observe(self, listen: Callable[[dict[str, Any]], None]) -> None:
        """Call `listen` with the changed values after each change."""
        self._listeners.append(listen)

    def link(self, *others: Explorer) -> Explorer:
        """Pass each change of a shared variable (task, arm, iteration, z, ...) between explorers.

        The others take this explorer's values, except those that they do not allow.
        """
        everyone = (self, *others)
        for one in everyone:
            one.observe(functools.partial(_pass_on, one, [other for other in everyone if other is not one]))
        for other in others:
            _pass_on(self, [other], self.state)
        return self

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return `compute()`, computed once for each key."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    # -- the figure --------------------------------------------------------------------------------------
    def add(self, figure: go.Figure, name: str, trace: Any, place: style.Place) -> None:
        """Add a trace, to which `draw` refers by `name`."""
        self._traces[name] = len(figure.data)
        figure.add_trace(trace, **place)

    def picture(self, width: int = 1000, scale: float = 1.0) -> bytes:
        """Return the figure as a PNG on white; requires kaleido and a Chromium browser."""
        still = go.Figure(self.figure)
        still.update_layout(paper_bgcolor="white", font_color="#333333", autosize=False)
        return still.to_image(format="png", width=width, height=still.layout.height, scale=scale)

    # -- as a page ---------------------------------------------------------------------------------------
    def to_html(
        self, path: str | Path, over: Mapping[str, Sequence[Any]] | Sequence[str] | None = None, title: str = ""
    ) -> Path:
        """Write one HTML file that needs neither a kernel nor a network.

        It holds every combination of some controls' values. Other controls keep their present values, unless one of
        these moves them.

        Args:
            path: the file.
            over: the page's controls: name to values, or names, with all values. Default: `varied`, with evenly spaced
                values, `STATES` combinations at most.
            title: heading; default the explorer's name.

        Raises:
            ValueError: `path` does not end in .html; `over` has a name or value that is not allowed, or leads to too
                many combinations or too much data.
        """
        from smac_lab.data.storage import replace_text
        from smac_lab.widgets import page

        path = Path(path)
        if path.suffix != ".html":
            raise ValueError(f"{path} is not allowed: the file's name must end in .html")
        values = self._varied() if over is None else self._checked(over)
        path.parent.mkdir(parents=True, exist_ok=True)
        clicks = {
            self._traces[trace]: [name if name in values else None for name in names]
            for trace, names in self.clicks.items()
            if set(names) & set(self.controls) <= set(values)
        }
        with self._drawing, contextlib.closing(self._states(values)) as states:
            inputs, figure = [self._input(name, values) for name in values], go.Figure(self.figure)
            text = page.document(figure, inputs, states, clicks, title or words_of(type(self).__name__), self.about)
        replace_text(path, text)
        return path

    def _varied(self) -> dict[str, list[Any]]:
        names = [name for name in self.varied if name in self.controls]
        each = math.floor(STATES ** (1 / max(len(names), 1)) + 1e-9)
        return {name: spaced(self.controls[name].values, each) for name in names}

    def _checked(self, over: Mapping[str, Sequence[Any]] | Sequence[str]) -> dict[str, list[Any]]:
        if isinstance(over, str) or not isinstance(over, (Mapping, Sequence)):
            raise ValueError(f"over={over!r} is not allowed: it must map names of controls to values, or list names")
        if unknown := [name for name in over if name not in self.controls]:
            raise ValueError(f"{type(self).__name__} has no {', '.join(unknown)}; it has {', '.join(self.controls)}")
        if fixed := [name for name in over if name in self.unpaged]:
            raise ValueError(f"over={over!r} is not allowed: {' and '.join(fixed)} cannot change in a page")
        listed = over if isinstance(over, Mapping) else {name: self.controls[name].values for name in over}
        if alone := [name for name, v in listed.items() if isinstance(v, str) or not hasattr(v, "__len__")]:
            raise ValueError(f"over={over!r} is not allowed: {' and '.join(alone)} must have a list of values")
        values = {name: [self.controls[name].check(name, v) for v in listed[name]] for name in listed}
        if empty := [name for name in values if not values[name]]:
            raise ValueError(f"over has no value of {', '.join(empty)}: at least one is needed")
        if (n := math.prod(map(len, values.values()))) > MOST_STATES:
            raise ValueError(f"{n} combinations are not allowed in a page: at most {MOST_STATES}")
        return values

    def _input(self, name: str, values: Mapping[str, Sequence[Any]]) -> Any:
        from smac_lab.widgets.page import Input

        control, own = self.controls[name], values[name]
        slider = isinstance(control, Slider)
        now = self.state[name]
        start = own.index(nearest(own, now) if slider else now if now in own else own[0])
        sets = {k: v for k, v in self.by_hand(name, own[0]).items() if k != name and v in values.get(k, ())}
        listed = [float(v) if slider else v for v in own]
        indices = {k: list(values[k]).index(v) for k, v in sets.items()}
        return Input(name, control.label, listed, [control.text(v) for v in own], start, slider, indices)

    def _states(
        self, over: Mapping[str, Sequence[Any]]
    ) -> Generator[tuple[dict[tuple[int, str], Any], str], None, None]:
        """Draw each combination of values; the state stays the same."""
        from tqdm import tqdm

        kept, total = dict(self.state), math.prod(map(len, over.values()))
        try:
            combinations = itertools.product(*over.values())
            for values in tqdm(combinations, "states of the page", total, leave=False, delay=2.0, unit=" states"):
                chosen = dict(zip(over, values, strict=True))
                follows = [self.by_hand(name, value) for name, value in chosen.items()]
                self.state = dict(kept)
                self.state.update(self.settle({k: v for one in follows for k, v in one.items()} | chosen))
                drawn = self.draw() | self.draw_slowly()
                changed = {(self._traces[n], key): value for n, trace in drawn.items() for key, value in trace.items()}
                yield changed, self.text
        finally:
            self.state = kept
            self._fill(self.draw() | self.draw_slowly())

    # -- in a notebook -----------------------------------------------------------------------------------
    @property
    def widget(self) -> Any:
        """The explorer as one ipywidget."""
        if self._widget is None:
            self._widget = self._make_widget()
        return self._widget

    def buttons(self) -> list[Any]:
        """Return further ipywidgets."""
        return []

    def on_display(self, figure: Any) -> None:
        """Connect clicks in the FigureWidget."""
        for trace, names in self.clicks.items():
            figure.data[self._traces[trace]].on_click(functools.partial(self._click, names))

    def _click(self, names: Sequence[str], trace: Any, points: Any, _: Any) -> None:
        if points.point_inds:
            at = points.point_inds[:1] if len(names) == 1 else (points.xs[0], points.ys[0])
            changes: dict[str, Any] = {}
            for name, value in zip(names, at, strict=True):
                if name in self.controls:
                    values = self.controls[name].values
                    changes |= self.by_hand(name, type(values[0])(np.clip(value, values[0], values[-1])))
            self.clicked(changes)

    def clicked(self, changes: dict[str, Any]) -> None:
        """Set what a click chooses."""
        self.update(**changes)

    def _make_widget(self) -> Any:
        import ipywidgets

        from smac_lab.widgets.live import LiveFigure, Width

        self.figure = figure = LiveFigure(self.figure, self._start_again)
        for name, control in self.controls.items():
            made = control.widget()
            made.add_class(f"smac-{name}")
            made.observe(functools.partial(self._from_input, name), "value")
            self._inputs[name] = made  # `_show_state` sets its value
        self._says = ipywidgets.HTML()
        self._says.add_class("smac-says")
        self._player = ipywidgets.HTML()
        self._player.add_class("smac-says")
        self._player.add_class("smac-player")
        self._sheet = ipywidgets.HTML(STYLE, layout={"display": "none"})
        row = ipywidgets.HBox([*self._inputs.values(), *self.buttons()])
        row.add_class("smac-controls")
        self.on_display(figure)
        box = ipywidgets.VBox([self._sheet, row, self._says, figure, Width(), self._player])
        box.add_class("smac-explorer")
        self._widget = box
        self._show_state()
        return box

    def _from_input(self, name: str, change: Any) -> None:
        if not self._busy:
            self.update(**self.by_hand(name, change["new"]))

    def _show_state(self) -> None:
        if self._widget is None:
            return
        self._busy = True
        try:
            for name, made in self._inputs.items():
                control, value = self.controls[name], self.state[name]
                made.value = nearest(control.values, value) if isinstance(control, Slider) else value
        finally:
            self._busy = False
        self._says.value = f'<div role="status" aria-live="polite">{html.escape(self.text)}</div>'

    def play(self) -> None:
        """Show the film below the figure."""
        if self._widget is not None:
            self._player.value = self.film()
            self._player.remove_class("smac-stale")

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)
        self.show_picture()

    def show_picture(self) -> None:
        """Display a PNG if notebooks store PNGs: pages without scripts show it instead of the widget."""
        import plotly.io
        from IPython.display import Image, display

        if "png" in (plotly.io.renderers.default or ""):
            display(Image(self.picture()))


def words_of(name: str) -> str:
    """Return a class's name as words: "Shift explorer"."""
    return re.sub("(?<!^)([A-Z])", r" \1", name).capitalize()


def spaced(values: Sequence[Any], n: int) -> list[Any]:
    """Return `n` evenly spaced values, first and last included; all if there are fewer."""
    places = np.linspace(0, len(values) - 1, min(n, len(values))).round().astype(int)
    return [values[i] for i in places]


def nearest(values: Sequence[Any], wanted: Any) -> Any:
    """Return the value nearest to `wanted`."""
    if wanted in values:
        return wanted
    return min(values, key=lambda value: abs(value - wanted))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return type(one) is type(other) and bool(one == other)


def _pass_on(source: Explorer, others: Iterable[Explorer], changes: dict[str, Any]) -> None:
    for other in others:
        shared = {}
        for name, value in changes.items():
            if name in other.controls and other.state[name] != value:
                try:
                    shared[name] = other.controls[name].check(name, value)
                except ValueError:
                    continue
        if shared:
            other.update(**shared)
