"""Soft targets and mixed images: label smoothing, mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

Image 2i of a batch is mixed with image 2i + 1 and vice versa, each with its own share. So the mix is the same on any
number of processes. Letters: b images of one process, C channels, H = W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import FinetuneConfig
from pcae_core.data.images import Pixels
from pcae_core.randomness import Purpose, generator


def soft_targets(labels: NDArray[np.int64], num_classes: int, smoothing: float) -> NDArray[np.float32]:
    """Labels (b,) to (b, classes): `1 - smoothing` for the class, and `smoothing` spread evenly over all classes."""
    targets = np.full((len(labels), num_classes), smoothing / num_classes, dtype=np.float32)
    targets[np.arange(len(labels)), labels] += np.float32(1.0 - smoothing)
    return targets


@dataclass(frozen=True)
class Mix:
    """Drawn numbers that say how to mix the images of a batch.

    Attributes:
        shares: share of the image itself (b,), 0 to 1; the partner has the rest.
        boxes: boxes that CutMix takes from the partner (b, 4): top, bottom, left, right. A box is empty for mixup.
    """

    shares: NDArray[np.float64]
    boxes: NDArray[np.int64]


@dataclass(frozen=True)
class Mixing:
    """Mixup and CutMix with the settings of a run. Call it to mix the images of a batch."""

    config: FinetuneConfig

    def __call__(
        self, images: Pixels, targets: NDArray[np.float32], step: int, first: int
    ) -> tuple[Pixels, NDArray[np.float32]]:
        """As `mix_batch`, with the mix of the samples from `first` on in the global batch of `step`."""
        return mix_batch(images, targets, self.draw(step, first, len(images)))

    def draw(self, step: int, first: int, count: int) -> Mix:
        """Draw the mix of the samples `first .. first+count-1` of the global batch of `step`."""
        config = self.config
        rng, batch, size = generator(config.seed, Purpose.MIX, major=step), config.batch_size, config.model.image_size
        cuts = rng.random(batch) < (config.mixup_switch_prob if config.mixup > 0 else 1.0)
        cuts &= config.cutmix > 0
        blended = rng.beta(config.mixup, config.mixup, batch) if config.mixup > 0 else np.ones(batch)
        cut = rng.beta(config.cutmix, config.cutmix, batch) if config.cutmix > 0 else np.ones(batch)
        centers = rng.integers(size, size=(batch, 2))
        half = (size * np.sqrt(1.0 - cut)).astype(np.int64)[:, None] // 2 * cuts[:, None]
        low, high = np.clip(centers - half, 0, size), np.clip(centers + half, 0, size)
        boxes = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
        areas = (high - low).prod(axis=1)
        shares = np.where(cuts, 1.0 - areas / size**2, blended)
        return Mix(shares[first : first + count], boxes[first : first + count])


def mix_batch(images: Pixels, targets: NDArray[np.float32], mix: Mix) -> tuple[Pixels, NDArray[np.float32]]:
    """Mix images uint8 (b, C, H, W) and targets (b, classes); b is even. Blended pixels are rounded."""
    partner = np.arange(len(images)) ^ 1
    shares = mix.shares.astype(np.float32)
    blends = (mix.boxes[:, 1] <= mix.boxes[:, 0]) & (shares < 1)
    mixed = images.copy()
    weight = shares[blends, None, None, None]
    blend = weight * images[blends] + (1.0 - weight) * images[partner[blends]]
    mixed[blends] = np.rint(blend).astype(np.uint8)
    for i, (top, bottom, left, right) in enumerate(mix.boxes):
        mixed[i, :, top:bottom, left:right] = images[partner[i], :, top:bottom, left:right]
    return mixed, shares[:, None] * targets + (1.0 - shares[:, None]) * targets[partner]
