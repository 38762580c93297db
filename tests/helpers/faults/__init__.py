"""Deliberately broken backends, one fault each, that the conformance suite must catch.

One module for each module of `pcae_conformance.checks`: the faults that its checks must catch.
"""

from __future__ import annotations

from faults import (
    arrays,
    contract,
    ema,
    finetuning,
    gradients,
    grid,
    half,
    layers,
    masks,
    model,
    reduction,
    schedule,
    scores,
    selection,
    stages,
    standardize_loss,
    training,
    training_state,
)
from faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *contract.FAULTS,
    *arrays.FAULTS,
    *scores.FAULTS,
    *selection.FAULTS,
    *reduction.FAULTS,
    *grid.FAULTS,
    *schedule.FAULTS,
    *standardize_loss.FAULTS,
    *ema.FAULTS,
    *masks.FAULTS,
    *model.FAULTS,
    *layers.FAULTS,
    *stages.FAULTS,
    *gradients.FAULTS,
    *training.FAULTS,
    *training_state.FAULTS,
    *finetuning.FAULTS,
    *half.FAULTS,
)
