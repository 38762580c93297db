"""The golden cases: forward and backward passes in float64, recorded from the authors' released code."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcae_conformance.dtypes import Floats
from pcae_core.config import ModelConfig, ReductionConfig

NAMES = ("case_a", "case_b")


@dataclass(frozen=True)
class GoldenCase:
    """A recorded case.

    Attributes:
        arrays: `student/*`, `teacher/*`, `grad/*`, `ema/*`, `images`, `noise`, `target`, `prediction`, `loss`, and ids.
        momentum: momentum of the recorded EMA step.
    """

    config: ModelConfig
    momentum: float
    arrays: dict[str, Floats]

    def group(self, prefix: str) -> dict[str, Floats]:
        """The arrays under `prefix/`, by name without the prefix."""
        return {k.removeprefix(f"{prefix}/"): v for k, v in self.arrays.items() if k.startswith(f"{prefix}/")}


@functools.cache
def load(name: str) -> GoldenCase:
    """Load a case of `NAMES`. Ids, recorded in order of noise or score, are sorted ascending, and so are their rows."""
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    order = np.argsort(arrays["target_ids"], axis=1)
    arrays["visible_ids"] = np.sort(arrays["visible_ids"], axis=1)
    arrays["target_ids"] = np.take_along_axis(arrays["target_ids"], order, axis=1)
    for key in ("target", "prediction"):
        arrays[key] = np.take_along_axis(arrays[key], order[:, :, None], axis=1)
    values = {k.removeprefix("config/"): v.item() for k, v in arrays.items() if k.startswith("config/")}
    momentum = values.pop("momentum")
    reduction = ReductionConfig(num_stages=values.pop("num_stages"), keep=values.pop("keep_ratio"))
    return GoldenCase(ModelConfig(**values, reduction=reduction), momentum, arrays)
