"""Presets: for each family and machine, the numbers that differ from the paper's.

`SMACConfig` has the meanings and the paper's numbers. `smac-lab config FAMILY` prints all.
"""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]
# Scripted behaviour data: share of episodes that pursue their own task.
BEHAVIOURS = {"expert": 1.0, "narrow": 0.5, "broad": 0.0}

# Not the authors' schedules, in every `cpu` preset; see docs/paper-and-code.md.
SCHEDULES: Fields = {
    "initial_weights": "pytorch",
    "optimizer_moments": "fresh",
    "collecting_posterior": "iteration",
    "z_resampling": "episode",
}

# -- cpu: two cores, minutes to an hour ----------------------------------------------------------------------
# The plane in minutes, with one data set for encoder, actor and critics. Where the data goes betrays the task.
POINT_NARROW: Fields = {
    **SCHEDULES,
    "behaviour_policy": "scripted",
    "behaviour_on_task": 0.5,
    "encoder_hidden": (64, 64),  # small networks are enough
    "actor_hidden": (64, 64),
    "critic_hidden": (64, 64),
    "discount": 0.9,  # episodes of 20 steps
    "kl_weight": 0.003,  # rewards within 1 of each other: at 0.1 the posterior collapses
    "awac_lambda": 0.5,  # of the advantages' order; at 100 the offline phase would be cloning
    "learning_rate": 1e-3,  # small networks
    "offline_steps": 4_000,
    "meta_batch": 16,
    "batch_size": 32,
    "online_iterations": 20,
    "online_updates": 250,
    "online_meta_batch": 16,
    "online_batch_size": 32,
    "online_tasks": 100,  # all of them
    "prior_episodes": 4,
    "posterior_episodes": 0,  # self-collected context is then exploration alone, as at meta-test
    "online_encoder": "self-labelled",  # the paper's encoder reads where the data goes, and is lost where it does not
    "online_context": "episodes",  # what meta-test will show
    "z_resampling": "step",  # the authors' own
}

# The plane in minutes. Transitions go anywhere: from near-random ones the decoder would have to extrapolate. PEARL
# explores for half a minute.
POINT: Fields = {
    **SCHEDULES,
    "behaviour_policy": "scripted",
    "exploration_transitions": 200,
    "behaviour_iterations": 12,
    "behaviour_updates": 150,
    "behaviour_initial_episodes": 5,
    "behaviour_changes": {"kl_weight": 0.1, "prior_episodes": 10, "posterior_episodes": 1},
    "encoder_hidden": (64, 64),
    "actor_hidden": (64, 64),
    "critic_hidden": (64, 64),
    "discount": 0.9,
    "kl_weight": 0.01,
    "awac_lambda": 0.5,
    "learning_rate": 1e-3,
    "max_action": 0.95,  # the script's actions are saturated in a third of all dimensions
    "offline_steps": 3_000,
    "meta_batch": 16,
    "batch_size": 32,
    "online_iterations": 20,
    "online_updates": 250,
    "online_meta_batch": 16,
    "online_batch_size": 32,
    "online_tasks": 100,
    "prior_episodes": 4,
    "posterior_episodes": 0,
    "online_context": "episodes",
}

# Near-random transitions and exploration by PEARL, as the paper's, with numbers for a short run: values settle
# (discount, rates), z of the prior is z of a task (KL weight), entropy makes way for speed (temperature).
CHEETAH: Fields = {
    **SCHEDULES,
    "n_test_tasks": 30,
    "behaviour_policy": "pearl",
    "behaviour_part": "first",
    "exploration_transitions": 400,
    "behaviour_iterations": 40,
    "behaviour_updates": 450,
    "behaviour_initial_episodes": 6,  # as many as behaviour_transitions
    "behaviour_temperature": 0.3,
    "behaviour_last_temperature": 0.03,
    "behaviour_changes": {
        "discount": 0.98,
        "learning_rate": 0.001,
        "tau": 0.02,
        "kl_weight": 1.1,
        "online_meta_batch": 8,
        "online_batch_size": 64,
    },
    "encoder_hidden": (200, 200),  # narrower networks: two cores
    "actor_hidden": (256, 256),
    "critic_hidden": (256, 256),
    "kl_weight": 0.03,
    "awac_lambda": 10.0,
    "learning_rate": 5e-4,
    "offline_steps": 24_000,  # the decoder must label running that its data hardly shows
    "online_iterations": 40,
    "online_updates": 500,
    "online_batch_size": 128,
    "online_tasks": 40,
    "prior_episodes": 2,
    "posterior_episodes": 1,  # mostly exploration, which the encoder reads
    "online_context": "episodes",
}

