"""Pre-trained encoders: in a checkpoint of a run, or in an encoder folder, as `pcae convert` writes it.

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
    """Settings that features depend on, besides the weights.

    Attributes:
        loader: settings of image reading and normalisation.
        seed: seed of the same encoder at random initialisation.
        class_names: class names of the head's outputs, if known.
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
    """The manifest of an encoder folder. `source` and `versions` are notes for people."""

    format: int
    source: str
    versions: dict[str, str]
    config: EncoderInfo
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Pretrained:
    """An encoder in memory.

    Attributes:
        path: path that it was read from.
        origin: description of the encoder, in a few words.
        encoder: parameters of the encoder by canonical name.
        decoder: parameters of the decoder, or empty.
    """

    path: Path
    origin: str
    config: EncoderInfo
    encoder: Arrays
    decoder: Arrays


def is_encoder(path: Path) -> bool:
    """Whether `path` is an encoder folder, not a run or a checkpoint."""
    return (path / MANIFEST).is_file()


def save(folder: Path, config: EncoderInfo, encoder: Arrays, decoder: Arrays, source: str) -> None:
    """Write an encoder folder, whole or not at all.

    Args:
        folder: path that must not exist; its parent must.
        encoder: parameters of the encoder by canonical name.
        decoder: all parameters of the decoder, or none.
        source: note on the origin.

    Raises:
        CheckpointError: the folder cannot be written, or `folder` exists.
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
        path: encoder folder, run folder, or checkpoint. The best checkpoint of a fine-tuned run is read, or the newest
            checkpoint of a pre-training run.
        encoder: student or teacher of a run; None for the default of `encoder_of`. An encoder folder holds one encoder.

    Raises:
        CheckpointError: there is no encoder, or it is damaged.
    """
    return next(iter(load_all(path, (encoder,)).values()))


def load_all(path: Path | Run, encoders: Sequence[EncoderName | None]) -> dict[str, Pretrained]:
    """The encoders of a run by name, or that of an encoder folder as "encoder". `path` and errors as in `load`."""
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
    """Raise ConfigError when `encoder` is given for an encoder folder, which holds one encoder."""
    if encoder is not None and is_encoder(path):
        raise ConfigError(f"{path} holds one encoder; there is no {encoder} to choose")


def encoder_of(run: AnyRunConfig, encoder: EncoderName | None, path: Path) -> EncoderName:
    """`encoder`, or by default the student of a pre-training run, or the scored weights of a fine-tuned run.

    Raises:
        CheckpointError: the run at `path` does not have `encoder`.
    """
    if isinstance(run, PretrainConfig):
        return encoder or "student"
    averaged = run.ema_momentum is not None
    if encoder == "teacher" and not averaged:
        raise CheckpointError(f"{path} has no teacher: it was fine-tuned without a moving average of the weights")
    return encoder or ("teacher" if averaged else "student")


def config_of(run: AnyRunConfig) -> EncoderInfo:
    """The settings that a run's features depend on, besides the weights."""
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
    """The manifest of the encoder folder `path`. Raises CheckpointError when it is damaged or of another format."""
    manifest = read_json(path / MANIFEST, EncoderManifest)
    if manifest.format != FORMAT:
        raise CheckpointError(f"{path} has encoder format {manifest.format}; this version reads format {FORMAT}")
    return manifest
