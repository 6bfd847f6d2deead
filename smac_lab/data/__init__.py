"""What the agent learns from: stored transitions, and how they are made."""

from smac_lab.data.buffer import TransitionBuffer, Transitions
from smac_lab.data.collect import Episodes, collect_behaviour, rollout

__all__ = ["Episodes", "TransitionBuffer", "Transitions", "collect_behaviour", "rollout"]
