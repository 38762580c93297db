"""Resize position embeddings to another grid. Letters: N patches of a grid of g * g, P prefix tokens, D width."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARPNESS = -0.75
"""Parameter of the cubic kernel, as in PyTorch's `interpolate`."""


def resize(embeddings: NDArray[np.floating[Any]], grid: int, num_prefix_tokens: int) -> NDArray[np.floating[Any]]:
    """Resize embeddings (1, P + N, D) of a square grid to (1, P + grid * grid, D). The prefix tokens' rows stay.

    Bicubic, with pixel centres aligned (not corners), edges repeated and no antialiasing, as PyTorch's
    `interpolate(mode="bicubic", align_corners=False)`. Computed in float64; the dtype is kept.
    """
    own = math.isqrt(embeddings.shape[1] - num_prefix_tokens)
    patches = embeddings[0, num_prefix_tokens:].astype(np.float64).reshape(own, own, -1)
    weights = _weights(own, grid)
    resized = np.einsum("yr,xc,rcd->yxd", weights, weights, patches, optimize=True).reshape(1, grid * grid, -1)
    return np.concatenate([embeddings[:, :num_prefix_tokens], resized.astype(embeddings.dtype)], axis=1)


def _weights(size: int, new_size: int) -> NDArray[np.float64]:
    """Weight of each old position in each new position (new_size, size)."""
    centre = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    first = np.floor(centre).astype(np.int64)
    weights = np.zeros((new_size, size))
    for offset in range(-1, 3):
        place = np.clip(first + offset, 0, size - 1)
        np.add.at(weights, (np.arange(new_size), place), _kernel(np.abs(centre - first - offset)))
    return weights


def _kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution (Keys 1981) at a distance within [0, 2]."""
    a, x = SHARPNESS, distance
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((x - 5.0) * x + 8.0) * a * x - 4.0 * a
    return np.where(x <= 1.0, near, far)
