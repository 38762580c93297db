"""Cases: inputs of a check. A case holds a few numbers, from which NumPy builds the arrays.

A case is small, readable when printed, and converts to JSON and back. So a failing case can be run again alone.
`token_cases`, `image_cases`, `model_cases` and `finetune_cases` have cases of their names, this module has the others.
Letters: B batch, N patches.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

import numpy as np

from pcae_conformance.dtypes import Floats, rounded
from pcae_core.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """Base of all cases; `seed` is the seed of its random numbers."""

    seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of this case in reports."""
        return ()

    def rng(self) -> np.random.Generator:
        """A fresh generator."""
        return np.random.default_rng(self.seed)

    def describe(self, dtype: str) -> str:
        """Shape, dtype, kind and seed in a few words."""
        kind = getattr(self, "kind", "")
        return " ".join(filter(None, [str(self.shape), dtype, kind, f"seed {self.seed}"]))

    def to_json(self) -> str:
        """JSON text that `from_json` reads. Values at their defaults are left out."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return json.dumps({name: value for name, value in values.items() if value != defaults[name]})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a case from JSON. Raises ConfigError when `text` is not such a case."""
        try:
            values = json.loads(text)
            case = cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"not a case of this check ({cls.__name__}): {error}") from None
        for field in dataclasses.fields(cls):
            if type(getattr(case, field.name)) is not type(field.default):
                raise ConfigError(f"{field.name} of {cls.__name__} must be like {field.default!r}")
        return case


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
        """Teacher and student by name, with values of `dtype`. The student has one more array."""
        rng = self.rng()
        shapes = {f"layer.{i}.weight": self.SHAPES[i % len(self.SHAPES)] for i in range(self.count)}
        teacher = {name: rounded(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
        student = {name: rounded(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
        return teacher, student | {"decoder.weight": rounded(rng.normal(size=2), dtype)}


@dataclass(frozen=True)
class ScheduleCase(Case):
    """Depth, number of stages and keep ratio of an encoder that starts with `tokens` patch tokens."""

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
    """Masks at a place of a run: of `count` samples from `first` on at `step`, with `visible` of `patches` visible."""

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
class NoCase(Case):
    """The case of a check without input."""

    def describe(self, dtype: str) -> str:
        """An empty description."""
        return ""


@dataclass(frozen=True)
class GoldenName(Case):
    """Name of a golden case."""

    name: str = "case_a"

    def describe(self, dtype: str) -> str:
        """The name."""
        return f"{self.name} {dtype}"
