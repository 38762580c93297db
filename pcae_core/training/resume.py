"""Find where a run continues, and check the settings that it must keep."""

from __future__ import annotations

from dataclasses import dataclass

from pcae_core.config import RunConfig
from pcae_core.config.finetune import AnyRunConfig
from pcae_core.errors import ConfigError, DataError
from pcae_core.storage import checkpoint
from pcae_core.storage.checkpoint import Checkpoint, DataPosition
from pcae_core.storage.run import Run

FREE_TO_CHANGE = {
    *("data", "out", "pretrained", "backend", "device", "compile", "accumulation", "precision"),
    *("checkpoint_every", "log_every", "max_skipped_steps", "max_corrupt", "tensorboard", "wandb"),
    *("split", "ignore_unknown_classes"),
}
"""Settings that a continued run may change. They do not change its steps, except for rounding."""


@dataclass(frozen=True)
class Start:
    """Where a run starts: at step 0, or at a checkpoint."""

    step: int
    resumed: Checkpoint | None


def find_start(config: AnyRunConfig, data: DataPosition) -> Start:
    """The newest checkpoint in `config.out`, or the beginning.

    Raises:
        CheckpointError: damaged, or of another architecture.
        ConfigError: the run was started with other settings, or `config.out` is a checkpoint.
        DataError: the data set is not the one that the run was started with.
    """
    if (config.out / checkpoint.MANIFEST).is_file():
        raise ConfigError(f"{config.out} is a checkpoint, not a run's folder; choose another --out")
    run = Run(config.out)
    if not run.checkpoints:
        return Start(0, None)
    run.check_kind(checkpoint.kind_of(type(config)))
    found = run.load(run.newest, config.model)
    _check_settings(config, found.manifest.config)
    if found.manifest.data.fingerprint != data.fingerprint:
        raise DataError(
            f"{config.data} is not the data set that the run {config.out} was started with; start a new run with "
            "another --out"
        )
    return Start(found.state.step, found)


def _check_settings(config: RunConfig, started: RunConfig) -> None:
    ours, theirs = _fixed_settings(config), _fixed_settings(started)
    changes = [f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if ours[key] != theirs[key]]
    if changes:
        longer = ours["steps"] != theirs["steps"] or ours["epochs"] != theirs["epochs"]
        why = "; its schedules depend on its length" if longer else ""
        raise ConfigError(
            f"the run {config.out} was started with {'; '.join(changes)}, and must keep its settings{why}; continue it "
            "with these, or start a new run with another --out"
        )


def _fixed_settings(config: RunConfig) -> dict[str, object]:
    values = config.to_dict()
    loader = values.pop("loader")
    loader.pop("workers")
    values |= {f"loader.{key}": value for key, value in loader.items()}
    return {key: value for key, value in values.items() if key not in FREE_TO_CHANGE}
