"""The loop around a trainer's step that every kind of run shares: data, measurements, checkpoints, stopping."""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console

from pcae_core import randomness, registry, schedule
from pcae_core.config import RunConfig
from pcae_core.config.finetune import AnyRunConfig
from pcae_core.contract import Array, Backend, FinetuneOutput, PretrainOutput, Trainer
from pcae_core.data import Batch, CorruptLog, Source, TrainLoader, greys
from pcae_core.data.transforms import training_pipeline
from pcae_core.errors import ConfigError, PcaeError, TrainingError
from pcae_core.storage import checkpoint
from pcae_core.storage.checkpoint import DataPosition
from pcae_core.training import guard, run
from pcae_core.training.display import Display, open_display
from pcae_core.training.loggers import MetricLogger, open_loggers
from pcae_core.training.signals import StopRequest

O = TypeVar("O", PretrainOutput, FinetuneOutput)  # noqa: E741 (an output)
T = TypeVar("T")
Inputs = Mapping[str, Any]
"""What a trainer's step takes, by name, but for the schedules' numbers; None where there is nothing."""


def data_position(config: RunConfig, source: Source, step: int) -> DataPosition:
    """Where a run is in its data after `step` steps."""
    return DataPosition(fingerprint=source.fingerprint, num_samples=len(source), samples_seen=step * config.batch_size)


@dataclass(frozen=True)
class Place:
    """Where the images of one process are in a step: the samples `first .. first + count - 1` of the global batch."""

    step: int
    first: int
    count: int


@dataclass
class _Window:
    """What has gathered since the last measurement."""

    began: float = field(default_factory=time.monotonic)
    losses: list[Array] = field(default_factory=list)


