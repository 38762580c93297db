"""The stages in a graph: what their values are called, and what a run says of them.

The names are part of an exported model: with them its scores and choices can be watched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import ModelConfig
from pcae_core.contract import StageOutput


def scores_name(stage: int) -> str:
    """Of the scores (B, n) of the patches that enter stage `stage`, 0-based."""
    return f"stage.{stage}.scores"


def kept_ids_name(stage: int) -> str:
    """Of the positions (B, k) of the patches that stay."""
    return f"stage.{stage}.kept_ids"


def names(config: ModelConfig, keep: float | None) -> list[str]:
    """The values of a graph's stages, in order.

    Args:
        keep: the graph's ratio, where it leaves out the stages at which all patches stay; None when it is an input.
    """
    found, count = [], config.num_patches
    for stage, kept in enumerate(config.kept_after_block(count, 1.0 if keep is None else keep).values()):
        if keep is None or kept != count:
            found += [scores_name(stage), kept_ids_name(stage)]
        count = kept
    return found


def read(config: ModelConfig, values: Mapping[str, NDArray[Any]], batch: int) -> tuple[StageOutput, ...]:
    """The stages whose scores are among the values, by name; without kept ids all patches stay."""
    ids = np.tile(np.arange(config.num_patches), (batch, 1))
    found = []
    for stage, block in enumerate(config.kept_after_block(config.num_patches)):
        if scores_name(stage) in values:
            kept = values.get(kept_ids_name(stage), ids)
            found.append(StageOutput(block, ids, values[scores_name(stage)], kept))
            ids = kept
    return tuple(found)
