"""RandAugment (Cubuk et al. 2020) with Pillow. All randomness comes from the generator in the arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from pcae_core.config.rand_augment import MAX_MAGNITUDE, RandAugmentPolicy
from pcae_core.data.images import Pixels

_AFFINE = Image.Transform.AFFINE
_BICUBIC = Image.Resampling.BICUBIC

Fill = tuple[int, ...]
"""Colour of pixels that move into the image, one number per channel."""


@dataclass(frozen=True)
class RandAugment:
    """RandAugment with a policy. Call it to change an image.

    Attributes:
        fill: colour of pixels that move into the image, in [0, 1], one number per channel.
    """

    policy: RandAugmentPolicy
    fill: tuple[float, ...]

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Change an image uint8 (C, H, W) of 1 or 3 channels."""
        policy, fill = self.policy, tuple(round(255 * value) for value in self.fill)
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        for index in rng.integers(len(OPERATIONS), size=policy.layers):
            magnitude = float(np.clip(rng.normal(policy.magnitude, policy.noise), 0.0, MAX_MAGNITUDE))
            sign = 1.0 if rng.random() < 0.5 else -1.0
            if rng.random() < policy.probability:
                strength = Strength(magnitude / MAX_MAGNITUDE, sign, policy.increasing, fill)
                image = OPERATIONS[index](image, strength)
        changed = np.asarray(image)
        return changed[None] if changed.ndim == 2 else changed.transpose(2, 0, 1)


@dataclass(frozen=True)
class Strength:
    """Strength of an operation.

    Attributes:
        severity: 0 to 1.
        sign: 1 or -1, for operations with two directions.
        increasing: as in `RandAugmentPolicy`.
        fill: colour of pixels that move into the image, 0 to 255.
    """

    severity: float
    sign: float
    increasing: bool
    fill: Fill

    @property
    def rising(self) -> float:
        """Strength from 0, mildest, to 1, strongest. Without `increasing`, it falls when the severity rises."""
        return self.severity if self.increasing else 1.0 - self.severity


def _auto_contrast(image: Image.Image, strength: Strength) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, strength: Strength) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, strength: Strength) -> Image.Image:
    return ImageOps.invert(image)


def _posterize(image: Image.Image, strength: Strength) -> Image.Image:
    """Keep at least one bit: with no bits, Pillow would make the image black."""
    return ImageOps.posterize(image, max(1, 4 - int(4 * strength.rising)))


def _solarize(image: Image.Image, strength: Strength) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(256 * strength.rising))


def _solarize_add(image: Image.Image, strength: Strength) -> Image.Image:
    """Make dark pixels brighter."""
    added = int(110 * strength.severity)
    return image.point([min(255, value + added) if value < 128 else value for value in range(256)] * len(image.mode))


def _enhance(
    enhancer: Callable[[Image.Image], Any],
) -> Callable[[Image.Image, Strength], Image.Image]:
    """Scale colour, contrast, brightness or sharpness by 1 +- 0.9, or by 0.1 to 1.9 without `increasing`."""

    def apply(image: Image.Image, strength: Strength) -> Image.Image:
        factor = 1.0 + 0.9 * strength.sign * strength.severity if strength.increasing else 0.1 + 1.8 * strength.severity
        enhanced: Image.Image = enhancer(image).enhance(factor)
        return enhanced

    return apply


def _rotate(image: Image.Image, strength: Strength) -> Image.Image:
    """Rotate by up to 30 degrees."""
    return image.rotate(30.0 * strength.sign * strength.severity, _BICUBIC, fillcolor=_colour(image, strength))


def _affine(
    coefficients: Callable[[float, Image.Image], tuple[float, ...]], largest: float
) -> Callable[[Image.Image, Strength], Image.Image]:
    """Affine transform: output pixel (x, y) is input pixel (a x + b y + c, d x + e y + f)."""

    def apply(image: Image.Image, strength: Strength) -> Image.Image:
        amount = largest * strength.sign * strength.severity
        return image.transform(
            image.size, _AFFINE, coefficients(amount, image), _BICUBIC, fillcolor=_colour(image, strength)
        )

    return apply


def _colour(image: Image.Image, strength: Strength) -> int | Fill:
    return strength.fill[0] if image.mode == "L" else strength.fill


OPERATIONS: tuple[Callable[[Image.Image, Strength], Image.Image], ...] = (
    _auto_contrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _solarize_add,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    _affine(lambda amount, image: (1.0, amount, 0.0, 0.0, 1.0, 0.0), 0.3),  # shear along x
    _affine(lambda amount, image: (1.0, 0.0, 0.0, amount, 1.0, 0.0), 0.3),  # shear along y
    _affine(lambda amount, image: (1.0, 0.0, amount * image.width, 0.0, 1.0, 0.0), 0.45),  # shift along x
    _affine(lambda amount, image: (1.0, 0.0, 0.0, 0.0, 1.0, amount * image.height), 0.45),  # shift along y
)
