"""The cost of one image, computed from shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pcae_core import cost
from pcae_core.config import ModelConfig

KEEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class PartCost:
    """One part of a pre-training step.

    Attributes:
        forward: multiply-accumulates of one forward pass.
        passes: 3 if there is a backward pass, which costs as much as two forward passes; else 1.
    """

    name: str
    forward: int
    passes: int

    @property
    def step(self) -> int:
        """Multiply-accumulates in a step."""
        return self.passes * self.forward


@dataclass(frozen=True)
class InferenceCost:
    """The encoder at one keep ratio.

    Attributes:
        macs: multiply-accumulates.
        speedup: multiply-accumulates at keep 1.0 divided by `macs`.
        tokens: number of tokens after the last stage, with the prefix tokens.
    """

    keep: float
    macs: int
    speedup: float
    tokens: int


def pretraining_costs(model: ModelConfig) -> list[PartCost]:
    """Cost of teacher, student and decoder."""
    forward = cost.pretraining_forward_macs(model)
    return [PartCost(name, macs, passes=1 if name == "teacher" else 3) for name, macs in forward.items()]


def inference_costs(model: ModelConfig, keeps: Iterable[float] = KEEPS) -> list[InferenceCost]:
    """Cost of the encoder at each keep ratio."""
    full, found = cost.encoder_macs(model), []
    for keep in keeps:
        macs = cost.encoder_macs(model, keep)
        left = list(model.kept_after_block(model.num_patches, keep).values())[-1]
        found.append(InferenceCost(keep, macs, full / macs, model.num_prefix_tokens + left))
    return found
