"""The stages in a graph: names of their values, and how to read the values after a run.

The names are part of an exported model. They make its scores and choices visible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import ModelConfig
from pcae_core.contract import StageOutput


def scores_name(stage: int) -> str:
    """Name of the scores (B, n) of the patches that enter the 0-based stage."""
    return f"stage.{stage}.scores"


def kept_ids_name(stage: int) -> str:
    """Name of the positions (B, k) of the patches that stay."""
    return f"stage.{stage}.kept_ids"


def names(config: ModelConfig, keep: float | None) -> list[str]:
    """Names of the values of a graph's stages, in order.

    Args:
        keep: ratio of the graph, which leaves out stages that keep all patches; None if it is an input.
    """
    found, count = [], config.num_patches
    for stage, kept in enumerate(config.kept_after_block(count, 1.0 if keep is None else keep).values()):
        if keep is None or kept != count:
            found += [scores_name(stage), kept_ids_name(stage)]
        count = kept
    return found


def read(config: ModelConfig, values: Mapping[str, NDArray[Any]], batch: int) -> tuple[StageOutput, ...]:
    """The stages whose scores are in `values`, by name. A stage without kept ids keeps all patches."""
    ids = np.tile(np.arange(config.num_patches), (batch, 1))
    found = []
    for stage, block in enumerate(config.kept_after_block(config.num_patches)):
        if scores_name(stage) in values:
            kept = values.get(kept_ids_name(stage), ids)
            found.append(StageOutput(block, ids, values[scores_name(stage)], kept))
            ids = kept
    return tuple(found)
