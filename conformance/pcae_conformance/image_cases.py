"""Cases of images, and of the patches that survive on a grid.

Letters: B batch, C channels, H = W pixels, N patches, D width, F width of features, k tokens kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pcae_conformance.cases import Case
from pcae_conformance.dtypes import Floats, rounded

GridKind = Literal["places", "normal", "one_hot", "zeros", "nan"]


@dataclass(frozen=True)
class ImagesCase(Case):
    """Images (B, C, grid*p, grid*p)."""

    batch: int = 1
    chans: int = 1
    grid: int = 1
    patch: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, C, H, W)."""
        return (self.batch, self.chans, self.grid * self.patch, self.grid * self.patch)

    def images(self, dtype: str) -> Floats:
        """(B, C, H, W), values of `dtype`."""
        return rounded(self.rng().normal(size=self.shape), dtype)


@dataclass(frozen=True)
class GridCase(Case):
    """Survivors of a square grid of patches, in any order.

    Attributes:
        grid: number of patches along one side.
        k: number of survivors.
        width: width of tokens and of features.
        kind: kind of the patches' features; "places" for no features.
    """

    batch: int = 1
    grid: int = 1
    k: int = 1
    width: int = 4
    kind: GridKind = "places"

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, N, D)."""
        return (self.batch, self.grid**2, self.width)

    @property
    def exact(self) -> bool:
        """Whether similarities are exact. The lower id must then win a tie."""
        return self.kind in ("places", "one_hot", "zeros")

    def tokens(self, dtype: str) -> Floats:
        """(B, k, D), all different within an image; values of `dtype`."""
        tokens = rounded(self.rng().normal(size=(self.batch, self.k, self.width)), dtype)
        tokens[..., 0] = np.arange(self.k)
        return tokens

    def ids(self) -> NDArray[np.int64]:
        """(B, k), each once."""
        rng = np.random.default_rng([self.seed, 1])
        return np.stack([rng.permutation(self.grid**2)[: self.k] for _ in range(self.batch)])

    def features(self, dtype: str) -> Floats | None:
        """(B, N, F), values of `dtype`."""
        rng = np.random.default_rng([self.seed, 2])
        features: Floats = rng.normal(size=self.shape)
        match self.kind:
            case "places":
                return None
            case "one_hot":
                features = np.eye(self.width)[rng.integers(0, self.width, self.shape[:2])]
            case "zeros":
                features[:] = 0.0
            case "nan":
                features[rng.random(self.shape[:2]) < 0.4] = np.nan
        return rounded(features, dtype)
