"""A run's folder: `config.yaml`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`; starting and continuing it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import filelock

from pcae_core.config import Config, RunConfig
from pcae_core.config.finetune import AnyRunConfig
from pcae_core.errors import CheckpointError, ConfigError, DataError
from pcae_core.storage import atomic, checkpoint
from pcae_core.storage.checkpoint import Checkpoint, DataPosition

C = TypeVar("C", bound=Config)

LOCK = ".lock"

FREE_TO_CHANGE = {
    *("data", "out", "pretrained", "backend", "device", "compile", "accumulation", "precision"),
    *("checkpoint_every", "log_every", "max_skipped_steps", "max_corrupt", "tensorboard", "wandb"),
    *("split", "ignore_unknown_classes"),
}
"""Settings that a continued run may change: they do not enter what is trained, or only its rounding."""


@dataclass(frozen=True)
class Start:
    """From where a run goes on: nothing saved yet, or a checkpoint."""

    step: int
    resumed: Checkpoint | None


def checkpoints_folder(out: Path) -> Path:
    """Where a run's checkpoints are."""
    return out / "checkpoints"


def find_start(config: AnyRunConfig, data: DataPosition) -> Start:
    """The newest checkpoint in `config.out`, or the beginning.

    Raises:
        CheckpointError: damaged, or of another architecture.
        ConfigError: the run was started with other settings.
        DataError: the data set is not the one that the run was started with.
    """
    if not checkpoint.list_checkpoints(checkpoints_folder(config.out)):
        return Start(0, None)
    check_kind(config.out, checkpoint.kind_of(config))
    found = checkpoint.load(config.out, config.model)
    _check_settings(config, found.manifest.config)
    if found.manifest.data.fingerprint != data.fingerprint:
        raise DataError(
            f"{config.data} is not the data set that the run {config.out} was started with; start a new run with "
            "another --out"
        )
    return Start(found.state.step, found)


def check_kind(out: Path, kind: str) -> None:
    """Raises CheckpointError unless `out` is a run of this kind, with a checkpoint."""
    found = checkpoint.read_manifest(checkpoint.find(out)).kind
    if found != kind:
        raise CheckpointError(f"{out} is a run of pcae {found}, not of pcae {kind}")


def _check_settings(config: RunConfig, started: RunConfig) -> None:
    ours, theirs = _fixed_settings(config), _fixed_settings(started)
    changes = [f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if ours[key] != theirs[key]]
    if changes:
        longer = ours["steps"] != theirs["steps"] or ours["epochs"] != theirs["epochs"]
        why = ", since its schedules are laid out for its length, which cannot be changed" if longer else ""
        raise ConfigError(
            f"the run {config.out} was started with {'; '.join(changes)}, and can only go on so{why}; start a new run "
            "with another --out"
        )


def _fixed_settings(config: RunConfig) -> dict[str, object]:
    values = config.to_dict()
    loader = values.pop("loader")
    loader.pop("workers")
    values |= {f"loader.{key}": value for key, value in loader.items()}
    return {key: value for key, value in values.items() if key not in FREE_TO_CHANGE}


def make_folder(out: Path) -> None:
    """Create the run's folder. Raises ConfigError when it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(out, error) from None


def write_config(config: RunConfig) -> None:
    """Write the effective configuration into the run's folder, whole or not at all. Raises ConfigError."""
    try:
        with atomic.whole_file(config.out / "config.yaml") as writing:
            writing.write_text(config.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise _not_writable(config.out, error) from None


def _not_writable(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write the run's folder {out}: {error.strerror or error}; choose another --out")


def lock(out: Path) -> AbstractContextManager[object]:
    """Keep other processes from training in the run's folder; a process that dies, however, gives it free.

    Raises:
        ConfigError: one does.
    """
    try:
        return filelock.FileLock(out / LOCK, timeout=0).acquire()
    except filelock.Timeout:
        raise ConfigError(f"another process trains in {out}; wait for it, stop it, or choose another --out") from None
    except OSError as error:
        raise _not_writable(out, error) from None


def read_config(out: Path, kind: type[C]) -> C:
    """The configuration of the run in `out`. Raises CheckpointError when there is no run."""
    path = out / "config.yaml"
    if not path.is_file():
        raise CheckpointError(f"{out} is not a run's folder: it holds no config.yaml")
    return kind.from_yaml(path)
