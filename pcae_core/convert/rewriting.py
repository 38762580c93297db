"""Rewrite the weights of other Vision Transformers so that our model computes exactly the same features.

Letters: N patches, D width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.errors import CheckpointError
from pcae_core.parameters import Arrays

_OURS = re.compile(
    r"(cls_token|pos_embed|mask_token|decoder_pos_embed"
    r"|(patch_embed\.proj|norm_pre|norm|fc_norm|head|decoder_embed|decoder_norm"
    r"|(decoder_)?blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2))\.(weight|bias))"
)
_SCALES = {"attn.proj": ("ls1.gamma", "gamma_1"), "mlp.fc2": ("ls2.gamma", "gamma_2")}
"""Last layer of a residual branch -> names of LayerScale's factors (timm, DeiT III)."""


def is_ours(name: str) -> bool:
    """Whether a PCAE model can have a parameter of this name; not MAE's last decoder layer."""
    return _OURS.fullmatch(name) is not None


def with_batch(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """CLIP's class token (D,) and positions (1 + N, D) as ours: (1, 1, D) and (1, 1 + N, D)."""
    if name == "cls_token" and value.ndim == 1:
        return value[None, None]
    return value[None] if name == "pos_embed" and value.ndim == 2 else value


def rewrite(path: Path, ours: Arrays, rest: dict[str, None], source: Arrays) -> dict[str, str]:
    """Rewrite the tensors in `ours`, so that our model has the features of the source.

    Args:
        ours: tensors by our names; changed in place.
        rest: names in `source` that are not used yet; names used here are removed.
        source: tensors by the source's names.

    Returns:
        Name -> description of the change.

    Raises:
        CheckpointError: there is no class token, or there are no position embeddings.
    """
    for name, what in (("cls_token", "class token"), ("pos_embed", "position embeddings")):
        if name not in ours:
            raise CheckpointError(f"{path} has no {what}, which ours always has, so its features would differ")
    notes = _positions(ours, "dist_token" in source)
    for name in [name for name in ours if name.endswith(".attn.qkv.weight")]:
        bias = name.removesuffix("weight") + "bias"
        if bias not in ours and bias not in source and ours[name].ndim:
            ours[bias] = np.zeros(len(ours[name]), dtype=np.float32)
            notes[bias] = "zeros: the source has no bias"
    return notes | _fold_scales(ours, rest, source)


def refuse_rotary(path: Path, names: Collection[str]) -> None:
    """Raise CheckpointError for tensors that look like a timm model with RoPE, whose features would differ."""
    for name in names:
        block = re.fullmatch(r"(blocks\.\d+\.)gamma_1", name)
        if block is not None and f"{block[1]}attn.qkv.bias" in names:
            raise CheckpointError(
                f"{path} has {name} beside {block[1]}attn.qkv.bias, as timm's models that turn queries and keys by "
                "their place (RoPE): that leaves no tensor, and features would differ; Meta's DeiT III looks the same: "
                "where you know that it is one, say --waive rope"
            )


def _positions(ours: Arrays, distilled: bool) -> dict[str, str]:
    """Make the positions have exactly one row before those of the patches: zero if the class token has none."""
    positions = ours["pos_embed"]
    if positions.ndim != 3:
        return {}
    if distilled and positions.shape[1] > 1:
        ours["pos_embed"] = np.delete(positions, 1, axis=1)
        return {"pos_embed": "without the distillation token's row"}
    if positions.shape[1] > 1 and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        ours["pos_embed"] = np.concatenate([np.zeros_like(positions[:, :1]), positions], axis=1)
        return {"pos_embed": "a zero row put first: the class token has no position"}
    return {}


def _fold_scales(ours: Arrays, rest: dict[str, None], source: Arrays) -> dict[str, str]:
    """Fold LayerScale into the layer before it: `gamma * (W x + b) = (gamma W) x + gamma b`."""
    notes: dict[str, str] = {}
    for name in [name for name in rest if name.endswith(("gamma", "gamma_1", "gamma_2"))]:
        block = re.match(r"blocks\.\d+\.", name)
        for layer, scales in _SCALES.items():
            if block is None or name.removeprefix(block[0]) not in scales:
                continue
            weight, bias = f"{block[0]}{layer}.weight", f"{block[0]}{layer}.bias"
            if weight in ours and bias in ours and _scales(source[name], ours[weight], ours[bias]):
                gamma = source[name].astype(np.float64)
                ours[weight], ours[bias] = gamma[:, None] * ours[weight], gamma * ours[bias]
                notes |= dict.fromkeys((weight, bias), "times the factors of LayerScale")
                del rest[name]
    return notes


def _scales(gamma: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]) -> bool:
    return weight.ndim == 2 and gamma.shape == bias.shape == weight.shape[:1]
