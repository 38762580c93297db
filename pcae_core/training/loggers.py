"""Where measurements go: `metrics.jsonl`, TensorBoard files, Weights & Biases."""

from __future__ import annotations

import abc
import contextlib
import errno
import json
import math
import re
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from pcae_core.config import RunConfig
from pcae_core.errors import ConfigError, MissingExtraError
from pcae_core.storage import atomic
from pcae_core.storage.run import Run

MISSING = float("nan")
LARGEST = 1e100
"""Measurements beyond are as good as infinite, and would leave a chart no room for the others."""


class MetricLogger(abc.ABC):
    """One destination."""

    @abc.abstractmethod
    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Record the measurements, finite numbers, of the optimizer step that made `step` steps done."""

    @abc.abstractmethod
    def close(self) -> None:
        """Flush and close."""


def write_all(loggers: Sequence[MetricLogger], step: int, metrics: Mapping[str, float]) -> None:
    """Record the finite ones of the measurements everywhere."""
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    for logger in loggers:
        logger.write(step, finite)


class JsonlLogger(MetricLogger):
    """One JSON object a line. Lines of steps after `start_step`, which will be done again, are cut off, and
    damaged ones.

    Raises:
        ConfigError: the disk refuses, here or in `write`.
    """

    def __init__(self, path: Path, start_step: int) -> None:
        self._path = path
        try:
            kept = [line for line in read_lines(path) if _step_of(line) <= start_step]
            with atomic.whole_file(path) as writing:
                writing.write_text("".join(kept), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise _refused(self._path, error) from None

    @override
    def write(self, step: int, metrics: dict[str, float]) -> None:
        try:
            self._file.write(json.dumps({"step": step} | metrics) + "\n")
        except OSError as error:
            raise _refused(self._path, error) from None

    @override
    def close(self) -> None:
        with contextlib.suppress(OSError):  # what `write` could not write
            self._file.close()


def _refused(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path}: {error.strerror}; what was saved is whole, and can be resumed")


def read_lines(path: Path) -> list[str]:
    """The lines of a `metrics.jsonl` with their ends; none where there is no file. Raises OSError."""
    if not path.exists():
        return []
    if not path.is_file():  # reading a pipe or a device may never end
        raise OSError(errno.EINVAL, "it is no file")
    return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)


def parse_line(line: str) -> dict[str, float] | None:
    """The numbers of a line, NaN beyond `LARGEST`; None when it is not an object with a step."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    numbers = {name: _number(value) for name, value in values.items() if isinstance(value, int | float)}
    return numbers if math.isfinite(numbers.get("step", MISSING)) else None


def _number(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return MISSING
    return number if abs(number) < LARGEST else MISSING


def _step_of(line: str) -> float:
    """Infinite when the line is damaged, or cut short by a crash."""
    numbers = parse_line(line) if line.endswith("\n") else None
    return math.inf if numbers is None else numbers["step"]


class TensorBoardLogger(MetricLogger):
    """TensorBoard event files. tensorboardX's own writer waits for its thread, which ends when the disk refuses.

    Raises:
        ConfigError: the disk refuses, here or in `write`.
    """

    SECONDS_BETWEEN_SYNCS = 30.0

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        self._folder, self._event = folder, Event
        self._synced = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{start_step}"
            self._file = RecordWriter(str(folder / name))
            self._write(Event(file_version="brain.Event:2"))
            # Later steps of a run that is continued are done again
            self._write(Event(step=start_step + 1, session_log=SessionLog(status=SessionLog.START)))
            self._file.flush()
        except OSError as error:
            raise _refused(folder, error) from None

    @override
    def write(self, step: int, metrics: dict[str, float]) -> None:
        values = [{"tag": name, "simple_value": value} for name, value in metrics.items()]
        try:
            self._write(self._event(step=step, summary={"value": values}))
            if time.monotonic() - self._synced > self.SECONDS_BETWEEN_SYNCS:
                self._file.flush()
                self._synced = time.monotonic()
        except OSError as error:
            raise _refused(self._folder, error) from None

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())

    @override
    def close(self) -> None:
        with contextlib.suppress(OSError):  # what `write` could not write
            self._file.close()


class WandbLogger(MetricLogger):
    """Weights & Biases. The run's id there is drawn at its start and kept in its folder: a run that goes on, or whose
    folder was renamed, is one run there too, and another run in the same place is another one.

    Raises:
        MissingExtraError, ConfigError: the package is missing, or cannot be used; the disk refuses.
    """

    ID = "wandb-id"

    def __init__(self, config: RunConfig, start_step: int) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtraError('wandb is not installed; install it with: pip install "pcae[wandb]"') from None
        identity = self._identity(config.out / self.ID, start_step)
        where = {"project": "pcae", "name": config.out.name, "id": identity, "resume": "allow", "dir": config.out}
        try:
            self._run: Any = wandb.init(**where, config=config.to_dict())
        except Exception as error:  # no login, no network: its errors have no base of their own in all versions
            raise ConfigError(f"Weights & Biases cannot be used: {error}; log in with: wandb login") from None

    def _identity(self, path: Path, start_step: int) -> str:
        try:
            kept = path.read_text(encoding="ascii", errors="replace").strip() if start_step and path.is_file() else ""
            if re.fullmatch("[0-9a-f]{16}", kept):
                return kept
            path.write_text(drawn := secrets.token_hex(8), encoding="ascii")
        except OSError as error:
            raise _refused(path, error) from None
        return drawn

    @override
    def write(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log(metrics, step=step)

    @override
    def close(self) -> None:
        self._run.finish()


def open_loggers(config: RunConfig, start_step: int) -> list[MetricLogger]:
    """The destinations that `config` asks for. Raises MissingExtraError."""
    loggers: list[MetricLogger] = [JsonlLogger(Run(config.out).metrics, start_step)]
    if config.tensorboard:
        loggers.append(TensorBoardLogger(config.out / "tensorboard", start_step))
    if config.wandb:
        loggers.append(WandbLogger(config, start_step))
    return loggers
