"""Read a source: its tensors under our names, its model, and the coverage.

A source is a run or an encoder of PCAE, a file with timm's names (timm, MAE, DeiT, DINO) or OpenCLIP's, or a folder
of Hugging Face or timm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import EncoderName, ModelConfig
from pcae_core.convert import files, model, positions, rewriting
from pcae_core.convert.coverage import Coverage
from pcae_core.convert.metadata import NO_METADATA, ModelMetadata, loader_of, merged, origins
from pcae_core.convert.names import TABLES, theirs
from pcae_core.errors import CheckpointError, ConfigError
from pcae_core.parameters import Arrays, decoder_shapes, encoder_shapes, initial_parameters
from pcae_core.storage import pretrained
from pcae_core.storage.pretrained import EncoderInfo, Pretrained


@dataclass(frozen=True)
class Request:
    """Choices of the user about a source.

    Attributes:
        encoder: encoder of a run; None for the default.
        metadata: settings of the model that override those in the source.
        prefix: prefix of the parameter names to read, if a file holds several models.
        waive: patterns of tensors that may be missing or are left out.
        image_size: image size to interpolate positions to; None for the source's.
    """

    encoder: EncoderName | None = None
    metadata: ModelMetadata = NO_METADATA
    prefix: str | None = None
    waive: tuple[str, ...] = ()
    image_size: int | None = None


def read(path: Path, request: Request) -> tuple[Pretrained, Coverage]:
    """Read the encoder, and the decoder if there is one, in `path`, with the coverage.

    Missing or surplus tensors raise no error here: the caller shows the coverage first, and then calls
    `Coverage.require_all`. Missing tensors are initialised only if all of them are waived, because a small file may
    claim a model of any size.

    Raises:
        CheckpointError, ConfigError: `path` holds no such model, or one that cannot become a PCAE model.
    """
    coverage = Coverage(str(path), request.waive)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a file or a folder on this machine, such as a run's")
    if path.is_file():
        found = _foreign(path, files.read_file(path, request.prefix), request, coverage)
    elif (path / files.HF_CONFIG).is_file():
        found = _foreign(path, files.read_folder(path, request.prefix), request, coverage)
    else:
        if request.metadata != NO_METADATA or request.prefix is not None:
            flags = "--num-heads, --decoder-num-heads, --layer-norm-eps, --activation, --mean, --std and --prefix"
            raise ConfigError(f"{path} is an encoder or a run of PCAE, which holds these settings; leave out {flags}")
        pretrained.refuse_choice(path, request.encoder)
        found = pretrained.load(path, request.encoder)
        coverage.loaded = len(found.encoder) + len(found.decoder)
    return _resized(found, request.image_size, coverage), coverage


def _foreign(path: Path, source: files.Foreign, request: Request, coverage: Coverage) -> Pretrained:
    if request.encoder is not None:
        raise ConfigError(f"{path} is no run of PCAE's: there is no {request.encoder}; --prefix chooses among models")
    if not coverage.waived("rope"):
        rewriting.refuse_rotary(path, source.tensors.keys())
    coverage.beside = source.beside
    ours, rest = _named(source, _leave_out(source, coverage))
    notes = rewriting.rewrite(path, ours, rest, source.tensors)
    for name in rest:
        coverage.add_surplus(name)
    metadata = merged(source.metadata, request.metadata)
    try:
        config = model.infer(path, ours, metadata)
    except CheckpointError:
        coverage.refuse_differences()  # a known difference may be the cause
        raise
    _check_pooling(path, config, metadata)
    _check_activation(path, source, metadata)
    shapes = encoder_shapes(config) | (decoder_shapes(config) if model.has_decoder(ours) else {})
    coverage.names = {*source.tensors, *shapes}
    filled = _fill(ours, shapes, config, notes, coverage)
    encoder = {name: filled[name] for name in encoder_shapes(config) if name in filled}
    decoder = {name: value for name, value in filled.items() if name not in encoder}
    names = _class_names(path, source, config, coverage)
    described = EncoderInfo.from_dict(
        {"model": config.to_dict(), "loader": loader_of(metadata).to_dict(), "class_names": names}
    )
    said = origins(config, model.has_decoder(ours), source.metadata, request.metadata)
    coverage.remarks += [remark for remark in (source.remark, said) if remark]
    return Pretrained(path, source.origin, described, encoder, decoder)


def _leave_out(source: files.Foreign, coverage: Coverage) -> set[str]:
    """The source's names of tensors that the user waives by either name. Counts them as surplus."""
    ours = {part: name for name, parts in _candidates(source).items() for part in parts}
    left_out = {name for name in source.tensors if coverage.waived(name) or coverage.waived(ours.get(name, name))}
    for name in sorted(left_out):
        coverage.add_surplus(name, "left out" if name in ours else "", waived=True)
    return left_out


