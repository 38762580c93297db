"""Faults of arrays in and out, and of patches."""

from __future__ import annotations

import numpy as np

from faults.fault import numpy_override


def changes_its_input(self, latents, eps=1e-6):
    latents -= np.mean(latents, axis=-1, keepdims=True)
    return self.right.standardize(latents, eps)


def patches(*axes):
    """`patchify` that gives a view of the pixels (B, C, row, in row, column, in column) with axes in another order."""

    def patchify(self, images, patch_size):
        batch, chans, height, width = images.shape
        rows, columns = height // patch_size, width // patch_size
        pixels = np.reshape(images, (batch, chans, rows, patch_size, columns, patch_size))
        return pixels.transpose(axes).reshape(batch, rows * columns, -1)

    return patchify


FAULTS = (
    numpy_override("changes its input", "arrays-training-purity", standardize=changes_its_input),
    numpy_override(
        "asarray shares memory", "arrays-memory", asarray=lambda self, x, dtype=None: np.asarray(x, dtype=dtype)
    ),
    numpy_override("to_numpy shares memory", "arrays-memory", to_numpy=lambda self, x: np.asarray(x)),
    numpy_override("patchify gives a view", "arrays-purity", patchify=patches(0, 2, 4, 1, 3, 5)),
    numpy_override("channels last in a patch", "patchify-definition", patchify=patches(0, 2, 4, 3, 5, 1)),
    numpy_override("patches column by column", "patchify-definition", patchify=patches(0, 4, 2, 1, 3, 5)),
)
