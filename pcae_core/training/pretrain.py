"""The pre-training loop around a backend's step: data, schedules, measurements, checkpoints, resuming."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from pcae_core import checkpoint, randomness, registry, schedule
from pcae_core.checkpoint import DataPosition
from pcae_core.config import PretrainConfig
from pcae_core.data import Batch, CorruptLog, Source, TrainLoader, open_source
from pcae_core.errors import ConfigError, TrainingError
from pcae_core.protocol import Backend, Pretrainer, StepOutput
from pcae_core.training import run
from pcae_core.training.loggers import MetricLogger, open_loggers
from pcae_core.training.metrics import collapse_metrics, collapse_warning
from pcae_core.training.progress import Display, open_display
from pcae_core.training.signals import StopRequest

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
        raise ConfigError("no data set: name a folder of images or an .npz file with --data")
    source = open_source(config.data, config.model.in_chans, split="train")
    backend = registry.create(config.backend, device=config.device)
    start = run.find_start(config, _position(config, source, 0))
    pretrainer = backend.create_pretrainer(config, start.resumed.state if start.resumed else None)
    try:
        loop = _Loop(config, source, backend, pretrainer, start.step, console or Console())
        return loop.run()
    finally:
        pretrainer.close()


def _position(config: PretrainConfig, source: Source, step: int) -> DataPosition:
    return DataPosition(fingerprint=source.fingerprint, num_samples=len(source), samples_seen=step * config.batch_size)


@dataclass
class _Window:
    """What has gathered since the last measurement."""

    began: float = field(default_factory=time.monotonic)
    losses: list[object] = field(default_factory=list)


class _Loop:
    """One process's part of a run. Only rank 0 writes and shows anything."""

    def __init__(
        self,
        config: PretrainConfig,
        source: Source,
        backend: Backend,
        pretrainer: Pretrainer,
        start_step: int,
        console: Console,
    ) -> None:
        self._config, self._source, self._backend, self._pretrainer = config, source, backend, pretrainer
        self._step = start_step
        self._total = config.total_steps(len(source))
        self._leads = pretrainer.rank == 0
        self._console = console if self._leads else Console(quiet=True)
        self._rates = schedule.drop_path_rates(config.drop_path, config.model.depth)
        self._corrupt = CorruptLog(source)
        self._metrics: dict[str, float] = {}
        self._saved_ratios: list[float] = []
        self._window = _Window()
        self._warned = False

    def run(self) -> Path:
        """All steps that are left; returns the run's folder."""
        with ExitStack() as stack:
            loggers = self._open_folder(stack)
            display = stack.enter_context(open_display(self._console, self._step, self._total))
            stop = stack.enter_context(StopRequest())
            if self._pretrainer.compiles and self._step < self._total:
                display.compiling()
            for batch in self._batches(stack):
                self._advance(batch, loggers, display)
                stopping = self._pretrainer.any_rank(stop.received is not None)
                if stopping or self._step % self._config.checkpoint_every == 0 or self._step == self._total:
                    self._save()
                if stopping and self._step < self._total:
                    raise TrainingError(
                        f"stopped at step {self._step} of {self._total}; saved; "
                        f"go on with: pcae pretrain --resume {self._config.out}"
                    )
        self._say_where()
        return self._config.out

    def _say_where(self) -> None:
        """Where the run, its metrics and its newest checkpoint are."""
        if self._leads:
            out = self._config.out
            places = {"run": out, "metrics": out / "metrics.jsonl", "checkpoint": checkpoint.find(out)}
            for name, place in places.items():
                self._console.print(f"{name:<11}{place}", highlight=False, markup=False, soft_wrap=True)

    def _open_folder(self, stack: ExitStack) -> list[MetricLogger]:
        if not self._leads:
            return []
        run.write_config(self._config)
        loggers = open_loggers(self._config, self._step)
        for logger in loggers:
            stack.callback(logger.close)
        return loggers

    def _batches(self, stack: ExitStack) -> Iterator[Batch]:
        if self._step >= self._total:
            return iter(())
        loader = TrainLoader(
            self._source,
            self._config,
            start_step=self._step,
            total_steps=self._total,
            rank=self._pretrainer.rank,
            world_size=self._pretrainer.world_size,
        )
        return iter(stack.enter_context(loader))

    def _advance(self, batch: Batch, loggers: list[MetricLogger], display: Display) -> None:
        """One step, and its measurement when it is due."""
        self._corrupt.add(batch.corrupt_ids)
        count = len(batch.images)
        first = self._pretrainer.rank * count
        rate, momentum = self._config.hyper_parameters(self._step, self._total)
        out = self._pretrainer.step(
            batch.images,
            randomness.mask_noise(self._config.seed, self._step, first, count, self._config.model.num_patches),
            learning_rate=rate,
            momentum=momentum,
            drop_path=randomness.drop_path_scales(self._config.seed, self._step, first, count, self._rates),
        )
        self._step += 1
        self._window.losses.append(out.loss)
        display.advance(self._step)
        if self._step % self._config.log_every == 0 or self._step == self._total:
            self._measure(out, rate, momentum)
            for logger in loggers:
                logger.write(self._step, self._metrics)
            display.measure(self._step, self._metrics)
            self._warn(display, count)

    def _measure(self, out: StepOutput, learning_rate: float, momentum: float) -> None:
        to_numpy = self._backend.to_numpy
        losses = [float(to_numpy(loss)) for loss in self._window.losses]
        seconds = time.monotonic() - self._window.began
        collapse = collapse_metrics(
            losses[-1], to_numpy(out.target), to_numpy(out.features), self._config.model.num_patches
        )
        self._metrics = {
            "loss": self._pretrainer.mean_over_ranks(sum(losses) / len(losses)),
            **collapse,
            "learning_rate": learning_rate,
            "ema_momentum": momentum,
            "images_per_second": len(losses) * self._config.batch_size / seconds,
            "epoch": self._step * self._config.batch_size / len(self._source),
            "corrupt_images": float(self._corrupt.count),
        }
        if out.grad_norm is not None:
            self._metrics["grad_norm"] = float(to_numpy(out.grad_norm))
        self._saved_ratios.append(collapse["loss_ratio"])
        self._window = _Window()

    def _warn(self, display: Display, batch_size: int) -> None:
        """Say that the run looks collapsed, once each time that it begins to."""
        early = self._step <= max(self._config.warmup_share * self._total, 10 * self._config.log_every)
        warning = None if early or batch_size < SMALLEST_JUDGED_BATCH else collapse_warning(self._metrics)
        if warning and not self._warned:
            display.say(f"warning: step {self._step}: {warning}")
        self._warned = warning is not None

    def _save(self) -> None:
        """Write a checkpoint with the mean `loss_ratio` since the last one."""
        if not self._leads:
            return
        metrics = dict(self._metrics)
        if self._saved_ratios:
            metrics["loss_ratio"] = sum(self._saved_ratios) / len(self._saved_ratios)
        self._saved_ratios = []
        folder = run.checkpoints_folder(self._config.out)
        position = _position(self._config, self._source, self._step)
        state = self._pretrainer.state()
        checkpoint.save(folder, state, self._config, position, metrics, _framework(self._backend.name))
        checkpoint.prune(folder)


def _framework(name: str) -> dict[str, str]:
    info = registry.available().get(name)
    return {"backend": name, "framework": (info.version if info else None) or "unknown"}
