"""Data that the agent learns from."""

from smac_lab.data.buffer import TransitionBuffer, Transitions
from smac_lab.engine.rollout import Episodes, rollout

__all__ = ["Episodes", "TransitionBuffer", "Transitions", "rollout"]
