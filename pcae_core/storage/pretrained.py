"""Encoders to start from: of a run's checkpoint, or alone in a folder, as `pcae convert` writes them.

ENCODER/
    encoder.safetensors  decoder.safetensors (where there is one)  encoder.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import model_validator

from pcae_core.config import Config, DataConfig, EncoderName, ModelConfig, PretrainConfig
from pcae_core.config.finetune import AnyRunConfig
from pcae_core.errors import CheckpointError, ConfigError
from pcae_core.parameters import Arrays, decoder_shapes, encoder_shapes
from pcae_core.storage import atomic
from pcae_core.storage.manifest import FileEntry, read_json, read_tensors, versions, write_manifest, write_tensors
from pcae_core.storage.run import Run
from pcae_core.storage.tensors import check_tensors

FORMAT = 1
MANIFEST = "encoder.json"
ENCODER, DECODER = "encoder.safetensors", "decoder.safetensors"


class EncoderInfo(Config):
    """What features depend on beside the weights.

    Attributes:
        loader: how pixels are normalised.
        seed: of the same encoder at random initialisation.
        class_names: of the head's outputs, where they are known.
    """

    model: ModelConfig
    loader: DataConfig = DataConfig()
    seed: int = 0
    class_names: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.loader.normalization(self.model.in_chans)
        return self


class EncoderManifest(Config):
    """What an encoder's folder says of itself; `source` and `versions` are notes, never read back."""

    format: int
    source: str
    versions: dict[str, str]
    config: EncoderInfo
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Pretrained:
    """An encoder in memory.

    Attributes:
        path: where it was read from; origin: what it is, in a few words.
        encoder: its parameters by canonical name; decoder: the decoder's, or none.
    """

    path: Path
    origin: str
    config: EncoderInfo
    encoder: Arrays
    decoder: Arrays


def is_encoder(path: Path) -> bool:
    """Whether `path` is an encoder's folder, and not a run or a checkpoint."""
    return (path / MANIFEST).is_file()


def save(folder: Path, config: EncoderInfo, encoder: Arrays, decoder: Arrays, source: str) -> None:
    """Write an encoder's folder, whole or not at all.

    Args:
        folder: must not exist; its parent must.
        encoder, decoder: parameters by canonical name, the decoder's all or none.

    Raises:
        CheckpointError: the disk refuses, or `folder` exists.
    """
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; remove it or choose another name")
    try:
        with atomic.whole_folder(folder, durable=True) as writing:
            entries = write_tensors(writing, {ENCODER: encoder} | ({DECODER: decoder} if decoder else {}))
            manifest = EncoderManifest(format=FORMAT, source=source, versions=versions(), config=config, files=entries)
            write_manifest(writing / MANIFEST, manifest)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror or error}") from None


def load(path: Path | Run, encoder: EncoderName | None = None) -> Pretrained:
    """Read an encoder.

    Args:
        path: an encoder's folder, a run's, or one of a run's checkpoints. Of a fine-tuned run's folder, the best
            checkpoint is read; of another's, the newest.
        encoder: which of a run's two, by default as `encoder_of` says; an encoder's folder holds one.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    return next(iter(load_all(path, (encoder,)).values()))


def load_all(path: Path | Run, encoders: Sequence[EncoderName | None]) -> dict[str, Pretrained]:
    """A run's encoders by name, or that of an encoder's folder under "encoder"; `path` and errors as in `load`."""
    if isinstance(path, Path) and is_encoder(path):
        return {"encoder": _load_folder(path)}
    opened = Run.open(path)
    found = opened.load(opened.default)
    run, model = found.manifest.config, found.manifest.config.model
    loaded: dict[str, Pretrained] = {}
    for chosen in (encoder_of(run, encoder, opened.path) for encoder in encoders):
        origin = f"the {chosen}, step {found.state.step}"
        tensors = found.state.student if chosen == "student" else found.state.teacher
        encoder = {name: tensors[name] for name in encoder_shapes(model)}
        decoder = {name: tensors[name] for name in decoder_shapes(model) if name in tensors}
        loaded[chosen] = Pretrained(found.path, origin, config_of(run), encoder, decoder)
    return loaded


def refuse_choice(path: Path, encoder: EncoderName | None) -> None:
    """Raises ConfigError when one of two encoders is asked for of an encoder's folder, which holds one encoder."""
    if encoder is not None and is_encoder(path):
        raise ConfigError(f"{path} holds one encoder; there is no {encoder} to choose")


def encoder_of(run: AnyRunConfig, encoder: EncoderName | None, path: Path) -> EncoderName:
    """`encoder`, or else the student of a pre-training run, and of a fine-tuned one the weights that were scored.

    Raises:
        CheckpointError: `encoder` is one that the run at `path` does not have.
    """
    if isinstance(run, PretrainConfig):
        return encoder or "student"
    averaged = run.ema_momentum is not None
    if encoder == "teacher" and not averaged:
        raise CheckpointError(f"{path} has no teacher: it was fine-tuned without a moving average of the weights")
    return encoder or ("teacher" if averaged else "student")


def config_of(run: AnyRunConfig) -> EncoderInfo:
    """What a run's features depend on beside the weights."""
    names = None if isinstance(run, PretrainConfig) else run.class_names
    return EncoderInfo(model=run.model, loader=run.loader, seed=run.seed, class_names=names)


def _load_folder(path: Path) -> Pretrained:
    manifest = read_manifest(path)
    model = manifest.config.model
    encoder = read_tensors(path, manifest.files, ENCODER)
    check_tensors(path / ENCODER, encoder, encoder_shapes(model))
    decoder: Arrays = {}
    if DECODER in manifest.files:
        decoder = read_tensors(path, manifest.files, DECODER)
        check_tensors(path / DECODER, decoder, decoder_shapes(model))
    return Pretrained(path, "the encoder", manifest.config, encoder, decoder)


def read_manifest(path: Path) -> EncoderManifest:
    """The manifest of the encoder's folder `path`. Raises CheckpointError when it is damaged or of another format."""
    manifest = read_json(path / MANIFEST, EncoderManifest)
    if manifest.format != FORMAT:
        raise CheckpointError(f"{path} has encoder format {manifest.format}; this version reads format {FORMAT}")
    return manifest
