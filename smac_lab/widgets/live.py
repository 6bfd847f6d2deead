"""A figure that a browser draws, that hears clicks, and that is as wide as the page."""

from __future__ import annotations

from typing import Any

import anywidget
import plotly.graph_objects as go
from plotly.serializers import custom_serializers
from traitlets import Dict


class LiveFigure(go.FigureWidget):  # type: ignore[misc]
    """A plotly FigureWidget that does not read back what the browser fills in by itself (defaults, ranges).

    After each change a browser tells all of it. Nothing here asks for it, taking it in takes the kernel as long as a
    redraw, and plotly 7.1 fails at it where arrays are concerned. (An overridden handler is no longer an observer.)
    """

    def __init__(self, figure: go.Figure):
        super().__init__(figure)
        self._config: dict[str, Any] = {**self._config, "responsive": True}  # follows the window's size; see `Width`

    _js2py_traceDeltas = Dict(allow_none=True).tag(sync=True, echo_update=False, **custom_serializers)
    _js2py_layoutDelta = Dict(allow_none=True).tag(sync=True, echo_update=False, **custom_serializers)

    def _handler_js2py_traceDeltas(self, change: Any) -> None:
        pass

    def _handler_js2py_layoutDelta(self, change: Any) -> None:
        pass


class Width(anywidget.AnyWidget):
    """Nothing to be seen: tells responsive figures when the place they are in gets another width.

    A FigureWidget is drawn before it is in the page, 700 pixels wide, and otherwise listens to the window alone.
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
