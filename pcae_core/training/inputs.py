"""What the steps of a run take: batches, and numbers that are drawn for each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pcae_core import randomness, schedule
from pcae_core.config import RunConfig
from pcae_core.data import Batch, Source, TrainLoader
from pcae_core.data.transforms import TrainingPipeline

Inputs = Mapping[str, Any]
"""Keywords of a trainer's `step`, without those of the schedules; None where there is nothing."""


@dataclass(frozen=True)
class Place:
    """Where the images of one process are in a step: the samples `first .. first + count - 1` of the global batch."""

    step: int
    first: int
    count: int


class StepInputs:
    """Makes the inputs of each step, the same ones whenever it is asked.

    Args of the constructor:
        pipeline: augments the images.
        own: inputs that belong to this kind of run, beside the drop path.
    """

    def __init__(
        self, config: RunConfig, source: Source, pipeline: TrainingPipeline, own: Callable[[Batch, Place], Inputs]
    ) -> None:
        self._config, self._source, self._pipeline, self._own = config, source, pipeline, own
        self._rates = schedule.drop_path_rates(config.drop_path, config.model.depth)

    def loader(self, start_step: int, total_steps: int, rank: int = 0, world_size: int = 1) -> TrainLoader:
        """Batches of one process, from `start_step` up to `total_steps`."""
        return TrainLoader(
            self._source,
            self._config,
            self._pipeline,
            start_step=start_step,
            total_steps=total_steps,
            rank=rank,
            world_size=world_size,
        )

    def of(self, batch: Batch, place: Place) -> Inputs:
        """The inputs of one process: those of this kind of run, and `drop_path` (L, 2, b) or None."""
        drop_path = randomness.drop_path_scales(self._config.seed, place.step, place.first, place.count, self._rates)
        return {**self._own(batch, place), "drop_path": drop_path}

    def of_all_ranks(self, step: int) -> Inputs:
        """The inputs of all processes together at 0-based `step`, drawn once more, and the images' numbers."""
        with self.loader(step, step + 1) as loader:
            batch = next(iter(loader))
        return {**self.of(batch, Place(step, 0, len(batch.images))), "sample_ids": batch.sample_ids}
