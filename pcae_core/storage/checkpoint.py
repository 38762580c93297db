"""Checkpoints: a folder of safetensors files and a JSON manifest that tells everything else.

    RUN/checkpoints/step_00001000/
        student.safetensors  teacher.safetensors  optimizer.safetensors  manifest.json

A checkpoint is written whole or not at all (`atomic`): each folder that has a checkpoint's name is complete. Tensors
carry canonical names (`pcae_core.parameters`). Only a note in the manifest tells which framework wrote them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pcae_core.config import Config, ModelConfig, RunConfig
from pcae_core.config.finetune import AnyRunConfig, FinetuneConfig
from pcae_core.contract import TrainState
from pcae_core.errors import CheckpointError
from pcae_core.parameters import Shapes, encoder_shapes, finetuned_shapes, is_trainable, student_shapes
from pcae_core.storage import atomic
from pcae_core.storage.manifest import FileEntry, read_json, read_tensors, versions, write_manifest, write_tensors
from pcae_core.storage.tensors import check_tensors

FORMAT = 1
MANIFEST = "manifest.json"
FILES = ("student.safetensors", "teacher.safetensors", "optimizer.safetensors")
KEEP_LAST = 3
CHECKPOINTS = "checkpoints"
"""The folder of a run that its checkpoints lie in."""


class DataPosition(Config):
    """Where a run is in its data; with the seed it determines every later batch.

    Attributes:
        fingerprint: of the data set.
        num_samples: size of the data set.
        samples_seen: images taken so far, over all processes.
    """

    fingerprint: str
    num_samples: int
    samples_seen: int


class Manifest(Config):
    """What a checkpoint says of itself.

    Attributes:
        kind: of run.
        metrics: the run's measurements when it was written; in pre-training the lowest `loss_ratio`, in fine-tuning
            the highest `top1` is the best checkpoint.
        versions: of pcae, python, numpy and the framework that wrote it: a note, never read back.
    """

    format: int
    kind: Literal["pretrain", "finetune"] = "pretrain"
    step: int
    seed: int
    loss_scale: tuple[float, int] | None
    data: DataPosition
    metrics: dict[str, float]
    versions: dict[str, str]
    config: AnyRunConfig
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    path: Path
    manifest: Manifest
    state: TrainState


def save(
    folder: Path,
    state: TrainState,
    config: AnyRunConfig,
    data: DataPosition,
    metrics: dict[str, float],
    framework: dict[str, str],
) -> Path:
    """Write `folder/step_XXXXXXXX`, unless a whole one is there already, and return it.

    Args:
        folder: the run's `checkpoints` folder.
        metrics: finite numbers are kept, others left out.
        framework: name and version of the framework, as a note.

    Raises:
        CheckpointError: the disk refuses; what was saved before is untouched.
    """
    final = folder / f"step_{state.step:08d}"
    if final.exists():
        return final
    moments = {f"exp_avg.{k}": v for k, v in state.exp_avg.items()}
    moments |= {f"exp_avg_sq.{k}": v for k, v in state.exp_avg_sq.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.whole_folder(final, durable=True) as writing:
            entries = write_tensors(writing, dict(zip(FILES, (state.student, state.teacher, moments), strict=True)))
            manifest = Manifest(
                format=FORMAT,
                kind=kind_of(type(config)),
                step=state.step,
                seed=config.seed,
                loss_scale=state.loss_scale,
                data=data,
                metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
                versions=versions() | framework,
                config=config,
                files=entries,
            )
            write_manifest(writing / MANIFEST, manifest)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {final}: {error.strerror or error}") from None
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a run's `checkpoints` folder, oldest first."""
    return sorted(path for path in folder.glob("step_*") if (path / MANIFEST).is_file())


def checkpoints_of(path: Path) -> list[Path]:
    """The checkpoints of a run's folder, oldest first; or `path` alone, if it is a checkpoint's folder."""
    return [path] if (path / MANIFEST).is_file() else list_checkpoints(path / CHECKPOINTS)