# The body is the task. Rewards tell of the dynamics only by how far v_x differs from what is observed, 0.002 of squared
# error.
WALKER_HOPPER: Fields = {
    **SCHEDULES,
    "n_train_tasks": 50,  # well below an hour in all on two cores
    "behaviour_policy": "pearl",
    "exploration_transitions": 400,
    "behaviour_iterations": 25,
    "behaviour_updates": 400,
    "behaviour_initial_episodes": 4,
    "encoder_hidden": (128, 128),  # likewise
    "actor_hidden": (128, 128),
    "critic_hidden": (128, 128),
    "kl_weight": 1e-4,  # at 0.03 the posterior collapses (KL 0.001 nats)
    "awac_lambda": 10.0,
    "learning_rate": 5e-4,
    "offline_steps": 6_000,
    "online_iterations": 20,
    "online_updates": 400,
    "online_batch_size": 128,
    "online_tasks": 20,
    "prior_episodes": 2,
    "posterior_episodes": 1,
    "online_encoder": "self-labelled",
    "online_context": "episodes",
    "repeats": 2,
}

# Falls are short and slow, so that directions change rewards little. Physics take long here.
HUMANOID: Fields = {
    **SCHEDULES,
    "n_train_tasks": 50,
    "behaviour_policy": "pearl",
    "exploration_transitions": 400,
    "behaviour_iterations": 25,
    "behaviour_updates": 400,
    "behaviour_initial_episodes": 4,
    "encoder_hidden": (128, 128),
    "actor_hidden": (128, 128),
    "critic_hidden": (128, 128),
    "kl_weight": 0.003,
    "awac_lambda": 10.0,
    "learning_rate": 5e-4,
    "offline_steps": 6_000,
    "online_iterations": 20,
    "online_updates": 400,
    "online_batch_size": 128,
    "online_tasks": 20,
    "prior_episodes": 2,
    "posterior_episodes": 1,
    "online_encoder": "self-labelled",
    "online_context": "episodes",
    "repeats": 1,
}

# A scripted walk replaces PEARL. In its exploration it walks anywhere, whatever the task.
ANT: Fields = {
    **SCHEDULES,
    "n_train_tasks": 50,
    "behaviour_policy": "scripted",
    "exploration_transitions": 400,
    "exploration_policy": "scripted",
    "behaviour_on_task": 0.8,
    "behaviour_noise": 0.2,  # with more the ant falls
    "encoder_hidden": (128, 128),
    "actor_hidden": (256, 256),  # a smaller actor does not get the walk within the offline phase
    "critic_hidden": (128, 128),
    "discount": 0.95,  # a second: values settle within the phase
    "kl_weight": 0.01,
    "awac_lambda": 10.0,
    "online_q_weight": 0.1,  # at a greater weight the actor leaves the data before values have settled
    "learning_rate": 1e-3,  # nor does one that learns slower
    "offline_steps": 8_000,
    "online_iterations": 20,
    "online_updates": 400,
    "online_batch_size": 128,
    "online_tasks": 20,
    "prior_episodes": 2,
    "posterior_episodes": 1,
    "online_encoder": "self-labelled",
    "online_context": "episodes",
    "repeats": 2,
}

# The script pursues random aims of each task's scene, whatever the task's own. Tasks count for more than episodes of
# each.
SAWYER: Fields = {
    **SCHEDULES,
    "n_train_tasks": 240,
    "n_test_tasks": 60,
    "behaviour_transitions": 7_500,
    "behaviour_policy": "scripted",
    "behaviour_noise": 0.1,
    "z_dim": 8,
    "decoder_hidden": (128, 128),
    "actor_hidden": (256, 256, 256),
    "critic_hidden": (256, 256, 256),
    "discount": 0.97,  # values settle within the phase
    "reward_scale": 1.0,  # values of a size that critics reach early
    "kl_weight": 0.003,  # rewards are mostly -1: at 0.03 telling tasks apart costs more than it brings
    "awac_lambda": 0.8,  # of the advantages' size
    "learning_rate": 1e-3,
    "learning_rate_decay": 0.1,  # few transitions carry most of the weight: at a constant rate the actor never settles
    "tau": 0.02,
    "observation_scaling": True,  # a centimetre decides
    "max_action": 0.95,  # the script saturates its actions
    "offline_steps": 60_000,
    "meta_batch": 16,  # better than 8 with as many transitions in all
    "batch_size": 64,
    "context_size": 128,
    "online_iterations": 10,
    "online_updates": 1_000,
    "online_meta_batch": 16,
    "online_batch_size": 64,
    "online_tasks": 120,  # half of them
    "prior_episodes": 8,
    "online_context": "episodes",
    "z_resampling": 25,  # three z an episode: an aim shows when it is pursued
    "exploration_episodes": 8,  # and each is pursued by chance
    "repeats": 1,
}

