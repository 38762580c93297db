"""Token reduction: checks of the keep ratio, and of the choice that a stage made, in NumPy arrays.

Letters: B images, n patches that enter a stage, k patches that stay.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pcae_core.contract.constants import Floats
from pcae_core.contract.outputs import StageOutput
from pcae_core.errors import ConfigError


def check_keep(keep: float, name: str = "keep") -> None:
    """Raise ConfigError unless `keep` is in (0, 1]. The message calls it `name`."""
    if not 0.0 < keep <= 1.0:
        raise ConfigError(f"{name} must be in (0, 1], not {keep}")


def stays(stage: StageOutput) -> NDArray[np.bool_]:
    """Whether each patch that entered the stage stays (B, n)."""
    among: NDArray[np.bool_] = (stage.ids[:, :, None] == stage.kept_ids[:, None, :]).any(axis=2)
    return among


def fits(stage: StageOutput, entered: NDArray[np.int64]) -> bool:
    """Whether a stage starts from the patches `entered` (B, n), scores each, and keeps some of them, none twice."""
    kept = stage.kept_ids
    shapes = stage.ids.shape == stage.scores.shape == entered.shape and kept.shape[:1] == entered.shape[:1]
    if not shapes or kept.ndim != 2 or kept.shape[1] > entered.shape[1]:
        return False
    return np.array_equal(stage.ids, entered) and bool((stays(stage).sum(axis=1) == kept.shape[1]).all())


def misfit(stages: Iterable[StageOutput], batch: int, num_patches: int) -> StageOutput | None:
    """The first of an encoder's stages that does not fit; None if all fit (`fits`).

    The first stage must start from all patches of the B images, each other one from the patches that the one before
    kept.
    """
    entered = np.tile(np.arange(num_patches), (batch, 1))
    for stage in stages:
        if not fits(stage, entered):
            return stage
        entered = stage.kept_ids
    return None


def excess(stage: StageOutput) -> Floats:
    """Highest score among the patches that stay, minus the lowest among those that are dropped (B,).

    It is not positive for a correct choice: minus infinity when all patches stay, NaN when a score is NaN.
    """
    kept = stays(stage)
    highest = np.where(kept, stage.scores, -np.inf).max(axis=1)
    return np.asarray(highest - np.where(kept, np.inf, stage.scores).min(axis=1))


class Reduction:
    """Keep ratio of an encoder, 1 at first. `encoder.reduction.keep = 0.7` takes effect at the next forward pass."""

    def __init__(self) -> None:
        self.keep = 1.0

    @property
    def keep(self) -> float:
        """Share of the patch tokens that each stage keeps, in (0, 1].

        Raises:
            ConfigError: the new value is out of range.
        """
        return self._keep

    @keep.setter
    def keep(self, keep: float) -> None:
        check_keep(keep, "reduction.keep")
        self._keep = float(keep)
