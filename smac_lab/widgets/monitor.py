"""TrainingMonitor: live curves of training, with pause, resume, stop and save."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import plotly.graph_objects as go

from smac_lab.engine.meter import Metrics
from smac_lab.figures import style
from smac_lab.figures.style import OFFLINE
from smac_lab.widgets.explorer import Control, Explorer, Slider, Switch, Traces

SHOWN = ("reward_error", "kl", "critic_loss", "awac_loss")
STOPPED = "stopped; run() goes on"
REDRAW = 0.25  # s between redraws, at least


class TrainingMonitor(Explorer):
    """Show a phase as it runs: `await TrainingMonitor(lab.train_offline(agent, buffer))` in a notebook's cell.

    Outside notebooks, `run()` trains without buttons, as does `for step, metrics in monitor: ...`. During `await` and
    `run()`, an interrupt (Ctrl-C) takes effect after the present step; another `await` or `run()` continues from there.

    State: `smooth` (points averaged), `log` (logarithmic y axes).

    Args:
        training: a generator of `(step, metrics)`, such as `train_offline(...)`.
        save: called by the save button, between two steps.
        total: number of steps, for the remaining time.
        show: metrics to draw, one panel each.
        **state: the initial state.
    """

    def __init__(
        self,
        training: Iterator[tuple[int, Metrics]],
        save: Callable[[], Any] | None = None,
        *,
        total: int | None = None,
        show: Sequence[str] = SHOWN,
        **state: Any,
    ):
        self.training, self.total, self.show = training, total, tuple(show)
        self.rows: list[tuple[int, Metrics]] = []
        self.status = "not started"
        self._save, self._saved = save, ""
        self._pause, self._stop, self._wanted = threading.Event(), threading.Event(), threading.Event()
        self._spent, self._since, self._looked = 0.0, 0.0, 0.0
        super().__init__(**state)

    varied = ("smooth",)
    unpaged = ("reduced_motion", "log")
    about = "Metrics of a training run, step by step. Move the slider to average neighbouring points."

    def make_controls(self) -> dict[str, Control]:
        return {"smooth": Slider("points averaged", [1, 3, 10, 30], 1), "log": Switch("logarithmic", False)}

    # -- training ----------------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[tuple[int, Metrics]]:
        """Train, draw and yield steps."""
        with self._running():
            for step, metrics in self.training:
                self._take(step, metrics)
                yield step, metrics
                while self._waits():
                    time.sleep(0.05)
                if self._stop.is_set():
                    self.status = STOPPED
                    return
            self.status = "done"

    def __await__(self) -> Generator[Any, None, TrainingMonitor]:
        """Train as `run` does, but handle buttons and interrupts between steps."""
        return self._train().__await__()

    async def _train(self) -> TrainingMonitor:
        self._show()
        with self._running(), _answering_widgets():
            try:
                for step, metrics in self.training:
                    self._take(step, metrics)
                    await asyncio.sleep(0)
                    while self._waits():
                        await asyncio.sleep(0.05)
                    if self._stop.is_set():
                        self.status = STOPPED
                        return self
            except asyncio.CancelledError:  # the kernel's interrupt
                self.status = STOPPED
                return self
            self.status = "done"
        return self

    def run(self) -> TrainingMonitor:
        """Train to the end, to `stop()`, or to an interrupt.

        In a notebook, buttons work during `await monitor`, but not during `run()`.
        """
        self._show()
        main = threading.current_thread() is threading.main_thread()
        usual = signal.signal(signal.SIGINT, self._interrupted) if main else None
        try:
            for _ in self:
                pass
        finally:
            if main:
                signal.signal(signal.SIGINT, usual)
        return self

    def _show(self) -> None:
        if _in_notebook() and self._widget is None:
            from IPython.display import display

            display(self.widget)  # `_running` shows a picture if there are curves

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._stop.clear()
        self.status, self._since = "running", time.monotonic()
        try:
            yield
        except BaseException as error:
            self.status = f"ended by {type(error).__name__}"
            raise
        finally:
            self.redraw()
            if _in_notebook():
                self.show_picture()

    def _take(self, step: int, metrics: Metrics) -> None:
        self.rows.append((step, metrics))
        now = time.monotonic()
        self._spent, self._since = self._spent + now - self._since, now
        if now - self._looked > REDRAW:
            self.redraw()

    def _waits(self) -> bool:
        """Save if requested; return whether to wait."""
        if self._wanted.is_set():
            self._save_now()
        waits = self._pause.is_set() and not self._stop.is_set()
        if waits != (self.status == "paused"):
            self.status = "paused" if waits else "running"
            self.redraw()
        if waits:
            self._since = time.monotonic()
        return waits

    def _interrupted(self, *_: Any) -> None:
        if self._stop.is_set():  # a second interrupt stops at once
            raise KeyboardInterrupt
        self.stop()

    def pause(self) -> None:
        """Wait after the present step until `resume()`."""
        self._pause.set()

    def resume(self) -> None:
        """Continue after `pause()`."""
        self._pause.clear()

    def stop(self) -> None:
        """End after the present step; `run()` continues from there."""
        self._stop.set()

    def save(self) -> None:
        """Save between steps, or at once if nothing runs.

        Raises:
            ValueError: the monitor was made without `save`.
        """
        if self._save is None:
            raise ValueError(
                "nothing to save with: TrainingMonitor(..., save=lambda: lab.save(path, agent, buffer=buffer))"
            )
        if self.status in ("running", "paused"):
            self._wanted.set()
        else:
            self._save_now()

    def _save_now(self) -> None:
        self._wanted.clear()
        assert self._save is not None
        self._saved = f" Saved after {self.rows[-1][0] if self.rows else 0} steps: {self._save()}."
        self.redraw()

    # -- curves ------------------------------------------------------------------------------------------
    def curve(self, metric: str) -> tuple[Any, Any]:
        """Return steps and values, averaged over `smooth` points."""
        known = [(step, metrics[metric]) for step, metrics in self.rows if metric in metrics]
        steps = np.array([step for step, _ in known], float)
        values = np.array([np.mean(value) for _, value in known], float)
        width = min(self.state["smooth"], max(len(values), 1))
        if width > 1:
            values = np.convolve(values, np.ones(width) / width, "valid")
            steps = steps[width - 1 :]
        return steps, values

    def frame(self) -> go.Figure:
        figure, places = style.grid([style.METRIC_LABELS.get(name, name) for name in self.show], 170, gap=70)
        for name, place in zip(self.show, places, strict=True):
            line = go.Scatter(mode="lines", line_color=OFFLINE, name=name, showlegend=False, x=[], y=[])
            self.add(figure, name, line, place)
        return figure.update_xaxes(title="updates or iterations", row=-(-len(self.show) // 2)).update_layout(
            margin_t=45
        )

    def draw(self) -> Traces:
        self.figure.update_yaxes(type="log" if self.state["log"] else "linear")
        return {name: dict(zip("xy", self.curve(name), strict=True)) for name in self.show}

    @property
    def text(self) -> str:
        if not self.rows:
            return f"{self.status}.{self._saved}"
        step = self.rows[-1][0]
        rate = step / max(self._spent, 1e-9)
        left = f", about {(self.total - step) / rate:.0f} s left" if self.total and step < self.total else ""
        of = f" of {self.total}" if self.total else ""
        return f"{self.status}: {step}{of} steps in {self._spent:.0f} s, {rate:.1f} a second{left}.{self._saved}"

    def redraw(self) -> None:
        self._looked = time.monotonic()
        super().redraw()
        if self._widget is not None and self.total:
            self._bar.value = self.rows[-1][0] / self.total if self.rows else 0.0

    # -- buttons -----------------------------------------------------------------------------------------
    def buttons(self) -> list[Any]:
        import ipywidgets

        made = []
        for name, icon, act in (
            ("Pause", "pause", self.pause),
            ("Resume", "play", self.resume),
            ("Stop", "stop", self.stop),
            *([("Save", "save", self.save)] if self._save else []),
        ):
            button = ipywidgets.Button(description=name, icon=icon, layout={"width": "90px"})
            button.add_class(f"smac-{name.lower()}")
            button.on_click(lambda _, act=act: act())
            made.append(button)
        self._bar = ipywidgets.FloatProgress(min=0.0, max=1.0, layout={"width": "150px"}, style={"bar_color": OFFLINE})
        return [*made, *([self._bar] if self.total else [])]


def _kernel() -> Any:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return getattr(get_ipython(), "kernel", None)


def _in_notebook() -> bool:
    return _kernel() is not None


@contextmanager
def _answering_widgets() -> Iterator[None]:
    """Report to the browser's widgets, while a cell awaits, that their messages have been handled.

    ipykernel 7.4 does not report it, and a widget without a report never sends its next message.
    """
    kernel = _kernel()
    handle = getattr(kernel, "dispatch_shell", None)
    if handle is None or "concurrent" not in inspect.signature(handle).parameters:
        yield
        return

    async def handle_and_tell(message: Any, /, **how: Any) -> None:
        await handle(message, **how)
        if how.get("concurrent"):
            _, (_, header, *_) = kernel.session.feed_identities(message, copy=False)
            kernel._publish_status("idle", "shell", parent={"header": kernel.session.unpack(header.bytes)})

    kernel.dispatch_shell = handle_and_tell
    try:
        yield
    finally:
        del kernel.dispatch_shell
