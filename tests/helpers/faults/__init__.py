"""Deliberately broken backends, one fault each, that the conformance suite must catch."""

from __future__ import annotations

from faults import finetuning, grid, half, models, operations, stages, training
from faults.mutation import Fault

FAULTS: tuple[Fault, ...] = (
    *operations.FAULTS, *grid.FAULTS, *models.FAULTS, *stages.FAULTS, *training.FAULTS, *finetuning.FAULTS,
    *half.FAULTS,
)  # fmt: skip
