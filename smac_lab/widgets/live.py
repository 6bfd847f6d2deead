"""A figure that a browser draws and that hears clicks."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.serializers import custom_serializers
from traitlets import Dict


class LiveFigure(go.FigureWidget):  # type: ignore[misc]
    """A plotly FigureWidget that does not read back what the browser fills in by itself (defaults, ranges).

    After each change a browser tells all of it. Nothing here asks for it, taking it in takes the kernel as long as a
    redraw, and plotly 7.1 fails at it where arrays are concerned. (An overridden handler is no longer an observer.)
    """

    _js2py_traceDeltas = Dict(allow_none=True).tag(sync=True, echo_update=False, **custom_serializers)
    _js2py_layoutDelta = Dict(allow_none=True).tag(sync=True, echo_update=False, **custom_serializers)

    def _handler_js2py_traceDeltas(self, change: Any) -> None:
        pass

    def _handler_js2py_layoutDelta(self, change: Any) -> None:
        pass
