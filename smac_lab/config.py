"""Every number of an experiment; the defaults are the paper's."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from smac_lab.presets import BEHAVIOURS, PRESETS, WITHOUT_EXPLORATION

if TYPE_CHECKING:
    import torch

PresetName = Literal["smoke", "cpu", "gpu", "paper"]
MethodName = Literal["smac", "cloning", "offline-pearl", "macaw", "borel", "macaw-in-smac", "borel-in-smac"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Range:
    """A range of allowed numbers."""

    low: float
    high: float = math.inf
    includes_low: bool = True
    includes_high: bool = True

    def check(self, name: str, value: Any, kind: type) -> None:
        """Raise ValueError, naming field and range, unless the value is a number in the range."""
        number = isinstance(value, int) or (kind is float and isinstance(value, float))
        ok = number and not isinstance(value, bool) and self.low <= value <= self.high and value != math.inf
        ok = ok and (self.includes_low or value > self.low) and (self.includes_high or value < self.high)
        _check(ok, name, value, self.told(kind))

    def told(self, kind: type) -> str:
        """Describe the range in words."""
        if kind is int:
            return f"an integer of at least {self.low}" + (f" and at most {self.high}" if self.high < math.inf else "")
        if not self.includes_low and self.high == math.inf:
            return f"a number above {self.low:g}"
        if not self.includes_low and not self.includes_high:
            return f"a number between {self.low:g} and {self.high:g}, both excluded"
        return f"a number in {'[' if self.includes_low else '('}{self.low}, {self.high}]"


def _check(ok: bool, name: str, value: Any, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{name}={value!r:.100} is not allowed: it must be {allowed}")


OrNone = Annotated[int, Range(0)]
TaskCount = Annotated[int, Range(1, 100_000)]
Positive = Annotated[float, Range(0.0, includes_low=False)]
Share = Annotated[float, Range(0.0, 1.0)]
PositiveShare = Annotated[float, Range(0.0, 1.0, includes_low=False)]
Between = Annotated[float, Range(0.0, 1.0, includes_low=False, includes_high=False)]


@dataclass(frozen=True)
class SMACConfig:
    """An experiment; the defaults are the paper's.

    Raises:
        ValueError: a field is out of its range.

    Example:
        >>> import dataclasses, smac_lab as lab
        >>> config = dataclasses.replace(lab.SMACConfig.preset("cheetah-vel", "cpu"), awac_lambda=10.0)
        >>> config.awac_lambda, config.z_dim
        (10.0, 5)
        >>> dataclasses.replace(config, tau=2.0)
        Traceback (most recent call last):
        ValueError: tau=2.0 is not allowed: it must be a number in [0.0, 1.0]
    """

    # Tasks and behaviour data
    n_train_tasks: TaskCount = 100  # tasks with data
    n_test_tasks: TaskCount = 20  # held-out tasks
    behaviour_transitions: int = 1200  # per training task; a multiple of the horizon
    behaviour_policy: Literal["random", "scripted", "pearl"] = "random"  # collecting policy; see `collect_behaviour`
    behaviour_part: Literal["last", "first"] = "last"  # transitions kept of each task, if PEARL collects
    exploration_transitions: OrNone = 0  # per training task, for the encoder alone; 0: it reads the behaviour data
    exploration_policy: Literal["pearl", "scripted"] = "pearl"  # the policy that explores; "scripted" replaces prior z
    behaviour_iterations: int = 100  # PEARL's, with episodes as in the self-supervised phase
    behaviour_updates: int = 16_000  # PEARL's, per iteration
    behaviour_initial_episodes: int = 10  # per task, before PEARL's first iteration
    behaviour_temperature: Positive = 1.0  # alpha of PEARL's entropy; the authors' is 1
    behaviour_last_temperature: Positive = 1.0  # alpha of PEARL's last iteration, approached geometrically
    behaviour_changes: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields with other values for PEARL
    behaviour_on_task: Share = 0.0  # share of scripted episodes on their own task; the rest pursue another
    behaviour_noise: float = 0.5  # standard deviation of noise on scripted actions

    # Networks
    z_dim: int = 5  # size of the latent variable z
    encoder_hidden: tuple[int, ...] = (200, 200, 200)
    decoder_hidden: tuple[int, ...] = (64, 64)
    actor_hidden: tuple[int, ...] = (300, 300, 300)
    critic_hidden: tuple[int, ...] = (300, 300, 300)

    # Losses
    discount: Share = 0.99  # gamma
    reward_scale: float = 5.0  # multiplies rewards in the Bellman target only
    kl_weight: float = 0.1  # weight of KL(q(z|h) || N(0, I)) beside the reward error
    awac_lambda: Positive = 100.0  # divides the advantage in the AWAC weights
    awac_weight: Literal["softmax", "exp"] = "softmax"  # authors' code: softmax over the batch; paper: exp(A / lambda)
    next_z: Literal["shared", "resampled"] = "shared"  # authors' code draws a second z for the next action
    kl_reduction: Literal["mean", "sum"] = "mean"  # over tasks; `pearl_loss` sums, as PEARL's code does
    explain_context: bool = False  # whether z must also explain its context's rewards; see `reward_loss`
    online_q_weight: float = 1.0  # weight of -Q(s, pi(s, z), z) in the self-supervised phase
    online_awac_weight: float = 1.0  # weight of the AWAC term in the self-supervised phase

    # Optimisation
    learning_rate: float = 3e-4  # Adam, every part
    learning_rate_decay: PositiveShare = 1.0  # share of the rate left at the end of a phase; falls over the last fifth
    tau: Share = 0.005  # Polyak rate of the target critics
    initial_weights: Literal["authors", "pytorch"] = "authors"  # hidden layers in +-1/sqrt(n_out), or in +-1/sqrt(n_in)
    optimizer_moments: Literal["carried", "fresh"] = "carried"  # Adam's, at the start of the self-supervised phase
    observation_scaling: bool = False  # standardise observations by the static data's mean and deviation
    max_action: Between = 0.999999  # data actions are clipped here before atanh; the authors' value

    # Offline phase
    offline_steps: OrNone = 50_000  # updates
    meta_batch: int = 4  # tasks per update
    batch_size: int = 128  # transitions per task
    context_size: int = 64  # context transitions per task, in training

    # Self-supervised phase
    online_iterations: OrNone = 501  # each collects, then updates
    online_updates: OrNone = 16_000  # per iteration
    online_meta_batch: int = 4  # tasks per update
    online_batch_size: int = 256  # transitions per task
    online_tasks: int = 5  # tasks that collect per iteration
    prior_episodes: OrNone = 3  # per task, with z ~ p(z)
    posterior_episodes: OrNone = 2  # per task, with z ~ q(.|own data)
    label_context_size: int = 256  # context transitions for z_label and for posteriors in collecting
    collecting_posterior: Literal["episode", "iteration"] = "episode"  # how often q(z|own data) is inferred anew
    online_encoder: Literal["frozen", "offline", "self-labelled"] = "frozen"  # the default arm; see arms.py
    online_context: Literal["mixed", "separate", "episodes"] = "mixed"  # see sampling.sample_self_supervised

    # Meta-test
    z_resampling: Literal["step", "episode"] | int = "step"  # when z is drawn anew; or a number of steps
    exploration_episodes: int = 2  # with z ~ p(z), before the episode that counts
    repeats: int = 4  # repetitions per task

    # Machine
    device: str = "auto"  # "auto": cuda if available, else cpu
    compile: bool = False  # torch.compile the losses, checked against uncompiled ones; at first half a minute per loss
    precision: Precision = "auto"  # of dense products in updates; "auto": tf32 on a GPU that has it, else fp32

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            hint, allowed = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
            if get_origin(hint) is Literal:
                choices = get_args(hint)
                _check(value in choices, field.name, value, f"one of {', '.join(map(repr, choices))}")
            elif hint is bool:
                _check(isinstance(value, bool), field.name, value, "True or False")
            elif hint is int:
                (allowed or Range(1)).check(field.name, value, int)
            elif hint is float:
                (allowed or Range(0.0)).check(field.name, value, float)
            elif field.name.endswith("_hidden"):
                _check(isinstance(value, (tuple, list)), field.name, value, "a tuple of positive layer sizes")
                object.__setattr__(self, field.name, tuple(value))
                ok = all(isinstance(size, int) and size > 0 for size in value) and len(value) > 0
                _check(ok, field.name, value, "a tuple of positive layer sizes")
        allowed = '"auto", "cpu", "cuda" or, of several, one such as "cuda:1"'
        _check(re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(self.device)) is not None, "device", self.device, allowed)
        kept = self.z_resampling
        steps = isinstance(kept, int) and not isinstance(kept, bool) and kept >= 1
        allowed = "'step', 'episode' or a number of steps, at least 1"
        _check(steps or kept in ("step", "episode"), "z_resampling", kept, allowed)
        _check(
            isinstance(self.behaviour_changes, dict), "behaviour_changes", self.behaviour_changes, "a dict of fields"
        )
        if self.behaviour_changes:
            self.for_pearl()
        if self.online_context == "episodes":
            _check(self.prior_episodes > 0, "prior_episodes", 0, "at least 1 where online_context='episodes'")
        if self.online_context != "mixed":
            _check(self.online_meta_batch > 1, "online_meta_batch", 1, "at least 2 unless online_context='mixed'")
        episodes = self.prior_episodes + self.posterior_episodes
        _check(episodes > 0, "prior_episodes + posterior_episodes", episodes, "at least 1")

    @classmethod
    def preset(cls, family: str, preset: str = "cpu", behaviour: str | None = None) -> SMACConfig:
        """Return the configuration for a named task family.

        Args:
            family: a name that `make_family` accepts.
            preset: "smoke" (seconds), "cpu" (two cores), "gpu" (four seeds at once on one card; reckoned as three
                minutes per arm, not yet run) or "paper".
            behaviour: "expert", "narrow" or "broad" scripted data, which the encoder reads too, for families that have
                a script; default: the preset's recipe.

        Raises:
            ValueError: unknown family, preset or behaviour.
        """
        family = family.partition(":")[0]  # variants share their presets
        if family not in PRESETS:
            raise ValueError(f"no presets for task family {family!r}; known: {', '.join(PRESETS)}")
        if preset not in get_args(PresetName):
            raise ValueError(f"unknown preset {preset!r}; known presets: {', '.join(get_args(PresetName))}")
        fields = dict(PRESETS[family][preset])
        if behaviour is not None:
            if behaviour not in BEHAVIOURS:
                raise ValueError(f"unknown behaviour {behaviour!r}; known: {', '.join(BEHAVIOURS)}")
            fields = dict(WITHOUT_EXPLORATION.get((family, preset), fields))
            scripted = {"behaviour_policy": "scripted", "behaviour_on_task": BEHAVIOURS[behaviour]}
            fields |= {**scripted, "exploration_transitions": 0}
        return cls(**fields)

    def for_pearl(self) -> SMACConfig:
        """Return the configuration of the PEARL agent that makes the data.

        It has `behaviour_changes`; observation scaling, `explain_context` and learning-rate decay are off unless set
        there.

        Raises:
            ValueError: `behaviour_changes` names an unknown field, or a value is out of its range.
        """
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := sorted(set(self.behaviour_changes) - known):
            raise ValueError(f"behaviour_changes names unknown fields {unknown}; known fields: {sorted(known)}")
        as_the_authors_had_it = {"observation_scaling": False, "explain_context": False, "learning_rate_decay": 1.0}
        return dataclasses.replace(self, **{**as_the_authors_had_it, **self.behaviour_changes, "behaviour_changes": {}})

    def torch_device(self) -> torch.device:
        """Return the device that `device` names on this machine.

        Raises:
            ValueError: this machine has no such device.
        """
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        number = int(self.device.partition(":")[2] or 0)
        if self.device.startswith("cuda") and number >= torch.cuda.device_count():
            here = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
            raise ValueError(f"device={self.device!r} is not here: PyTorch {torch.__version__} sees {here}")
        return torch.device(self.device)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as JSON can store them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> SMACConfig:
        """Build a configuration from the output of `to_dict`.

        Raises:
            ValueError: a field is unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"unknown configuration fields {unknown}; known fields: {sorted(known)}")
        return cls(**fields)