class Loop(abc.ABC, Generic[O]):
    """One process's part of a run. Only rank 0 writes and shows anything. Subclasses say what a step is.

    Attributes:
        command: that continues a run of this kind.
    """

    command: str

    def __init__(
        self,
        config: AnyRunConfig,
        source: Source,
        backend: Backend,
        trainer: Trainer,
        start_step: int,
        console: Console,
    ) -> None:
        self._run_config, self._source, self._backend, self._trainer = config, source, backend, trainer
        self._step, self._total = start_step, config.total_steps(len(source))
        self._leads = trainer.rank == 0
        self._console = console if self._leads else Console(quiet=True)
        self._rates = schedule.drop_path_rates(config.drop_path, config.model.depth)
        self._corrupt = CorruptLog(source, config.max_corrupt, "replaced by the next readable image")
        self._pipeline = training_pipeline(config)
        self._problem: PcaeError | None = None
        self._metrics: dict[str, float] = {}
        self._window = _Window()
        self._guard = guard.NonFiniteGuard(config.max_skipped_steps)

    # What subclasses say

    @abc.abstractmethod
    def _inputs(self, batch: Batch, place: Place) -> Inputs:
        """What the step takes."""

    @abc.abstractmethod
    def _take_step(self, inputs: Inputs, learning_rate: float, momentum: float) -> O:
        """One optimizer step."""

    def _warnings(self) -> list[str]:
        """What the user should know before the first step, a line each."""
        config, images = self._run_config, len(self._source)
        if config.batch_size < images or self._step > 0:  # a run that goes on keeps its batch size
            return []
        return [
            f"a batch of {config.batch_size} is no smaller than the data set of {images} images: each optimizer step "
            f"is a whole epoch or more, and the run has {self._total} in all; choose a smaller --batch-size"
        ]

    def _more_metrics(self, out: O, loss: float) -> dict[str, float]:
        """Measurements of the last step; `loss` is this process's."""
        return {}

    def _after_measuring(self, display: Display, count: int) -> None:
        """`self._metrics` are new; `count` images are in this process's batch."""
        return

    def _after_step(self, loggers: list[MetricLogger], display: Display) -> bool:
        """Whether a checkpoint is due besides the usual ones."""
        return False

    def _metrics_to_save(self) -> dict[str, float]:
        """What the next checkpoint says of itself."""
        return dict(self._metrics)

    # The loop

    def run(self) -> Path:
        """All steps that are left; returns the run's folder."""
        with ExitStack() as stack:
            loggers = self._open_folder(stack)
            for warning in self._warnings():
                self._print(f"warning: {warning}")
            display = stack.enter_context(open_display(self._console, self._step, self._total))
            stop = stack.enter_context(StopRequest())
            if self._leads:
                greys.announce(self._source)
            if self._trainer.compiles and self._step < self._total:
                display.compiling()
            for batch in self._batches(stack):
                self._advance(batch, loggers, display)
                due = self._finish_step(loggers, display)
                stopping = self._trainer.any_rank(stop.received is not None or self._problem is not None)
                if due or stopping or self._step % self._run_config.checkpoint_every == 0 or self._step == self._total:
                    self._save()
                if self._problem:
                    raise self._problem
                if stopping and self._step < self._total:
                    raise TrainingError(
                        f"stopped at step {self._step} of {self._total}; saved; "
                        f"go on with: pcae {self.command} --resume {self._run_config.out}"
                    )
        self._say_where()
        return self._run_config.out

    def _finish_step(self, loggers: list[MetricLogger], display: Display) -> bool:
        """`_after_step`, which is no part of the step's time, and whose failure loses no step."""
        began = time.monotonic()
        try:
            return self._after_step(loggers, display)
        except PcaeError:
            self._save()
            raise
        finally:
            self._window.began += time.monotonic() - began

    def _say_where(self) -> None:
        """Where the run, its metrics and its newest checkpoint are."""
        if self._leads:
            out = self._run_config.out
            places = {"run": out, "metrics": out / "metrics.jsonl", "checkpoint": checkpoint.find(out)}
            for name, place in places.items():
                self._print(f"{name:<11}{place}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _open_folder(self, stack: ExitStack) -> list[MetricLogger]:
        """Where measurements go. Raises ConfigError in every process when rank 0 cannot have the folder."""
        elsewhere = ConfigError("rank 0 cannot use the run's folder, and says why")
        return self._on_rank_0(lambda: self._take_folder(stack), elsewhere) or []

    def _on_rank_0(self, work: Callable[[], T], elsewhere: PcaeError) -> T | None:
        """What the work gives there, and None elsewhere. When it raises PcaeError, the other processes raise theirs."""
        problem, done = None, None
        try:
            done = work() if self._leads else None
        except PcaeError as error:
            problem = error
        if self._trainer.any_rank(problem is not None):
            raise problem or elsewhere
        return done

    def _take_folder(self, stack: ExitStack) -> list[MetricLogger]:
        run.make_folder(self._run_config.out)
        stack.enter_context(run.lock(self._run_config.out))
        run.write_config(self._run_config)
        loggers = open_loggers(self._run_config, self._step)
        for logger in loggers:
            stack.callback(logger.close)
        return loggers

    def _batches(self, stack: ExitStack) -> Iterator[Batch]:
        if self._step >= self._total:
            return iter(())
        loader = TrainLoader(
            self._source,
            self._run_config,
            self._pipeline,
            start_step=self._step,
            total_steps=self._total,
            rank=self._trainer.rank,
            world_size=self._trainer.world_size,
        )
        return iter(stack.enter_context(loader))

    def _advance(self, batch: Batch, loggers: list[MetricLogger], display: Display) -> None:
        """One step, and its measurement when it is due."""
        try:
            self._corrupt.add(batch.corrupt)
        except TrainingError as error:  # after this step, which the other processes take too
            self._problem = error
        count = len(batch.images)
        rate, momentum = self._run_config.hyper_parameters(self._step, self._total)
        inputs = self._inputs(batch, Place(self._step, self._trainer.rank * count, count))
        out = self._take_step(inputs, rate, momentum)
        many = self._guard.add(self._step, out.finite)
        self._step += 1
        self._window.losses.append(out.loss)
        display.advance(self._step)
        measuring = self._step % self._run_config.log_every == 0 or self._step == self._total
        if many or measuring:
            self._look_for_skipped(display)
        if measuring:
            self._measure(out, rate, momentum)
            finite = {name: value for name, value in self._metrics.items() if math.isfinite(value)}
            for logger in loggers:
                logger.write(self._step, finite)
            display.measure(self._step, self._metrics)
            self._after_measuring(display, count)

    def _look_for_skipped(self, display: Display) -> None:
        """Say when steps begin to be skipped. Raises TrainingError when too many in a row are."""
        before = self._guard.first
        give_up = self._guard.look(self._backend.to_numpy)
        first = self._guard.first
        if first is None:
            return
        if give_up:
            try:
                if self._leads:
                    guard.write_inputs(self._run_config.out, first, self._inputs_of_all(first))
            finally:
                self._trainer.any_rank(False)  # waits: a process that ends takes the others with it
            raise TrainingError(guard.advice(self._run_config, self.command, first))
        if first != before and self._run_config.precision != "float16":  # which overflows as a matter of course
            display.say(f"warning: step {first + 1} is skipped: its loss or gradient is not finite")

    def _inputs_of_all(self, step: int) -> Inputs:
        """What all processes together take at 0-based `step`, drawn once more."""
        loader = TrainLoader(self._source, self._run_config, self._pipeline, start_step=step, total_steps=step + 1)
        with loader:
            batch = next(iter(loader))
        return {**self._inputs(batch, Place(step, 0, len(batch.images))), "sample_ids": batch.sample_ids}

    def _drop_path(self, place: Place) -> Array | None:
        """Factors of the residual branches (L, 2, B)."""
        return randomness.drop_path_scales(self._run_config.seed, place.step, place.first, place.count, self._rates)

    def _measure(self, out: O, learning_rate: float, momentum: float) -> None:
        to_numpy, config = self._backend.to_numpy, self._run_config
        losses = [float(to_numpy(loss)) for loss in self._window.losses]
        finite = [loss for loss in losses if math.isfinite(loss)]
        seconds = time.monotonic() - self._window.began
        more = self._more_metrics(out, losses[-1])
        self._metrics = {
            "loss": self._trainer.mean_over_ranks(sum(finite) / len(finite) if finite else math.nan),
            **more,
            "learning_rate": learning_rate,
            "ema_momentum": momentum,
            "images_per_second": len(losses) * config.batch_size / seconds,
            "epoch": self._step * config.batch_size / len(self._source),
            "corrupt_images": float(self._corrupt.count),
            "skipped_steps": float(self._guard.skipped),
            "grad_norm": float(to_numpy(out.grad_norm)),
        }
        self._window = _Window()

    def _save(self) -> None:
        """Write a checkpoint."""
        if not self._leads:
            return
        metrics = self._metrics_to_save()
        folder = run.checkpoints_folder(self._run_config.out)
        position = data_position(self._run_config, self._source, self._step)
        framework = _framework(self._backend.name)
        checkpoint.save(folder, self._trainer.state(), self._run_config, position, metrics, framework)
        checkpoint.prune(folder)


def _framework(name: str) -> dict[str, str]:
    info = registry.available().get(name)
    return {"backend": name, "framework": (info.version if info else None) or "unknown"}
