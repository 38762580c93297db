"""Show training: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import abc
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typing_extensions import override

COMPILING = "compiling the first step"


class Display(abc.ABC):
    """Shows the steps of a run; a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    @abc.abstractmethod
    def advance(self, step: int) -> None:
        """`step` optimizer steps are done."""

    @abc.abstractmethod
    def compiling(self) -> None:
        """The next step is the first one and is compiled first."""

    @abc.abstractmethod
    def measure(self, step: int, metrics: dict[str, float]) -> None:
        """New measurements."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """A line of text."""


class Bar(Display):
    """A progress bar with loss, learning rate, images/s and the time that is left."""

    def __init__(self, console: Console, start_step: int, total_steps: int) -> None:
        columns = (
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[measured]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
        )
        self._progress = Progress(*columns, console=console, expand=True)
        self._task = self._progress.add_task("", total=total_steps, completed=start_step, measured="")
        self._measured = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    @override
    def advance(self, step: int) -> None:
        self._progress.update(self._task, completed=step, measured=self._measured)

    @override
    def compiling(self) -> None:
        self._progress.update(self._task, measured=COMPILING)

    @override
    def measure(self, step: int, metrics: dict[str, float]) -> None:
        self._measured = summary(metrics)
        self._progress.update(self._task, measured=self._measured)

    @override
    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


class Lines(Display):
    """One line every few seconds, for logs."""

    SECONDS_BETWEEN = 5.0

    def __init__(self, console: Console, start_step: int, total_steps: int) -> None:
        self._console, self._start, self._total = console, start_step, total_steps
        self._begun = time.monotonic()
        self._last = float("-inf")

    @override
    def advance(self, step: int) -> None:
        pass

    @override
    def compiling(self) -> None:
        self.say(COMPILING)

    @override
    def measure(self, step: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._last < self.SECONDS_BETWEEN and step < self._total:
            return
        self._last = now
        left = (now - self._begun) / max(1, step - self._start) * (self._total - step)
        self.say(f"step {step}/{self._total}  {summary(metrics)}  ETA {left:.0f} s")

    @override
    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def summary(metrics: dict[str, float]) -> str:
    """The few numbers worth a glance, short enough for a terminal of 80 columns."""
    ratio = f" ({metrics['loss_ratio']:.2f} of const)" if "loss_ratio" in metrics else ""
    return (
        f"loss {metrics['loss']:.4f}{ratio}  lr {metrics['learning_rate']:.1e}  "
        f"{metrics['images_per_second']:.0f} img/s"
    )


def open_display(console: Console, start_step: int, total_steps: int) -> Display:
    """A bar in a terminal, plain lines elsewhere."""
    return (Bar if console.is_terminal else Lines)(console, start_step, total_steps)