def find(path: Path) -> Path:
    """The checkpoint meant by `path`: a checkpoint's folder, or the newest of a run's.

    Raises:
        CheckpointError: there is none.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a run's folder or one of its checkpoints")
    found = checkpoints_of(path)
    if not found:
        foreign = path.is_file() or (path / "config.json").is_file()
        advice = "; pcae convert makes an encoder of somebody else's model" if foreign else ""
        raise CheckpointError(f"{path} holds no checkpoint; give a run's folder or one of its checkpoints{advice}")
    return found[-1]


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint folder `path`. Raises CheckpointError when it is damaged."""
    return read_json(path / MANIFEST, Manifest)


def load(path: Path, model: ModelConfig | None = None) -> Checkpoint:
    """Read a checkpoint and check everything in it.

    Args:
        path: a checkpoint's folder or a run's (then its newest checkpoint).
        model: the architecture that is expected, if any.

    Raises:
        CheckpointError: missing, truncated or changed files; another architecture; missing, surplus or misshapen
            tensors, which are listed.
    """
    path = find(path)
    return read(path, read_manifest(path), model)


def read(path: Path, manifest: Manifest, model: ModelConfig | None = None) -> Checkpoint:
    """As `load`, but of a checkpoint's folder whose manifest was read already."""
    if manifest.format != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {manifest.format}; this version reads format {FORMAT}")
    _check_architecture(path, manifest.config.model, model)
    student, teacher, moments = (read_tensors(path, manifest.files, name) for name in FILES)
    student_expected, teacher_expected, trained = _expected(manifest.config)
    check_tensors(path / FILES[0], student, student_expected)
    check_tensors(path / FILES[1], teacher, teacher_expected)
    check_tensors(
        path / FILES[2], moments, {f"{m}.{k}": s for m in ("exp_avg", "exp_avg_sq") for k, s in trained.items()}
    )
    # In the order of a new run: sums over all tensors depend on it in their last bits.
    student, teacher = {n: student[n] for n in student_expected}, {n: teacher[n] for n in teacher_expected}
    first = {name: moments[f"exp_avg.{name}"] for name in trained}
    second = {name: moments[f"exp_avg_sq.{name}"] for name in trained}
    state = TrainState(student, teacher, first, second, manifest.step, manifest.loss_scale)
    return Checkpoint(path, manifest, state)


def kind_of(config: type[RunConfig]) -> Literal["pretrain", "finetune"]:
    """The manifest's word for runs with such a configuration."""
    return "finetune" if issubclass(config, FinetuneConfig) else "pretrain"


def _expected(config: AnyRunConfig) -> tuple[Shapes, Shapes, Shapes]:
    """Name -> shape of the student, of the teacher, and of what is trained."""
    encoder = encoder_shapes(config.model)
    if isinstance(config, FinetuneConfig):
        return encoder, encoder if config.ema_momentum is not None else {}, finetuned_shapes(config.model)
    student = student_shapes(config.model)
    return student, encoder, {name: shape for name, shape in student.items() if is_trainable(name)}


def _check_architecture(path: Path, found: ModelConfig, expected: ModelConfig | None) -> None:
    if expected is None or found == expected:
        return
    theirs, ours = found.to_dict(), expected.to_dict()
    changes = [f"{key} is {theirs[key]}, not {ours[key]}" for key in theirs if theirs[key] != ours[key]]
    raise CheckpointError(f"{path} is a checkpoint of another architecture: {'; '.join(changes)}")


def prune(manifests: Mapping[Path, Manifest]) -> None:
    """Delete all of a run's checkpoints but the last three and the best one.

    Args:
        manifests: of all checkpoints, oldest first.

    Raises:
        CheckpointError: the disk refuses.
    """
    kept = {*list(manifests)[-KEEP_LAST:], best(manifests)}
    for path in manifests:
        if path not in kept:
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise CheckpointError(f"cannot delete the old checkpoint {path}: {error.strerror}") from None


def best(manifests: Mapping[Path, Manifest]) -> Path | None:
    """The checkpoint with the highest `top1`, or else the lowest `loss_ratio`, if any was measured."""
    for name, sign in (("top1", -1.0), ("loss_ratio", 1.0)):
        measured = {path: sign * found.metrics[name] for path, found in manifests.items() if name in found.metrics}
        if measured:
            return min(measured, key=lambda path: measured[path])
    return None
