"""Meta behaviour cloning."""

from __future__ import annotations

from torch import Tensor

from smac_lab.actor_critic import log_prob, weighted_imitation
from smac_lab.agent import SMAC
from smac_lab.batch import Batch, Info
from smac_lab.engine.learner import Objective


class Cloning(SMAC):
    """Meta behaviour cloning: encoder and decoder as SMAC's, and an actor that imitates all data, given z.

    The loss is -E[log pi(a|s, z)] plus reward error and KL, with SMAC's numbers; `weight_loss=False` in the authors'
    code. Critics do not learn, and there is no online phase.
    """

    def cloning_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Reward error + KL (encoder, decoder) - E[log pi(a|s, z)] (actor, with z detached)."""
        posterior, z = self.infer(batch)
        reward, info = self.reward_loss(self, batch, z, posterior)
        mean, log_std = self.actor(batch.observations, z.detach())
        log_probs = log_prob(mean, log_std, batch.actions, self.config.max_action)
        loss = weighted_imitation(log_probs, log_probs.new_ones(()))
        return reward + loss, {**info, "cloning_loss": loss}

    @property
    def objectives(self) -> dict[str, Objective]:
        """One phase, in which actor, encoder and decoder learn."""
        return {"offline": Objective("offline", self.cloning_loss, ("actor", "encoder", "reward_decoder"))}