# -- gpu: the recipe of `cpu`, four seeds at once on one H100-class card, about three minutes per arm -----------
# Reckoned from 24,000 updates of five seeds in 33 s on such a card (docs/performance.md), and not yet run.
GPU: Fields = {
    "encoder_hidden": (200, 200, 200),  # the paper's networks
    "actor_hidden": (300, 300, 300),
    "critic_hidden": (300, 300, 300),
    "offline_steps": 100_000,
    "online_iterations": 50,  # collecting and measuring take the third minute
    "online_updates": 2_000,
    "repeats": 4,  # the paper's: measuring is cheap there
}

# -- smoke: seconds, to show that everything runs ------------------------------------------------------------
SMOKE: Fields = {
    "encoder_hidden": (64, 64),
    "actor_hidden": (64, 64),
    "critic_hidden": (64, 64),
    "n_train_tasks": 6,
    "n_test_tasks": 3,
    "behaviour_transitions": 400,
    "offline_steps": 40,
    "meta_batch": 4,
    "batch_size": 16,
    "context_size": 16,
    "online_iterations": 2,
    "online_updates": 10,
    "online_meta_batch": 4,
    "online_batch_size": 16,
    "online_tasks": 3,
    "prior_episodes": 1,
    "posterior_episodes": 1,
    "label_context_size": 32,
    "repeats": 2,
}
SCRIPT_SMOKE: Fields = {**SMOKE, "behaviour_policy": "scripted"}
PEARL_SMOKE: Fields = {
    **SMOKE,
    "behaviour_policy": "pearl",
    "behaviour_iterations": 2,
    "behaviour_updates": 10,
    "behaviour_initial_episodes": 2,
}

# -- paper: what is known of each experiment; the point robots are not the paper's ---------------------------
POINT_PAPER: Fields = {"behaviour_policy": "scripted", "behaviour_on_task": BEHAVIOURS["narrow"]}
# Transitions from before PEARL's first update; for the encoder, the last exploration of each task in a run of 50
# iterations (examples/smac/cheetah.py in the authors' code).
CHEETAH_PAPER: Fields = {
    "behaviour_policy": "pearl",
    "behaviour_part": "first",
    "behaviour_iterations": 50,
    "exploration_transitions": 400,
    "n_test_tasks": 30,
    "online_iterations": 51,
}
BODY_PAPER: Fields = {"behaviour_policy": "pearl"}
PARAMS_PAPER: Fields = {"behaviour_policy": "pearl", "behaviour_iterations": 40}
SAWYER_PAPER: Fields = {
    "behaviour_policy": "scripted",
    "behaviour_noise": 0.1,
    "n_train_tasks": 50,
    "n_test_tasks": 10,
    "behaviour_transitions": 300_000,
}

NARROW_SMOKE: Fields = {**SCRIPT_SMOKE, "behaviour_on_task": BEHAVIOURS["narrow"]}
CHEETAH_SMOKE: Fields = {**PEARL_SMOKE, "behaviour_part": "first", "exploration_transitions": 400}
SAWYER_SMOKE: Fields = {**SCRIPT_SMOKE, "behaviour_noise": 0.1, "behaviour_transitions": 450}
PRESETS: dict[str, dict[str, Fields]] = {
    "point-robot": {"smoke": NARROW_SMOKE, "cpu": POINT, "paper": POINT_PAPER},
    "point-direction": {"smoke": NARROW_SMOKE, "cpu": POINT_NARROW, "paper": POINT_PAPER},
    "sparse-point-robot": {"smoke": NARROW_SMOKE, "cpu": POINT_NARROW, "paper": POINT_PAPER},
    "cheetah-vel": {"smoke": CHEETAH_SMOKE, "cpu": CHEETAH, "paper": CHEETAH_PAPER},
    "ant-dir": {"smoke": PEARL_SMOKE, "cpu": ANT, "paper": BODY_PAPER},
    "humanoid-dir": {"smoke": PEARL_SMOKE, "cpu": HUMANOID, "paper": BODY_PAPER},
    "walker-params": {"smoke": PEARL_SMOKE, "cpu": WALKER_HOPPER, "paper": PARAMS_PAPER},
    "hopper-params": {"smoke": PEARL_SMOKE, "cpu": WALKER_HOPPER, "paper": PARAMS_PAPER},
    "sawyer": {"smoke": SAWYER_SMOKE, "cpu": SAWYER, "paper": SAWYER_PAPER},
}
for presets in PRESETS.values():
    presets["gpu"] = {**presets["cpu"], **GPU}
# What `SMACConfig.preset(..., behaviour=...)` starts from instead of a preset for exploration data.
WITHOUT_EXPLORATION: dict[tuple[str, str], Fields] = {
    ("point-robot", "cpu"): POINT_NARROW,
    ("point-robot", "gpu"): {**POINT_NARROW, **GPU},
}
