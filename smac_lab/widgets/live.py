"""A figure widget as wide as the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import plotly
import plotly.graph_objects as go
from plotly.serializers import custom_serializers
from traitlets import Dict, Unicode

BUNDLE = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"  # of a FigureWidget


class LiveFigure(go.FigureWidget):  # type: ignore[misc]
    """A plotly FigureWidget with two changes for explorers.

    - It ignores the values that the browser fills in (defaults, ranges) and sends after each change. Reading them takes
      as long as a redraw, and plotly 7.1 fails to read arrays. An overridden handler is no longer an observer.
    - All figures of a page share one copy of plotly's JavaScript (5 MB). anywidget waits two seconds for a model; on a
      busy machine a separate copy starts too late, and the figure then ignores all messages.

    Args:
        figure: the figure to draw.
        on_start: called when the browser is ready, which may have missed earlier changes.
    """

    _esm = """
    export default () => {
        let starting;
        return {
            initialize(context) {
                const { model } = context;
                globalThis.smacLabPlotly ??= import(
                    URL.createObjectURL(new Blob([model.get("_bundle")], { type: "text/javascript" })));
                starting = globalThis.smacLabPlotly.then(bundle => {
                    const figure = bundle.default();
                    figure.initialize(context);
                    model.send("started");
                    return figure;
                });
            },
            async render(context) { return (await starting).render(context); },
        };
    };
    """
    _bundle = Unicode(BUNDLE.read_text(encoding="utf-8")).tag(sync=True)
    _js2py_traceDeltas = Dict(allow_none=True).tag(sync=True, echo_update=False, **custom_serializers)
    _js2py_layoutDelta = Dict(allow_none=True).tag(sync=True, echo_update=False, **custom_serializers)

    def __init__(self, figure: go.Figure, on_start: Callable[[], None]):
        super().__init__(figure)
        self._config: dict[str, Any] = {**self._config, "responsive": True}  # see `Width`
        self.on_msg(lambda _, message, __: on_start() if message == "started" else None)

    def _handler_js2py_traceDeltas(self, change: Any) -> None:
        pass

    def _handler_js2py_layoutDelta(self, change: Any) -> None:
        pass


class Width(anywidget.AnyWidget):
    """Invisible widget that makes figures follow the width of their container.

    A FigureWidget is first drawn 700 pixels wide, and later reacts only to the size of the window.
    """

    _esm = """
    export default { render({ el }) {
        el.style.width = "100%";
        const tell = () => window.dispatchEvent(new Event("resize"));
        const watch = new ResizeObserver(tell);
        watch.observe(el);
        const soon = [100, 600].map(wait => setTimeout(tell, wait));  // what is drawn only then
        return () => { watch.disconnect(); soon.forEach(clearTimeout); };
    } };
    """
