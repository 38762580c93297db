"""The loop around a trainer's step that every kind of run shares: data, measurements, checkpoints, stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from pcae_core import registry
from pcae_core.config import RunConfig
from pcae_core.config.finetune import AnyRunConfig
from pcae_core.contract import Array, Backend, Finetuner, Pretrainer
from pcae_core.data import Batch, CorruptLog, Source, greys
from pcae_core.errors import ConfigError, PcaeError, TrainingError
from pcae_core.storage import checkpoint
from pcae_core.storage.checkpoint import DataPosition
from pcae_core.storage.run import Run
from pcae_core.training import guard
from pcae_core.training.display import Display, open_display
from pcae_core.training.inputs import Place, StepInputs
from pcae_core.training.loggers import MetricLogger, open_loggers, write_all
from pcae_core.training.monitor import Monitor, StepOutput
from pcae_core.training.signals import StopRequest

T = TypeVar("T")


def data_position(config: RunConfig, source: Source, step: int) -> DataPosition:
    """Where a run is in its data after `step` steps."""
    return DataPosition(fingerprint=source.fingerprint, num_samples=len(source), samples_seen=step * config.batch_size)


@dataclass
class _Window:
    """The steps since the last measurement."""

    began: float = field(default_factory=time.monotonic)
    losses: list[Array] = field(default_factory=list)


class Loop:
    """One process's part of a run. Only rank 0 measures, writes and shows anything."""

    def __init__(
        self,
        config: AnyRunConfig,
        source: Source,
        backend: Backend,
        trainer: Pretrainer | Finetuner,
        start_step: int,
        console: Console,
        *,
        inputs: StepInputs,
        monitor: Monitor[Any],
        notes: Sequence[str] = (),
    ) -> None:
        """Prepare a run.

        Args:
            inputs: of the trainer's steps.
            monitor: of this kind of run.
            notes: shown as warnings before the first step, a line each.
        """
        self._config, self._source, self._backend, self._trainer = config, source, backend, trainer
        self._run = Run(config.out)
        self._step, self._total = start_step, config.total_steps(len(source))
        self._command = checkpoint.kind_of(type(config))
        self._leads = trainer.rank == 0
        self._console = console if self._leads else Console(quiet=True)
        self._corrupt = CorruptLog(source, config.max_corrupt, "replaced by the next readable image")
        self._inputs, self._monitor, self._notes = inputs, monitor, notes
        self._problem: PcaeError | None = None
        self._metrics: dict[str, float] = {}
        self._window = _Window()
        self._guard = guard.NonFiniteGuard(config.max_skipped_steps)

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
                scored = self._score(loggers, display)
                stopping = self._trainer.any_rank(stop.received is not None or self._problem is not None)
                if scored or stopping or self._step % self._config.checkpoint_every == 0 or self._step == self._total:
                    self.save()
                if self._problem:
                    raise self._problem
                if stopping and self._step < self._total:
                    raise TrainingError(
                        f"stopped at step {self._step} of {self._total}; saved; "
                        f"go on with: pcae {self._command} --resume {self._config.out}"
                    )
        self._say_where()
        return self._config.out

    def _warnings(self) -> list[str]:
        """Lines that the user should read before the first step."""
        config, images = self._config, len(self._source)
        if config.batch_size < images or self._step > 0:  # a run that goes on keeps its batch size
            return [*self._notes]
        return [
            f"a batch of {config.batch_size} is no smaller than the data set of {images} images: each optimizer step "
            f"is a whole epoch or more, and the run has {self._total} in all; choose a smaller --batch-size",
            *self._notes,
        ]

    def _score(self, loggers: list[MetricLogger], display: Display) -> bool:
        """Let the monitor score when it is due; returns whether it was.

        The time it takes does not count as the steps'. When it fails, the run is saved first.
        """
        if not self._monitor.scores_after(self._step):
            return False
        began = time.monotonic()
        elsewhere = TrainingError("rank 0 cannot score the test split, and says why")
        try:
            self._on_rank_0(lambda: self._show_score(loggers, display), elsewhere)
        except PcaeError:
            self.save()
            raise
        self._window.began += time.monotonic() - began
        return True

    def _show_score(self, loggers: list[MetricLogger], display: Display) -> None:
        found = self._monitor.score(self._step, self._trainer.state())
        write_all(loggers, self._step, found.metrics)
        for line in found.lines:
            display.say(line)

    def _say_where(self) -> None:
        """Print where the run, its metrics and its newest checkpoint are."""
        if self._leads:
            places = {"run": self._run.path, "metrics": self._run.metrics, "checkpoint": self._run.newest}
            for name, place in places.items():
                self._print(f"{name:<11}{place}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _open_folder(self, stack: ExitStack) -> list[MetricLogger]:
        """Open the loggers. Raises ConfigError in every process when rank 0 cannot use the run's folder."""
        elsewhere = ConfigError("rank 0 cannot use the run's folder, and says why")
        return self._on_rank_0(lambda: self._take_folder(stack), elsewhere) or []

    def _on_rank_0(self, work: Callable[[], T], elsewhere: PcaeError) -> T | None:
        """Do the work on rank 0 and return its result. If it raises PcaeError, the other processes raise theirs."""
        problem, done = None, None
        try:
            done = work() if self._leads else None
        except PcaeError as error:
            problem = error
        if self._trainer.any_rank(problem is not None):
            raise problem or elsewhere
        return done

    def _take_folder(self, stack: ExitStack) -> list[MetricLogger]:
        stack.enter_context(self._run.training(self._config))
        loggers = open_loggers(self._config, self._step)
        for logger in loggers:
            stack.callback(logger.close)
        return loggers

    def _batches(self, stack: ExitStack) -> Iterator[Batch]:
        if self._step >= self._total:
            return iter(())
        trainer = self._trainer
        loader = self._inputs.loader(self._step, self._total, trainer.rank, trainer.world_size)
        return iter(stack.enter_context(loader))

    def _advance(self, batch: Batch, loggers: list[MetricLogger], display: Display) -> None:
        """One step, and its measurement when it is due."""
        try:
            self._corrupt.add(batch.corrupt)
        except TrainingError as error:  # after this step, which the other processes take too
            self._problem = error
        count = len(batch.images)
        rate, momentum = self._config.hyper_parameters(self._step, self._total)
        inputs = self._inputs.of(batch, Place(self._step, self._trainer.rank * count, count))
        out = self._trainer.step(**inputs, learning_rate=rate, momentum=momentum)
        many = self._guard.add(self._step, out.finite)
        self._step += 1
        self._window.losses.append(out.loss)
        display.advance(self._step)
        measuring = self._step % self._config.log_every == 0 or self._step == self._total
        if many or measuring:
            self._look_for_skipped(display)
        if measuring:
            self._measure(out, {"learning_rate": rate, "ema_momentum": momentum}, loggers, display)

    def _look_for_skipped(self, display: Display) -> None:
        """Warn when a step is skipped. Raises TrainingError when too many in a row are."""
        before = self._guard.first
        give_up = self._guard.look(self._backend.to_numpy)
        first = self._guard.first
        if first is None:
            return
        if give_up:
            try:
                if self._leads:
                    guard.write_inputs(self._config.out, first, self._inputs.of_all_ranks(first))
            finally:
                self._trainer.any_rank(False)  # waits: a process that ends takes the others with it
            raise TrainingError(guard.advice(self._config, self._command, first))
        if first != before and self._config.precision != "float16":  # which overflows as a matter of course
            display.say(f"warning: step {first + 1} is skipped: its loss or gradient is not finite")

    def _measure(self, out: StepOutput, rates: dict[str, float], loggers: list[MetricLogger], display: Display) -> None:
        """Measure the steps since the last time; rank 0 logs and shows it."""
        window, self._window = self._window, _Window()
        losses = [float(self._backend.to_numpy(loss)) for loss in window.losses]
        finite = [loss for loss in losses if math.isfinite(loss)]
        seconds = time.monotonic() - window.began
        mean = self._trainer.mean_over_ranks(sum(finite) / len(finite) if finite else math.nan)
        if not self._leads:
            return
        found = self._monitor.measure(self._step, out, losses[-1])
        self._metrics = {
            "loss": mean,
            **found.metrics,
            **rates,
            "images_per_second": len(losses) * self._config.batch_size / seconds,
            "epoch": self._step * self._config.batch_size / len(self._source),
            "corrupt_images": float(self._corrupt.count),
            "skipped_steps": float(self._guard.skipped),
            "grad_norm": float(self._backend.to_numpy(out.grad_norm)),
        }
        self._window.began = time.monotonic()  # measuring is no part of the time of the next steps, logging is
        write_all(loggers, self._step, self._metrics)
        display.measure(self._step, self._metrics)
        for line in found.lines:
            display.say(line)

    def save(self) -> None:
        """Write a checkpoint, on rank 0."""
        if not self._leads:
            return
        metrics = {**self._metrics, **self._monitor.checkpoint_metrics(self._step)}
        position = data_position(self._config, self._source, self._step)
        framework = _framework(self._backend.name)
        self._run.save(self._trainer.state(), self._config, position, metrics, framework)
        self._monitor.checkpoint_written()


def _framework(name: str) -> dict[str, str]:
    info = registry.available().get(name)
    return {"backend": name, "framework": (info.version if info else None) or "unknown"}
