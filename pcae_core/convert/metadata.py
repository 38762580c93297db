"""Settings of a model that its tensors do not show, from the source or from the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from pcae_core.config import Activation, DataConfig, ModelConfig


@dataclass(frozen=True)
class ModelMetadata:
    """Settings that tensors do not show; None if not given.

    Attributes:
        mean, std: mean and standard deviation of the pixels, one number per channel or one for all.
        pooling: "cls" or "mean"; the source's own word if PCAE has no such setting.
        timm: whether this is one of timm's plain architectures, whose number of heads follows from width and depth.
    """

    num_heads: int | None = None
    decoder_num_heads: int | None = None
    layer_norm_eps: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: Activation | None = None
    pooling: str | None = None
    timm: bool = False


NO_METADATA = ModelMetadata()


def merged(source: ModelMetadata, user: ModelMetadata) -> ModelMetadata:
    """The source's settings, overridden by those that the user gave."""
    said = {field.name: getattr(user, field.name) for field in fields(ModelMetadata)}
    return replace(source, **{name: value for name, value in said.items() if value is not None and name != "timm"})


def loader_of(metadata: ModelMetadata) -> DataConfig:
    """The settings of pixel normalisation. Raises ConfigError for invalid numbers."""
    return DataConfig.from_dict({"mean": metadata.mean, "std": metadata.std})


def origins(model: ModelConfig, decoder: bool, source: ModelMetadata, user: ModelMetadata) -> str:
    """One line with the settings that features depend on, grouped by origin: source, flags, or assumed."""
    mean, std = loader_of(merged(source, user)).normalization(model.in_chans)
    values: dict[str, tuple[str, object, Callable[[Any], str]]] = {
        "mean": ("mean", mean, _numbers),
        "std": ("std", std, _numbers),
        "num_heads": ("heads", model.num_heads, str),
        "decoder_num_heads": ("decoder heads", model.decoder_num_heads, str),
        "layer_norm_eps": ("eps", model.layer_norm_eps, "{:g}".format),
        "activation": ("activation", model.activation, str),
        "pooling": ("pooling", model.pooling, str),
    }
    groups: dict[str, list[str]] = {"the source says": [], "flags say": [], "assumed": []}
    for name, (word, value, form) in values.items():
        if name == "decoder_num_heads" and not decoder:
            continue
        theirs, ours = getattr(source, name), getattr(user, name)
        implied = (name == "num_heads" and source.timm) or (name == "pooling" and value == "mean")
        place = "flags say" if ours is not None else "assumed" if theirs is None and not implied else "the source says"
        other = "" if None in (ours, theirs) or form(ours) == form(theirs) else f" (the source: {form(theirs)})"
        groups[place].append(f"{word} {form(value)}{other}")
    return "; ".join(f"{who}: {', '.join(what)}" for who, what in groups.items() if what)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))
