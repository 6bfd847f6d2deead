"""smac_lab: offline meta-reinforcement learning with online self-supervision, to look at and to change."""

from smac_lab import tasks
from smac_lab.adaptation import Evaluation, evaluate
from smac_lab.agent import SMAC
from smac_lab.arms import ARMS, Arm
from smac_lab.batch import Batch, Noise
from smac_lab.config import SMACConfig
from smac_lab.data import TransitionBuffer, rollout
from smac_lab.data.minari import from_minari, minari_tasks, to_minari
from smac_lab.data.relabel import relabelled, shared_between_tasks
from smac_lab.data.starter import starter_data
from smac_lab.data.storage import StorageError
from smac_lab.encoder import Gaussian
from smac_lab.engine.learner import Objective
from smac_lab.methods.pearl import train_pearl
from smac_lab.nets import MLP, Standardise
from smac_lab.runs.behaviour import collect_behaviour
from smac_lab.runs.checkpoint import Run, load, save
from smac_lab.shift import Shift, measure_shift
from smac_lab.tasks import TaskFamily, Tasks, make_family
from smac_lab.training import train_offline, train_self_supervised
from smac_lab.version import __version__ as __version__

__all__ = [
    "ARMS",
    "MLP",
    "SMAC",
    "Arm",
    "Batch",
    "Evaluation",
    "Gaussian",
    "Noise",
    "Objective",
    "Run",
    "SMACConfig",
    "Shift",
    "Standardise",
    "StorageError",
    "TaskFamily",
    "Tasks",
    "TransitionBuffer",
    "collect_behaviour",
    "evaluate",
    "from_minari",
    "load",
    "make_family",
    "measure_shift",
    "minari_tasks",
    "relabelled",
    "rollout",
    "save",
    "shared_between_tasks",
    "starter_data",
    "tasks",
    "to_minari",
    "train_offline",
    "train_pearl",
    "train_self_supervised",
]

tasks.register_envs()
