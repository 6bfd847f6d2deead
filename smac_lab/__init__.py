"""smac_lab: offline meta-reinforcement learning with online self-supervision, to look at and to change.

The public names are listed here, by concept. Names in the subpackages (`smac_lab.figures`, `smac_lab.runs`, ...) may
move.
"""

from smac_lab import tasks
from smac_lab.actor_critic import Actor, Critics, awac_loss, critic_loss, look, q_loss
from smac_lab.adaptation import Evaluation, evaluate
from smac_lab.agent import SMAC
from smac_lab.arms import ARMS, Arm
from smac_lab.batch import Batch, Noise
from smac_lab.config import SMACConfig
from smac_lab.data import TransitionBuffer
from smac_lab.data.minari import from_minari, minari_tasks, to_minari
from smac_lab.data.relabel import relabelled, shared_between_tasks
from smac_lab.data.starter import starter_data
from smac_lab.data.storage import StorageError
from smac_lab.encoder import ContextEncoder, Gaussian
from smac_lab.engine.learner import Objective
from smac_lab.engine.rollout import rollout
from smac_lab.methods import METHODS
from smac_lab.methods.borel import BOReL, train_borel
from smac_lab.methods.cloning import Cloning
from smac_lab.methods.macaw import MACAW, train_macaw
from smac_lab.methods.offline_pearl import OfflinePEARL
from smac_lab.methods.pearl import train_pearl
from smac_lab.nets import MLP, Standardise
from smac_lab.reward_model import RewardDecoder, reward_loss
from smac_lab.runs.behaviour import collect_behaviour
from smac_lab.runs.checkpoint import Run, load, save
from smac_lab.sampling import sample_offline, sample_self_supervised
from smac_lab.shift import Shift, measure_shift
from smac_lab.tasks import TaskFamily, Tasks, make_family
from smac_lab.training import train_offline, train_self_supervised
from smac_lab.version import __version__ as __version__

__all__ = [
    # tasks
    "TaskFamily",
    "Tasks",
    "make_family",
    "tasks",
    # data
    "TransitionBuffer",
    "collect_behaviour",
    "rollout",
    "starter_data",
    "sample_offline",
    "sample_self_supervised",
    "from_minari",
    "minari_tasks",
    "to_minari",
    "relabelled",
    "shared_between_tasks",
    # the parts and their losses
    "Actor",
    "Critics",
    "ContextEncoder",
    "RewardDecoder",
    "Gaussian",
    "MLP",
    "Standardise",
    "awac_loss",
    "critic_loss",
    "q_loss",
    "reward_loss",
    "look",
    # the agent
    "SMAC",
    "SMACConfig",
    "Batch",
    "Noise",
    "Objective",
    # the phases
    "train_offline",
    "train_self_supervised",
    "ARMS",
    "Arm",
    "train_pearl",
    # prior work
    "METHODS",
    "MACAW",
    "train_macaw",
    "BOReL",
    "train_borel",
    "Cloning",
    "OfflinePEARL",
    # measurements
    "evaluate",
    "Evaluation",
    "measure_shift",
    "Shift",
    # checkpoints
    "save",
    "load",
    "Run",
    "StorageError",
]

tasks.register_envs()
