"""Stages of an encoder in any backend: the tokens that stay, and the score of each.

Letters: B images, C channels, H = W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import ModelConfig
from pcae_core.contract import Array, Backend, Floats, StageOutput
from pcae_core.errors import BackendError
from pcae_core.parameters import encoder_shapes
from pcae_core.reduction import misfit

Ids = NDArray[np.int64]

SCORE_TOLERANCE = 1e-4
"""A token that stays may score this much more than a dropped one: backends compute in float32."""


def encoder_stages(
    backend: Backend, config: ModelConfig, parameters: Mapping[str, Array], images: Floats, keep: float
) -> list[StageOutput]:
    """The stages of `backend.encode_stages`, as NumPy arrays.

    Args:
        parameters: parameters of the encoder, by canonical name.
        images: normalised (B, C, H, W).
        keep: share of the patch tokens that each stage keeps.

    Raises:
        BackendError: a stage keeps tokens that did not enter it, or starts from other tokens than the one before kept.
    """
    own = {name: parameters[name] for name in encoder_shapes(config)}
    found = []
    for stage in backend.encode_stages(config, own, images, keep).stages:
        ids, kept = (backend.to_numpy(x).astype(np.int64) for x in (stage.ids, stage.kept_ids))
        found.append(StageOutput(stage.block, ids, backend.to_numpy(stage.scores), kept))
    wrong = misfit(found, len(images), config.num_patches)
    if wrong is not None:
        raise BackendError(
            f"after block {wrong.block + 1} the backend {backend.name!r} keeps tokens that an earlier stage had "
            "dropped; check the backend with pcae conformance"
        )
    return found
