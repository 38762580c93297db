"""Crop and resize images of any size to square uint8 arrays: at random for training, at the centre for evaluation.

Letters: C channels, H = W = `size`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pcae_core.data.images import AnyImage, Pixels

_TRIES = 10

Box = tuple[float, float, float, float]
"""Left, upper, right, lower."""


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crop a part of random area and aspect ratio, and resize it.

    Attributes:
        size: height and width of the result.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest aspect ratio.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]

    def __call__(self, image: AnyImage, rng: np.random.Generator) -> Pixels:
        """Crop an image of `Source.load` to uint8 (C, H, W).

        The result is a view with another memory order; `stack` copies it into this order.
        """
        return _resize(image, self.size, self.draw_box(*_dimensions(image), rng))

    def draw_box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """Draw a box in the image. Its share of the area is uniform, its aspect ratio log-uniform.

        A box that does not fit is drawn again. After ten tries, take the largest centred box of an allowed aspect
        ratio.
        """
        low, high = self.ratio
        for _ in range(_TRIES):
            share, log_ratio = rng.uniform(*self.scale), rng.uniform(math.log(low), math.log(high))
            area, ratio = share * width * height, math.exp(log_ratio)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 1 <= w <= width and 1 <= h <= height:
                left, upper = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                return left, upper, left + w, upper + h
        ratio = min(max(width / height, low), high)
        w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
        left, upper = (width - w) // 2, (height - h) // 2
        return left, upper, left + w, upper + h


def resize_center_crop(image: AnyImage, size: int) -> Pixels:
    """Crop the largest centred square of an image, and resize it: uint8 (C, H, W), a view as above.

    This is nearly the same as resizing the shorter side to `size` and then cropping the centre. The latter rounds the
    longer side and the crop to whole pixels, so its crop is shifted by up to half a pixel of the output.
    """
    width, height = _dimensions(image)
    side = min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return _resize(image, size, (left, upper, left + side, upper + side))


def stack(images: Sequence[Pixels]) -> Pixels:
    """Images (C, H, W) to a batch (B, C, H, W), contiguous in this order; each pixel is copied once."""
    return np.stack(images, out=np.empty((len(images), *images[0].shape), np.uint8))


def _dimensions(image: AnyImage) -> tuple[int, int]:
    if isinstance(image, Image.Image):
        return image.size
    return image.shape[1], image.shape[0]


def _resize(image: AnyImage, size: int, box: Box) -> Pixels:
    """Resize a box, bicubic, to uint8 (C, H, W). The result is a view of (H, W, C) for Pillow's images."""
    if not isinstance(image, Image.Image):
        channels = [Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]
        return np.concatenate([_resize(channel, size, box) for channel in channels])
    pixels: Pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
