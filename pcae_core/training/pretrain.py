"""Pre-training runs."""

from __future__ import annotations

import functools
from pathlib import Path

from rich.console import Console

from pcae_core import randomness, registry
from pcae_core.config import PretrainConfig
from pcae_core.contract import Backend, Pretrainer
from pcae_core.data import Batch, Source, open_source
from pcae_core.data.sources import kinds
from pcae_core.data.transforms import training_pipeline
from pcae_core.errors import ConfigError
from pcae_core.training import resume
from pcae_core.training.collapse import CollapseMonitor
from pcae_core.training.inputs import Inputs, Place, StepInputs
from pcae_core.training.loop import Loop, data_position


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
    start = resume.find_start(config, data_position(config, source, 0))
    pretrainer = backend.create_pretrainer(config, start.resumed.state if start.resumed else None)
    try:
        return create_loop(config, source, backend, pretrainer, start.step, console or Console()).run()
    finally:
        pretrainer.close()


def create_loop(
    config: PretrainConfig,
    source: Source,
    backend: Backend,
    pretrainer: Pretrainer,
    start_step: int,
    console: Console,
) -> Loop:
    """The loop around the steps of `pretrainer`."""
    monitor = CollapseMonitor(config, config.total_steps(len(source)), backend.to_numpy)
    inputs = StepInputs(config, source, training_pipeline(config), functools.partial(_inputs, config))
    return Loop(config, source, backend, pretrainer, start_step, console, inputs=inputs, monitor=monitor)


def _inputs(config: PretrainConfig, batch: Batch, place: Place) -> Inputs:
    noise = randomness.mask_noise(config.seed, place.step, place.first, place.count, config.model.num_patches)
    return {"images": batch.images, "noise": noise}