def _check_pooling(path: Path, config: ModelConfig, metadata: ModelMetadata) -> None:
    """Raise CheckpointError when the head reads other tokens than our head would."""
    if config.num_classes and metadata.pooling not in (None, config.pooling):
        raise CheckpointError(
            f"{path}: its head pools by {metadata.pooling!r}, and with these tensors ours would by {config.pooling!r}, "
            "so logits would differ; --waive 'head.*' converts it without the head"
        )


def _check_activation(path: Path, source: files.Foreign, metadata: ModelMetadata) -> None:
    """Raises CheckpointError where published models with the same names have different ones, and nobody said which."""
    if source.layout == "open_clip" and metadata.activation is None:
        raise CheckpointError(
            f"{path} does not tell the activation, of which CLIP models have two; say --activation quick_gelu for "
            "OpenAI's and those called quickgelu, --activation gelu for others"
        )


def _class_names(path: Path, source: files.Foreign, config: ModelConfig, coverage: Coverage) -> tuple[str, ...] | None:
    """Class names of the head's outputs. Raises CheckpointError when two are equal: classes are matched by name."""
    names = source.class_names or ()
    if len(names) != config.num_classes or not names or coverage.waived("class_names"):
        return None
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise CheckpointError(
            f"{path / files.HF_CONFIG} calls several classes {twice[0]!r}; name them apart there, or say --waive "
            "class_names to leave the names out"
        )
    return names


def _named(source: files.Foreign, left_out: set[str]) -> tuple[Arrays, dict[str, None]]:
    """The source's tensors under our names, with Hugging Face's parts joined, and the names that are not used."""
    rest = dict.fromkeys(name for name in source.tensors if name not in left_out)
    ours: Arrays = {}
    for name, wanted in _candidates(source).items():
        parts = [source.tensors[part] for part in wanted if part in rest]
        if len(parts) == len(wanted) and _joinable(parts):
            ours[name] = rewriting.with_batch(name, np.concatenate(parts) if len(parts) > 1 else parts[0])
            for part in wanted:
                del rest[part]
    return ours, rest


def _joinable(parts: list[NDArray[Any]]) -> bool:
    return len(parts) == 1 or (parts[0].ndim > 0 and len({part.shape for part in parts}) == 1)


def _candidates(source: files.Foreign) -> Mapping[str, tuple[str, ...]]:
    """Our names that the source may have -> its own names. Without the decoder's last layer, whose target differs."""
    if source.layout == "timm":
        known: Mapping[str, tuple[str, ...]] = {name: (name,) for name in source.tensors if rewriting.is_ours(name)}
    else:
        outside, places, inside = TABLES[source.layout]
        names = [f"{stem}{kind}" for stem in outside for kind in ("", ".weight", ".bias")]
        for prefix, place in places.items():
            count = model.count_blocks(source.tensors, place.replace(".", r"\."))
            names += [
                f"{prefix}.{i}.{stem}.{kind}" for i in range(count) for stem in inside for kind in ("weight", "bias")
            ]
        known = {name: theirs(name, source.layout) for name in names}
    return {name: parts for name, parts in known.items() if not name.startswith("decoder_pred")}


def _fill(
    ours: Arrays,
    shapes: Mapping[str, tuple[int, ...]],
    config: ModelConfig,
    notes: Mapping[str, str],
    coverage: Coverage,
) -> Arrays:
    """Every tensor of the model, float32: from the source, or initialised if it is missing and waived."""
    for name, value in ours.items():
        if name not in shapes:
            coverage.add_surplus(name)
        elif value.shape != shapes[name]:
            coverage.add_surplus(name, f"its shape is {value.shape}, the model's {shapes[name]}")
    fitting = {name: ours[name] for name, shape in shapes.items() if name in ours and ours[name].shape == shape}
    filled = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in fitting.items()}
    for name in fitting:
        if name in notes:
            coverage.add_reshaped(name, notes[name])
        else:
            coverage.loaded += 1
    missing = [name for name in shapes if name not in filled]
    for name in missing:
        coverage.add_missing(name, unread=name.startswith("norm.") and config.pooling == "mean")
    drawn = initial_parameters(config, seed=0) if missing and all(map(coverage.waived, missing)) else {}
    return {name: filled[name] if name in filled else drawn[name] for name in shapes if name in filled | drawn}


def _resized(found: Pretrained, image_size: int | None, coverage: Coverage) -> Pretrained:
    """The model with position embeddings for another image size."""
    old = found.config.model
    if image_size is None or image_size == old.image_size:
        return found
    new = ModelConfig.from_dict(old.to_dict() | {"image_size": image_size})
    groups = []
    for group in (found.encoder, found.decoder):
        group = dict(group)
        for name in ("pos_embed", "decoder_pos_embed"):
            if name in group:
                group[name] = positions.resize(group[name], new.grid_size, new.num_prefix_tokens)
                note = f"grid {old.grid_size} x {old.grid_size} to {new.grid_size} x {new.grid_size}, bicubic"
                coverage.add_resized(name, note)
        groups.append(group)
    config = found.config.model_copy(update={"model": new})
    return Pretrained(found.path, found.origin, config, *groups)
