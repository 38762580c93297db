"""Flips of an image (C, H, W)."""

from __future__ import annotations

import numpy as np

from pcae_core.data.images import Pixels


def random_horizontal_flip(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Flip half of the images left to right; a view."""
    return image[:, :, ::-1] if rng.random() < 0.5 else image
