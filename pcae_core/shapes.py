"""Shape checks that all backends share.

Letters: B images, C channels, N patches, k kept, D width, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pcae_core.errors import ShapeError


def check_images(images: Sequence[int], chans: int, size: int) -> None:
    """Raise ShapeError unless `images` is the shape (B, C, size, size) of at least one image."""
    if tuple(images[1:]) != (chans, size, size) or images[0] == 0:
        raise ShapeError(f"images must be (B, {chans}, {size}, {size}), not {tuple(images)}; B is at least 1")


def check_restore_grid(
    tokens: Sequence[int], kept_ids: Sequence[int], num_patches: int, features: Sequence[int] | None
) -> None:
    """Raise ShapeError unless `Backend.restore_grid` can take arrays of these shapes."""
    if len(tokens) != 3 or len(kept_ids) != 2 or tuple(tokens[:2]) != tuple(kept_ids):
        raise ShapeError(
            f"restore_grid takes tokens (B, k, D) and kept_ids (B, k), not {tuple(tokens)} and {tuple(kept_ids)}; "
            "leave the CLS token out"
        )
    if not 1 <= kept_ids[1] <= num_patches:
        raise ShapeError(f"restore_grid needs 1 to num_patches = {num_patches} tokens, not {kept_ids[1]}")
    if features is None:
        if math.isqrt(num_patches) ** 2 != num_patches:
            raise ShapeError(f"num_patches = {num_patches} is no square grid; give restore_grid the patches' features")
    elif len(features) != 3 or tuple(features[:2]) != (tokens[0], num_patches):
        raise ShapeError(f"features must be (B, N, F) = ({tokens[0]}, {num_patches}, F), not {tuple(features)}")
