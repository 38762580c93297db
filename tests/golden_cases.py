"""The recorded cases of the conformance suite: one forward and backward pass each, float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcae_core import ModelConfig, ReductionConfig

FOLDER = Path(__file__).parents[1] / "conformance" / "pcae_conformance" / "golden"
NAMES = ("case_a", "case_b")


@dataclass(frozen=True)
class GoldenCase:
    config: ModelConfig
    arrays: dict[str, np.ndarray]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(f"{prefix}/"): v for k, v in self.arrays.items() if k.startswith(f"{prefix}/")}


def load(name: str) -> GoldenCase:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    values = {k.removeprefix("config/"): v.item() for k, v in arrays.items() if k.startswith("config/")}
    values.pop("momentum")
    reduction = ReductionConfig(num_stages=values.pop("num_stages"), keep=values.pop("keep_ratio"))
    return GoldenCase(ModelConfig(**values, reduction=reduction), arrays)
