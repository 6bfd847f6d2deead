"""Arms by name."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from smac_lab.config import SMACConfig

ArmName = Literal[
    "frozen", "self-labelled", "oracle", "frozen-true-rewards", "offline-encoder", "no-awac", "no-q", "offline"
]


class Arm(NamedTuple):
    """One way of going on after the offline phase.

    A custom arm is passed as `train_self_supervised(..., arm=...)`.

    Args:
        about: description.
        objective: name in `SMAC.objectives`.
        true_rewards: whether new interaction keeps its true rewards.
        interacts: whether it collects new data.
        and_then: second objective, on offline data after every update.
        changes: fields of the config that it sets in the agent.
    """

    about: str
    objective: str = "self-supervised"
    true_rewards: bool = False
    interacts: bool = True
    and_then: str | None = None
    changes: dict[str, Any] = {}  # noqa: RUF012 - never written to


ARMS: dict[str, Arm] = {
    "frozen": Arm("the paper: encoder and decoder stay as they are, rewards are decoded"),
    "self-labelled": Arm("ours: the encoder learns to explain decoded rewards to the frozen decoder", "self-labelled"),
    "oracle": Arm("the paper's: true rewards, from which encoder and decoder go on learning", "oracle", True),
    "frozen-true-rewards": Arm("frozen, with true rewards: what decoded ones cost", true_rewards=True),
    "offline-encoder": Arm("frozen online, while encoder and decoder learn from offline data", and_then="inference"),
    "no-awac": Arm("frozen without imitation: the actor follows -Q alone", changes={"online_awac_weight": 0.0}),
    "no-q": Arm("frozen with imitation alone: the actor never follows -Q", changes={"online_q_weight": 0.0}),
    "offline": Arm("nothing online: as many updates more on the offline data", "offline", interacts=False),
}
# Arms by values of the config's field `online_encoder`.
OF_ENCODER = {"frozen": "frozen", "self-labelled": "self-labelled", "offline": "offline-encoder"}


def find_arm(name: str) -> Arm:
    """Return the arm of that name.

    Raises:
        ValueError: no arm has that name.
    """
    if name not in ARMS:
        raise ValueError(f"unknown arm {name!r}; known arms: {', '.join(ARMS)}")
    return ARMS[name]


def choose_arm(config: SMACConfig, arm: str | Arm | None, oracle: bool = False) -> Arm:
    """Return the arm that the arguments of `train_self_supervised` select.

    Raises:
        ValueError: no arm has that name.
    """
    if arm is None:
        return ARMS["oracle" if oracle else OF_ENCODER[config.online_encoder]]
    chosen = find_arm(arm) if isinstance(arm, str) else arm
    return chosen._replace(true_rewards=True) if oracle else chosen


def folder_of(arm: str) -> str:
    """Return the name of an arm's folder in a run; "offline" is the offline phase's."""
    return "offline-continued" if arm == "offline" else arm
