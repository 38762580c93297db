"""Infer the model configuration from the shapes of tensors.

Letters: D width, C channels, p patch size, N patches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import ModelConfig, ReductionConfig
from pcae_core.convert.metadata import ModelMetadata
from pcae_core.convert.published import AMBIGUOUS_HEADS, DECODER_HEADS, HEADS, TIMM_HEADS, Size
from pcae_core.errors import CheckpointError
from pcae_core.parameters import Arrays


def infer(path: Path, tensors: Arrays, metadata: ModelMetadata) -> ModelConfig:
    """Infer the model of tensors with our names, at least a class token and positions.

    Raises:
        CheckpointError: the tensors are not those of such a Vision Transformer, or `metadata` lacks a setting.
        ConfigError: PCAE has no such model.
    """
    dim, chans, patch = _patches(path, tensors)
    depth = count_blocks(tensors, "blocks")
    hidden = _size(path, tensors, "blocks.0.mlp.fc1.weight", 0)
    published = TIMM_HEADS if metadata.timm else HEADS
    values: dict[str, Any] = {
        "image_size": patch * grid_size(path, tensors["pos_embed"]),
        "patch_size": patch,
        "in_chans": chans,
        "embed_dim": dim,
        "depth": depth,
        "num_heads": _heads(path, metadata.num_heads, published, (dim, depth), "--num-heads"),
        "mlp_ratio": _ratio(hidden, dim),
        "num_classes": _size(path, tensors, "head.weight", 0) if "head.weight" in tensors else 0,
        "pooling": "mean" if "fc_norm.weight" in tensors else "cls",
        "pre_norm": "norm_pre.weight" in tensors,
        "patch_bias": "patch_embed.proj.bias" in tensors,
        "reduction": ReductionConfig(num_stages=min(3, depth)).to_dict(),
    }
    said = {"layer_norm_eps": metadata.layer_norm_eps, "activation": metadata.activation}
    values |= {name: value for name, value in said.items() if value is not None}
    if has_decoder(tensors):
        width, blocks = _size(path, tensors, "decoder_embed.weight", 0), count_blocks(tensors, "decoder_blocks")
        heads = _heads(path, metadata.decoder_num_heads, DECODER_HEADS, (width, blocks), "--decoder-num-heads")
        values |= {"decoder_embed_dim": width, "decoder_depth": blocks, "decoder_num_heads": heads}
    return ModelConfig.from_dict(values)


def has_decoder(tensors: Mapping[str, object]) -> bool:
    """Whether there are tensors of a decoder, other than its last layer."""
    return any(name.startswith("decoder_") and not name.startswith("decoder_pred.") for name in tensors)


def count_blocks(tensors: Mapping[str, object], prefix: str) -> int:
    """Number of blocks: the highest block number plus one, but at most the number of tensors, as names may be wrong."""
    found = [re.match(rf"{prefix}\.(\d{{1,9}})\.", name) for name in tensors]
    return min(len(tensors), 1 + max((int(match[1]) for match in found if match), default=-1))


def grid_size(path: Path, pos_embed: NDArray[np.floating[Any]]) -> int:
    """Patches along one side. Raises CheckpointError unless positions (1, 1 + N, D) belong to a square grid."""
    rows = pos_embed.shape[1] - 1 if pos_embed.ndim == 3 else 0
    side = math.isqrt(max(0, rows))
    if side == 0 or side**2 != rows:
        raise CheckpointError(f"{path}: positions of shape {pos_embed.shape} are not those of a square grid")
    return side


def _patches(path: Path, tensors: Arrays) -> tuple[int, int, int]:
    """D, C and p, from the patch projection."""
    if "patch_embed.proj.weight" not in tensors:
        raise CheckpointError(f"{path} has no patch projection, which tells how large the model is")
    shape = tensors["patch_embed.proj.weight"].shape
    if len(shape) != 4 or shape[2] != shape[3]:
        raise CheckpointError(f"{path}: a patch projection of shape {shape} is not (D, C, p, p)")
    return shape[0], shape[1], shape[2]


def _size(path: Path, tensors: Arrays, name: str, axis: int) -> int:
    if name not in tensors:
        raise CheckpointError(f"{path} lacks {name}, which tells how large the model is")
    shape = tensors[name].shape
    if len(shape) <= axis:
        raise CheckpointError(f"{path}: {name} of shape {shape} does not tell how large the model is")
    return int(shape[axis])


def _heads(path: Path, said: int | None, published: Mapping[Size, int], size: Size, flag: str) -> int:
    heads = said or published.get(size)
    if heads is None:
        known = AMBIGUOUS_HEADS.get(size) if flag == "--num-heads" else None
        raise CheckpointError(
            f"{path} does not tell how many attention heads the blocks of width {size[0]} have"
            f"{f' (published: {known})' if known else ''}; say {flag}"
        )
    return heads


def _ratio(hidden: int, dim: int) -> float:
    """The MLP ratio for which `ModelConfig.hidden_dim` gives exactly `hidden`."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)
