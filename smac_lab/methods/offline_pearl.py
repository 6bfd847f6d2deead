"""Offline PEARL: PEARL's losses on static data."""

from __future__ import annotations

from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.batch import Batch, Info
from smac_lab.engine.learner import Objective
from smac_lab.methods.pearl import pearl_loss
from smac_lab.parts import ALL_PARTS


class OfflinePEARL(SMAC):
    """PEARL (Rakelly et al., ICML 2019) on static data alone.

    Nothing keeps the policy near the data. Parts, data and numbers are those of SMAC's offline phase.
    """

    def offline_pearl_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Compute `pearl_loss` at the temperature `behaviour_temperature`."""
        return pearl_loss(self, batch, self.config.behaviour_temperature)

    @property
    def objectives(self) -> dict[str, Objective]:
        """One phase, in which all parts learn."""
        return {"offline": Objective("offline", self.offline_pearl_loss, ALL_PARTS)}
