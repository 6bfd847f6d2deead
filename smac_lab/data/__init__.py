"""What the agent learns from: stored transitions, and how they are made."""

from smac_lab.data.buffer import TransitionBuffer, Transitions
from smac_lab.engine.rollout import Episodes, rollout

__all__ = ["Episodes", "TransitionBuffer", "Transitions", "rollout"]
