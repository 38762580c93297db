"""Cases: the inputs of a check, described by a few numbers from which NumPy builds the arrays.

A case is small, prints as what it is, and travels through JSON, so that the one that failed can be run again alone.
Letters: B batch, N tokens, P prefix tokens, D width, k tokens kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from pcae_conformance.dtypes import EPS, LARGEST_EXPONENT, Floats, rounded
from pcae_core.contract import Center
from pcae_core.errors import ConfigError

TokenKind = Literal[
    "normal", "offset", "near_duplicates", "duplicates", "zeros", "all_zero", "constant", "mixed_scale", "opposite"
]
ScoreKind = Literal["normal", "all_equal", "few", "signed_zeros", "infinities", "nan", "near_ties"]
GridKind = Literal["places", "normal", "one_hot", "zeros", "nan"]
PairKind = Literal["independent", "equal", "opposite", "orthogonal", "zeros"]


@dataclass(frozen=True)
class Case:
    """Base of all cases; `seed` is that of its random numbers."""

    seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that a report gives for this case."""
        return ()

    def rng(self) -> np.random.Generator:
        """A fresh generator."""
        return np.random.default_rng(self.seed)

    def describe(self, dtype: str) -> str:
        """Shape, dtype, kind and seed in a few words."""
        kind = getattr(self, "kind", "")
        return " ".join(filter(None, [str(self.shape), dtype, kind, f"seed {self.seed}"]))

    def to_json(self) -> str:
        """What `from_json` takes back; values at their defaults are left out."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return json.dumps({name: value for name, value in values.items() if value != defaults[name]})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ConfigError when `text` is not such a case."""
        try:
            values = json.loads(text)
            case = cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"not a case of this check ({cls.__name__}): {error}") from None
        for field in dataclasses.fields(cls):
            if type(getattr(case, field.name)) is not type(field.default):
                raise ConfigError(f"{field.name} of {cls.__name__} must be like {field.default!r}")
        return case


def _near_power_of_ten(exponent: int, limit: int) -> float:
    """A power of two, so that scaling by it rounds nothing."""
    return 2.0 ** round(max(-limit, min(exponent, limit)) * math.log2(10.0))


@dataclass(frozen=True)
class TokensCase(Case):
    """Token sequences (B, P + N, D).

    Attributes:
        kind: how the tokens of a sequence relate.
        exponent: all are scaled by ten to this power, as far as the dtype's range allows.
        k, prefix, center: for the checks that drop tokens.
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
        """Patch ids (B, k) in any order, repetitions too."""
        return np.random.default_rng([self.seed, 1]).integers(0, self.length, size=(self.batch, self.k))


@dataclass(frozen=True)
class ScoresCase(Case):
    """Rows of numbers to choose from (B, N): scores, or the noise that splits patches. `k` are chosen."""

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


@dataclass(frozen=True)
class ParametersCase(Case):
    """Two dictionaries of arrays of mixed shapes, and an EMA momentum; `count` 0 makes them empty."""

    count: int = 1
    momentum: float = 0.5

    SHAPES = ((), (3,), (2, 3), (0,), (1, 1, 4), (2, 3, 2, 2), (1,))

    @property
    def shape(self) -> tuple[int, ...]:
        """(number of arrays,)."""
        return (self.count,)

    def parameters(self, dtype: str) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Teacher and student by name, values of `dtype`; the student has one array more."""
        rng = self.rng()
        shapes = {f"layer.{i}.weight": self.SHAPES[i % len(self.SHAPES)] for i in range(self.count)}
        teacher = {name: rounded(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
        student = {name: rounded(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
        return teacher, student | {"decoder.weight": rounded(rng.normal(size=2), dtype)}


@dataclass(frozen=True)
class ScheduleCase(Case):
    """Depth, stages and share kept of an encoder that starts with `tokens` patch tokens."""

    depth: int = 1
    stages: int = 1
    keep: float = 0.5
    tokens: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(depth, stages, tokens)."""
        return (self.depth, self.stages, self.tokens)


@dataclass(frozen=True)
class MaskCase(Case):
    """The place of masks in a run: `count` samples from `first` on at `step`, `visible` of `patches` seen."""

    step: int = 0
    first: int = 0
    count: int = 1
    patches: int = 4
    visible: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, N)."""
        return (self.count, self.patches)


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
        grid: patches along one side; k: survivors; width: of tokens and of features.
        kind: the patches' features; with "places" there are none.
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
        """Whether no similarity is rounded, so that the lower id must win a tie."""
        return self.kind in ("places", "one_hot", "zeros")

    def tokens(self, dtype: str) -> Floats:
        """(B, k, D), no two of an image equal; values of `dtype`."""
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


@dataclass(frozen=True)
class NoCase(Case):
    """For a check that has no input."""

    def describe(self, dtype: str) -> str:
        """Nothing to describe."""
        return ""


@dataclass(frozen=True)
class GoldenName(Case):
    """A golden case, by name."""

    name: str = "case_a"

    def describe(self, dtype: str) -> str:
        """Its name."""
        return f"{self.name} {dtype}"
