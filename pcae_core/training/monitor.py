"""Measurements that belong to one kind of run, beside loss and speed; rank 0 takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pcae_core.contract import FinetuneOutput, PretrainOutput, TrainState

StepOutput = PretrainOutput | FinetuneOutput
O = TypeVar("O", bound=StepOutput)  # noqa: E741 (an output)


@dataclass(frozen=True)
class Found:
    """The result of a measurement.

    Attributes:
        metrics: for the log.
        lines: for the screen.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    lines: Sequence[str] = ()


class Monitor(Generic[O]):
    """Measures nothing; subclasses override what they need.

    Ranks other than 0 call only `scores_after`.
    """

    def measure(self, step: int, out: O, loss: float) -> Found:
        """Measure the last of `step` steps; called whenever the run logs.

        Args:
            out: of this process's images.
            loss: `out.loss`.
        """
        return Found()

    def scores_after(self, step: int) -> bool:
        """Whether `score` is due after `step` steps, in every rank alike; a checkpoint follows."""
        return False

    def score(self, step: int, state: TrainState) -> Found:
        """Score the model after `step` steps. Raises PcaeError when it cannot."""
        return Found()

    def checkpoint_metrics(self, step: int) -> Mapping[str, float]:
        """Metrics to store in a checkpoint after `step` steps, beside those of the last measurement."""
        return {}

    def checkpoint_written(self) -> None:
        """Called after each checkpoint."""
        return
