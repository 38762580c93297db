"""Pre-training runs: what a step takes, and measurements of collapse."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console

from pcae_core import randomness, registry
from pcae_core.config import PretrainConfig
from pcae_core.contract import Backend, Pretrainer, PretrainOutput
from pcae_core.data import Batch, Source, open_source
from pcae_core.data.sources import kinds
from pcae_core.errors import ConfigError
from pcae_core.training import run
from pcae_core.training.collapse import collapse_metrics, collapse_warning
from pcae_core.training.display import Display
from pcae_core.training.loop import Inputs, Loop, Place, data_position

SMALLEST_JUDGED_BATCH = 16
"""Images in a batch below which effective ranks say too little to warn of."""


def pretrain(config: PretrainConfig, console: Console | None = None) -> Path:
    """Pre-train, or continue the run in `config.out`; under a process launcher, as one process of several.

    Returns:
        The run's folder.

    Raises:
        PcaeError: see `pcae_core.errors`; an interrupted run raises TrainingError after it has been saved.
    """
    if config.data is None:
        raise ConfigError(f"no data set: name {kinds.words('name')} with --data")
    source = open_source(config.data, config.model.in_chans, split="train", reading=config.loader.reading)
    backend = registry.create(config.backend, device=config.device)
    start = run.find_start(config, data_position(config, source, 0))
    pretrainer = backend.create_pretrainer(config, start.resumed.state if start.resumed else None)
    try:
        loop = _PretrainLoop(config, source, backend, pretrainer, start.step, console or Console())
        return loop.run()
    finally:
        pretrainer.close()


class _PretrainLoop(Loop[PretrainOutput]):
    command = "pretrain"

    def __init__(
        self,
        config: PretrainConfig,
        source: Source,
        backend: Backend,
        pretrainer: Pretrainer,
        start_step: int,
        console: Console,
    ) -> None:
        super().__init__(config, source, backend, pretrainer, start_step, console)
        self._config, self._pretrainer = config, pretrainer
        self._saved_ratios: list[float] = []
        self._warned = False

    def _inputs(self, batch: Batch, place: Place) -> Inputs:
        seed, patches = self._config.seed, self._config.model.num_patches
        noise = randomness.mask_noise(seed, place.step, place.first, place.count, patches)
        return {"images": batch.images, "noise": noise, "drop_path": self._drop_path(place)}

    def _take_step(self, inputs: Inputs, learning_rate: float, momentum: float) -> PretrainOutput:
        return self._pretrainer.step(**inputs, learning_rate=learning_rate, momentum=momentum)

    def _more_metrics(self, out: PretrainOutput, loss: float) -> dict[str, float]:
        to_numpy = self._backend.to_numpy
        found = collapse_metrics(loss, to_numpy(out.target), to_numpy(out.features), self._config.model.num_patches)
        if math.isfinite(found["loss_ratio"]):
            self._saved_ratios.append(found["loss_ratio"])
        return found

    def _after_measuring(self, display: Display, count: int) -> None:
        """Say that the run looks collapsed, once each time that it begins to."""
        early = self._step <= max(self._config.warmup_share * self._total, 10 * self._config.log_every)
        warning = None if early or count < SMALLEST_JUDGED_BATCH else collapse_warning(self._metrics)
        if warning and not self._warned:
            display.say(f"warning: step {self._step}: {warning}")
        self._warned = warning is not None

    def _metrics_to_save(self) -> dict[str, float]:
        """With the mean `loss_ratio` since the last checkpoint."""
        metrics = super()._metrics_to_save()
        if self._saved_ratios:
            metrics["loss_ratio"] = sum(self._saved_ratios) / len(self._saved_ratios)
        self._saved_ratios = []
        return metrics
