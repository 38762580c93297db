"""Images of any size to square uint8 arrays, at random for training and centred for evaluation.

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
    """Cut out a part of random area and aspect ratio, and resize it.

    Attributes:
        size: height and width of the result.
        scale: smallest and largest share of the area.
        ratio: smallest and largest aspect ratio.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]

    def __call__(self, image: AnyImage, rng: np.random.Generator) -> Pixels:
        """An image as `Source.load` returns it to uint8 (C, H, W).

        The result is a view whose memory has another order: `stack` brings it into this one.
        """
        return _resize(image, self.size, self.draw_box(*_dimensions(image), rng))

    def draw_box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """A part of the image; its share of the area is uniform, its aspect ratio uniform in the logarithm.

        A part that sticks out is drawn again; after ten tries it is the largest centred one of an allowed aspect ratio.
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
    """The centred square of an image, as high or wide as the image, resized: uint8 (C, H, W), a view as above.

    Nearly the same as resizing the shorter side to `size` and then cutting out the centre: that rounds the longer side
    and the place of the cut to whole pixels, and so cuts up to half a pixel of the output elsewhere.
    """
    width, height = _dimensions(image)
    side = min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return _resize(image, size, (left, upper, left + side, upper + side))


def stack(images: Sequence[Pixels]) -> Pixels:
    """Images (C, H, W) to a batch (B, C, H, W) that lies in memory in this order; each pixel is copied once."""
    return np.stack(images, out=np.empty((len(images), *images[0].shape), np.uint8))


def _dimensions(image: AnyImage) -> tuple[int, int]:
    if isinstance(image, Image.Image):
        return image.size
    return image.shape[1], image.shape[0]


def _resize(image: AnyImage, size: int, box: Box) -> Pixels:
    """Bicubic; uint8 (C, H, W), a view of (H, W, C) where these come from Pillow."""
    if not isinstance(image, Image.Image):
        channels = [Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]
        return np.concatenate([_resize(channel, size, box) for channel in channels])
    pixels: Pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
