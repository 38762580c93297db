"""Cases of tokens, of their scores, and of pairs of tokens.

Letters: B batch, N tokens, P prefix tokens, D width, k tokens kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pcae_conformance.cases import Case
from pcae_conformance.dtypes import EPS, LARGEST_EXPONENT, Floats, rounded
from pcae_core.contract import Center

TokenKind = Literal[
    "normal", "offset", "near_duplicates", "duplicates", "zeros", "all_zero", "constant", "mixed_scale", "opposite"
]
ScoreKind = Literal["normal", "all_equal", "few", "signed_zeros", "infinities", "nan", "near_ties"]
PairKind = Literal["independent", "equal", "opposite", "orthogonal", "zeros"]


def _near_power_of_ten(exponent: int, limit: int) -> float:
    """The power of two next to a power of ten: scaling by it rounds nothing."""
    return 2.0 ** round(max(-limit, min(exponent, limit)) * math.log2(10.0))


@dataclass(frozen=True)
class TokensCase(Case):
    """Token sequences (B, P + N, D).

    Attributes:
        kind: relation between the tokens of a sequence.
        exponent: power of ten that scales all tokens, as far as the dtype's range allows.
        k, prefix, center: tokens to keep, prefix tokens and centre, for checks that drop tokens.
    """

    batch: int = 1
    length: int = 1
    width: int = 4
    kind: TokenKind = "normal"
    exponent: int = 0
    k: int = 1
    prefix: int = 0
    center: Center = "unit"

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, P + N, D)."""
        return (self.batch, self.prefix + self.length, self.width)

    def tokens(self, dtype: str) -> Floats:
        """(B, P + N, D), values of `dtype`."""
        rng = self.rng()
        limit = LARGEST_EXPONENT[dtype]
        prefix = rng.normal(size=(self.batch, self.prefix, self.width))
        tokens = np.concatenate([prefix, self._patches(rng, limit)], axis=1)
        return rounded(tokens * _near_power_of_ten(self.exponent, limit), dtype)

    def _patches(self, rng: np.random.Generator, limit: int) -> Floats:
        batch, length = self.batch, self.length
        tokens: Floats = rng.normal(size=(batch, length, self.width))
        few: Floats = tokens[:, rng.integers(0, -(-length // 3), size=length)]  # at most a third differ
        match self.kind:
            case "offset":
                return tokens + 1.5
            case "near_duplicates":
                return few + 1e-6 * tokens
            case "duplicates":
                return few
            case "zeros":
                return tokens * (rng.random((batch, length, 1)) < 0.5)
            case "all_zero":
                return np.zeros_like(tokens)
            case "constant":
                return np.repeat(tokens[:, :1], length, axis=1)
            case "mixed_scale":
                spread = max(0, limit - abs(self.exponent))
                tokens *= np.power(10.0, rng.integers(-spread, spread + 1, size=(batch, length, 1)))
            case "opposite":
                tokens[:] = tokens[:, :1]
                tokens[:, 1::2] *= -1.0
        return tokens

    def ids(self) -> NDArray[np.int64]:
        """Patch ids (B, k) in any order, with repetitions."""
        return np.random.default_rng([self.seed, 1]).integers(0, self.length, size=(self.batch, self.k))


@dataclass(frozen=True)
class ScoresCase(Case):
    """Rows of numbers (B, N) to choose the `k` lowest from: scores, or noise that splits patches."""

    batch: int = 1
    length: int = 1
    k: int = 1
    kind: ScoreKind = "normal"

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, N)."""
        return (self.batch, self.length)

    def scores(self, dtype: str) -> Floats:
        """(B, N), values of `dtype`."""
        rng = self.rng()
        scores: Floats = rng.uniform(-1.0, 1.0, self.shape)
        match self.kind:
            case "all_equal":
                scores = np.repeat(scores[:, :1], self.length, axis=1)
            case "few":
                scores = rng.integers(-1, 2, self.shape) / 2
            case "signed_zeros":
                scores = np.where(rng.random(self.shape) < 0.5, 0.0, -0.0)
            case "infinities":
                scores = rng.choice([-np.inf, np.inf, 0.5, -0.5], self.shape)
            case "nan":
                scores = np.where(rng.random(self.shape) < 0.4, np.nan, scores)
            case "near_ties":  # neighbours in the dtype: rounding to a narrower one makes them equal
                base = rounded(scores[:, :1], dtype)
                exponent = np.frexp(base)[1] - 1  # of the power of two below
                scores = base + rng.integers(0, 3, self.shape) * np.ldexp(EPS[dtype], exponent)
        return rounded(scores, dtype)


@dataclass(frozen=True)
class PairCase(Case):
    """Predictions and targets (B, K, D)."""

    batch: int = 1
    length: int = 1
    width: int = 4
    kind: PairKind = "independent"
    exponent: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, K, D)."""
        return (self.batch, self.length, self.width)

    def pair(self, dtype: str) -> tuple[Floats, Floats]:
        """Prediction and target, values of `dtype`."""
        rng = self.rng()
        limit = LARGEST_EXPONENT[dtype]
        prediction, target = rng.normal(size=self.shape), rng.normal(size=self.shape)
        match self.kind:
            case "equal":
                target = prediction
            case "opposite":
                target = -prediction
            case "orthogonal":  # of disjoint features
                first = np.arange(self.width) < self.width // 2
                prediction, target = prediction * first, target * ~first
            case "zeros":
                prediction = prediction * (rng.random((self.batch, self.length, 1)) < 0.5)
        scale = _near_power_of_ten(self.exponent, limit)
        return rounded(prediction * scale, dtype), rounded(target, dtype)
