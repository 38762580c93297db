"""Which tokens stay at each stage of an encoder, in any backend, and how similar each was to the mean.

Letters: B images, C channels, H = W pixels, N patches, n patches that enter a stage, k patches that stay, L blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import ModelConfig
from pcae_core.contract import Array, Backend, Floats
from pcae_core.errors import BackendError
from pcae_core.parameters import encoder_shapes
from pcae_numpy import model, ops

Ids = NDArray[np.int64]

SCORE_TOLERANCE = 1e-4
"""A token that stays may score this much more than one that goes: backends compute in float32."""


@dataclass(frozen=True)
class Stage:
    """One reduction.

    Attributes:
        block: after which block, 0-based.
        ids: patches that entered (B, n), ascending positions 0..N-1.
        kept: patches that stayed (B, k), ascending.
        scores: similarity of those that entered to their mean (B, n).
    """

    block: int
    ids: Ids
    kept: Ids
    scores: Floats

    def excess(self) -> Floats:
        """By how much the highest score that stays exceeds the lowest that goes (B,); negative as it should be."""
        stays = np.zeros(self.ids.shape, dtype=bool)
        np.put_along_axis(stays, places(self.kept, self.ids), True, axis=1)
        highest = np.where(stays, self.scores, -np.inf).max(axis=1)
        return np.asarray(highest - np.where(stays, np.inf, self.scores).min(axis=1))


def places(ids: Ids, among: Ids) -> Ids:
    """Where ids (B, k) are in the ascending ids `among` (B, n): (B, k).

    Raises:
        BackendError: some are not there, so what kept them chooses differently each time.
    """
    found: Ids = np.stack([np.searchsorted(row, wanted) for row, wanted in zip(among, ids, strict=True)])
    if not np.array_equal(np.take_along_axis(among, np.minimum(found, among.shape[1] - 1), axis=1), ids):
        raise BackendError(
            "a later stage kept tokens that an earlier one had dropped: the backend is not deterministic"
        )
    return found


def encoder_stages(
    backend: Backend, config: ModelConfig, parameters: Mapping[str, Array], images: Floats, keep: float
) -> list[Stage]:
    """What `backend.encode` drops at each stage.

    The kept ids are the backend's own. The scores are the NumPy reference's, of the very tokens that the backend had
    left, since backends give no tokens from within the encoder.

    Args:
        parameters: of the encoder, by canonical name.
        images: normalised (B, C, H, W).
        keep: share of the patch tokens that each stage keeps.
    """
    return _scored(config, parameters, images, kept_ids(backend, config, parameters, images, keep))


def kept_ids(
    backend: Backend, config: ModelConfig, parameters: Mapping[str, Array], images: Floats, keep: float
) -> list[Ids]:
    """Patches (B, k) that are left after each stage; arguments as `encoder_stages`.

    An encoder cut off after `i` stages is an encoder of `i` stages, so `encode` tells of each of them exactly.
    """
    arrays = {name: backend.asarray(parameters[name]) for name in encoder_shapes(config)}
    found = []
    for count in range(1, config.reduction.num_stages + 1):
        part = _first_stages(config, count)
        out = backend.encode(part, {name: arrays[name] for name in encoder_shapes(part)}, images, keep)
        found.append(backend.to_numpy(out.kept_ids).astype(np.int64))
    return found


def _first_stages(config: ModelConfig, count: int) -> ModelConfig:
    """The same encoder without what follows its first `count` stages; with all stages, the encoder itself."""
    total = config.reduction.num_stages
    if count == total:
        return config
    reduction = config.reduction.model_copy(update={"num_stages": count})
    return config.model_copy(update={"depth": config.depth // total * count, "reduction": reduction})


def _scored(config: ModelConfig, parameters: Mapping[str, Array], images: Floats, kept: list[Ids]) -> list[Stage]:
    p: dict[str, Any] = {name: np.asarray(parameters[name], dtype=np.float64) for name in encoder_shapes(config)}
    ids: Ids = np.tile(np.arange(config.num_patches), (len(images), 1))
    patches = ops.patchify(np.asarray(images, dtype=np.float64), config.patch_size)
    tokens = model.prepend_cls(p, model.embed_patches(p, patches, ids))
    blocks = list(config.kept_after_block(config.num_patches))
    found: list[Stage] = []
    for i in range(blocks[-1] + 1):
        tokens = model.block(
            p, f"blocks.{i}", tokens, config.num_heads, np.ones((2, len(tokens))), config.layer_norm_eps
        )
        if i in blocks:
            stay = kept[len(found)]
            found.append(Stage(i, ids, stay, ops.similarity_scores(tokens[:, 1:], config.reduction.center)))
            left = ops.gather_tokens(tokens[:, 1:], places(stay, ids))
            tokens, ids = np.concatenate([tokens[:, :1], left], axis=1), stay
    return found
