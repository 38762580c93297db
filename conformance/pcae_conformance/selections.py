"""Compare the tokens that a backend kept with the reference. Rounding may decide between near-equal scores.

Letters: B images, N tokens, k kept, L blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats
from pcae_core.config import ModelConfig
from pcae_numpy import model, ops

Ids = NDArray[np.int64]


def check_near_ties(what: str, ids: Ids, scores: Floats, tolerance: ArrayLike) -> None:
    """Check that ids (B, k) are those of the lowest scores (B, N). Scores within twice the tolerance may change places.

    Raises:
        Mismatch: a token stayed whose score is clearly above the k-th lowest, or one was dropped that is clearly below.
    """
    margin = 2.0 * np.broadcast_to(np.asarray(tolerance, dtype=np.float64), (len(scores), 1))[:, 0]
    for i, (row, kept) in enumerate(zip(scores, ids, strict=True)):
        last = np.sort(row)[len(kept) - 1]
        stayed = np.isin(np.arange(len(row)), kept)
        wrong = (stayed & (row > last + margin[i])) | (~stayed & (row < last - margin[i]))
        require(
            not wrong.any(),
            f"{what}: in row {i} tokens {np.flatnonzero(wrong).tolist()} are on the wrong side: kept "
            f"{kept.tolist()} of scores {row.tolist()}, of which {last} is the last to stay, margin {margin[i]:.3g}",
        )


def stages(
    config: ModelConfig,
    parameters: model.Parameters,
    images: Floats,
    ids: Ids,
    keep: float,
    with_prefix: bool,
    drop_path: NDArray[np.float32] | None = None,
) -> list[model.Stage]:
    """The stages of the reference's encoder when it starts from the patches at ids (B, n).

    Args:
        drop_path: factors of the residual branches (L, 2, B), or None.
    """
    tokens = model.embed_patches(config, parameters, ops.patchify(images, config.patch_size), ids)
    if with_prefix:
        tokens = model.prepend_prefix(config, parameters, tokens)
    scales = np.ones((config.depth, 2, len(tokens))) if drop_path is None else drop_path.astype(np.float64)
    num_prefix = config.num_prefix_tokens if with_prefix else 0
    return list(model.reduced_blocks(config, parameters, tokens, ids, keep, num_prefix, scales).stages.values())


def near_ties(found: list[model.Stage], margin: float) -> bool:
    """Whether, at some stage, a score that stays and a score that is dropped lie within `margin` of each other."""
    return any(bool((stage.gaps() <= margin).any()) for stage in found)


def comparable_rows(what: str, ids: Ids, found: list[model.Stage], margin: float) -> NDArray[np.bool_]:
    """Whether each image (B,) can be compared with the reference: its scores nearly tie at no stage.

    Up to the first stage at which the reference's scores tie to within `margin`, the patches that the backend kept, ids
    (B, k), must be among those that the reference kept. Later stages depend on rounding.

    Raises:
        Mismatch: the backend kept another patch although no scores nearly tie.
    """
    clear = np.ones(len(ids), dtype=bool)
    for i, row in enumerate(ids):
        known = bool(np.isin(row, found[0].ids[i]).all())
        require(known, f"{what}: image {i} kept {row.tolist()}, not all of which are among {found[0].ids[i].tolist()}")
        for number, stage in enumerate(found):
            clear[i] &= bool(stage.gaps()[i] > margin)
            require(
                not clear[i] or bool(np.isin(row, stage.kept_ids[i]).all()),
                f"{what}: image {i} kept {row.tolist()}, the reference {found[-1].kept_ids[i].tolist()}; at stage "
                f"{number} it keeps {stage.kept_ids[i].tolist()} of {stage.ids[i].tolist()} by the scores "
                f"{stage.scores[i].tolist()}, none of which tie within {margin:.3g}",
            )
    return clear
