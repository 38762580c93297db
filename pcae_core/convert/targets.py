"""Write an encoder in the format of PCAE or of another project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np

from pcae_core import registry
from pcae_core.config import ModelConfig
from pcae_core.contract import LAYER_NORM_EPS
from pcae_core.convert.coverage import Coverage
from pcae_core.convert.files import HF_CONFIG, HF_PIXELS, HF_WEIGHTS, SAFETENSORS
from pcae_core.convert.names import theirs
from pcae_core.convert.preprocessing import image_processor
from pcae_core.convert.vit_config import clip_config, vit_config, why_no_clip, why_no_vit
from pcae_core.errors import CheckpointError, ConfigError
from pcae_core.parameters import Arrays, classifier_shapes
from pcae_core.storage import atomic, pretrained
from pcae_core.storage.pretrained import EncoderInfo, Pretrained
from pcae_core.storage.tensors import save_safetensors

PATCH_BIAS = "patch_embed.proj.bias"
Form = Literal["pcae", "timm", "hf"]


def form_of(out: Path, to: Form | None) -> Form | str:
    """The format to write: a form, or the suffix of a framework's own file.

    Raises:
        ConfigError: the suffix of `out` is unknown or contradicts `to`, `out` exists, or its folder does not.
    """
    own = registry.writers()
    if out.exists():
        raise ConfigError(f"{out} exists already; remove it or choose another name")
    if not out.parent.is_dir():
        raise ConfigError(f"cannot write {out}: its folder does not exist")
    if to is None and (out.suffix in own or not out.suffix):
        return out.suffix or "pcae"
    if to is None and out.suffix != SAFETENSORS:
        known = " or ".join([*own, SAFETENSORS])
        raise ConfigError(f"{out} must end in {known}, or be a folder without an ending: the ending chooses the format")
    if to == "timm" and out.suffix != SAFETENSORS:
        raise ConfigError(f"{out} must end in {SAFETENSORS} with --to timm")
    if to in ("pcae", "hf") and out.suffix in (SAFETENSORS, *own):
        raise ConfigError(f"{out} must be a folder with --to {to}, without the ending {out.suffix}")
    return to or "timm"


def write(found: Pretrained, out: Path, form: Form | str, coverage: Coverage) -> int:
    """Write `found` to `out` in a form of `form_of`. Returns the number of tensors.

    Raises:
        BackendError: the framework of the file is not installed.
        CheckpointError: the form cannot hold this model.
        ConfigError: the file cannot be written.
    """
    if form == "pcae":
        pretrained.save(out, found.config, found.encoder, found.decoder, coverage.source)
        return len(found.encoder) + len(found.decoder)
    try:
        return _write_foreign(found, out, form, coverage)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error}") from None


def _write_foreign(found: Pretrained, out: Path, form: Form | str, coverage: Coverage) -> int:
    """As `write`, but raises OSError when the file cannot be written."""
    if form == "hf":
        tensors = _hf_tensors(found)
        with atomic.whole_folder(out) as folder:
            _write_hf(folder, found.config, tensors)
        return len(tensors)
    _check_settings(found.config.model, out, coverage)
    if form == "timm":
        tensors = _timm_tensors(found)
        with atomic.whole_file(out) as file:
            save_safetensors(file, tensors)
        return len(tensors)
    tensors = found.encoder | found.decoder
    backend = registry.create(registry.writers()[form])
    with atomic.whole_file(out) as file:
        backend.save_weights(file, tensors)
    return len(tensors)


def _check_settings(model: ModelConfig, out: Path, coverage: Coverage) -> None:
    """Raise CheckpointError for an unusual eps or activation, unless waived: a file of tensors holds neither."""
    eps = model.layer_norm_eps
    if model.activation != "gelu" and not coverage.waived("activation"):
        raise CheckpointError(
            f"this model has the activation {model.activation}, which a file of tensors does not hold; models that "
            "load it have gelu unless told otherwise, so features would differ: build them with that one and say "
            f"--waive activation to write {out}"
        )
    if eps != LAYER_NORM_EPS and not coverage.waived("layer_norm_eps"):
        raise CheckpointError(
            f"this model has LayerNorm eps {eps:g}, which a file of tensors does not hold; models that load it have "
            f"{LAYER_NORM_EPS:g} unless told otherwise, so features would differ: build them with that eps and say "
            f"--waive layer_norm_eps to write {out}"
        )


def _timm_tensors(found: Pretrained) -> Arrays:
    """The encoder's tensors in timm's model, which has no final norm with `global_pool="avg"`."""
    return {name: found.encoder[name] for name in classifier_shapes(found.config.model)}


def _hf_tensors(found: Pretrained) -> Arrays:
    """The encoder's tensors by Hugging Face's names, with the prefix of its classifier if there is a head.

    Raises:
        CheckpointError: no model of Hugging Face can hold this one.
    """
    if found.config.model.pre_norm:
        return _clip_tensors(found)
    reason = why_no_vit(found.config.model)
    if reason is not None:
        raise CheckpointError(f"{reason}; fine-tune with --pooling cls to write it there")
    prefix = "vit." if found.config.model.num_classes else ""
    tensors: Arrays = {}
    no_bias = {} if found.config.model.patch_bias else {PATCH_BIAS: np.zeros(found.config.model.embed_dim, np.float32)}
    for name, value in (found.encoder | no_bias).items():
        names = theirs(name, "hf")
        for their_name, part in zip(names, np.split(value, len(names)), strict=True):
            inner = "" if name.startswith("head.") else prefix
            tensors[f"{inner}{their_name}"] = part
    return tensors


def _clip_tensors(found: Pretrained) -> Arrays:
    """The encoder by the names of CLIP's vision tower. Raises CheckpointError."""
    reason = why_no_clip(found.config.model)
    if reason is not None:
        raise CheckpointError(reason)
    tensors: Arrays = {}
    for name, value in found.encoder.items():
        names = theirs(name, "clip")
        value = value.reshape(value.shape[-1]) if name == "cls_token" else value[0] if name == "pos_embed" else value
        for their_name, part in zip(names, np.split(value, len(names)), strict=True):
            tensors[f"vision_model.{their_name}"] = part
    return tensors


def _write_hf(folder: Path, config: EncoderInfo, tensors: Arrays) -> None:
    model = config.model
    settings = clip_config(model) if model.pre_norm else vit_config(model, config.class_names)
    mean, std = config.loader.normalization(model.in_chans)
    pixels = image_processor(model.image_size, model.in_chans, mean, std)
    for name, values in ((HF_CONFIG, settings), (HF_PIXELS, pixels)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_safetensors(folder / HF_WEIGHTS, tensors)
