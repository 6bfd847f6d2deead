"""Explorers: figures over a state, with controls in a notebook and without a browser all the same."""

from smac_lab.widgets.explorer import Explorer
from smac_lab.widgets.shift import ShiftExplorer

__all__ = ["Explorer", "ShiftExplorer"]
