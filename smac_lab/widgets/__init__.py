"""Explorers: interactive figures for notebooks, which also work in code without a browser."""

from smac_lab.widgets.adaptation import AdaptationExplorer
from smac_lab.widgets.context import ContextExplorer
from smac_lab.widgets.explorer import Explorer
from smac_lab.widgets.gallery import RolloutGallery
from smac_lab.widgets.joystick import LatentJoystick
from smac_lab.widgets.monitor import TrainingMonitor
from smac_lab.widgets.reward import RewardExplorer
from smac_lab.widgets.shift import ShiftExplorer

__all__ = [
    "AdaptationExplorer",
    "ContextExplorer",
    "Explorer",
    "LatentJoystick",
    "RewardExplorer",
    "RolloutGallery",
    "ShiftExplorer",
    "TrainingMonitor",
]
