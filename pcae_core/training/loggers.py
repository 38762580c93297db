"""Where measurements go: `metrics.jsonl`, TensorBoard files, Weights & Biases."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from pcae_core.config import RunConfig
from pcae_core.errors import ConfigError, MissingExtraError


class MetricLogger(abc.ABC):
    """One destination."""

    @abc.abstractmethod
    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Record the measurements, finite numbers, of the optimizer step that made `step` steps done."""

    @abc.abstractmethod
    def close(self) -> None:
        """Flush and close."""


class JsonlLogger(MetricLogger):
    """One JSON object a line. Lines of steps after `start_step`, which will be done again, are cut off.

    Raises:
        ConfigError: the disk refuses, here or in `write`.
    """

    def __init__(self, path: Path, start_step: int) -> None:
        self._path = path
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= start_step]
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text("".join(kept), encoding="utf-8")
            temporary.replace(path)
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise self._refused(error) from None

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """See `MetricLogger`."""
        try:
            self._file.write(json.dumps({"step": step} | metrics) + "\n")
        except OSError as error:
            raise self._refused(error) from None

    def close(self) -> None:
        """See `MetricLogger`."""
        with contextlib.suppress(OSError):  # what `write` could not write
            self._file.close()

    def _refused(self, error: OSError) -> ConfigError:
        return ConfigError(f"cannot write {self._path}: {error.strerror}; what was saved is whole, and can be resumed")


def _whole_lines(path: Path) -> list[str]:
    """Lines that a crash did not cut short."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]


class TensorBoardLogger(MetricLogger):
    """TensorBoard event files."""

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """See `MetricLogger`."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `MetricLogger`."""
        self._writer.close()


class WandbLogger(MetricLogger):
    """Weights & Biases; the run's identity is its folder's path, so that a resumed run is one run there too."""

    def __init__(self, config: RunConfig) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtraError('wandb is not installed; install it with: pip install "pcae[wandb]"') from None
        identity = hashlib.sha256(str(config.out.resolve()).encode()).hexdigest()[:16]
        self._run: Any = wandb.init(
            project="pcae", name=config.out.name, id=identity, resume="allow", dir=config.out, config=config.to_dict()
        )

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """See `MetricLogger`."""
        self._run.log(metrics, step=step)

    def close(self) -> None:
        """See `MetricLogger`."""
        self._run.finish()


def open_loggers(config: RunConfig, start_step: int) -> list[MetricLogger]:
    """The destinations that `config` asks for. Raises MissingExtraError."""
    loggers: list[MetricLogger] = [JsonlLogger(config.out / "metrics.jsonl", start_step)]
    if config.tensorboard:
        loggers.append(TensorBoardLogger(config.out / "tensorboard", start_step))
    if config.wandb:
        loggers.append(WandbLogger(config))
    return loggers
