"""The operations of PCAE, one function each, in float64.

Letters: B images, C channels, H height, W width, p patch size, N tokens, V visible, M masked, K targets, k kept,
D width, T tokens of a sequence with its prefix, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

from pcae_core.config import Activation
from pcae_core.contract import NORM_EPS, STANDARDIZE_EPS, Center

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


def patchify(images: Floats, patch_size: int) -> Floats:
    """(B, C, H, W) -> (B, N, C*p*p), patches row by row."""
    batch, chans, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    grid = images.reshape(batch, chans, rows, patch_size, columns, patch_size)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, chans * patch_size**2)


def split_by_noise(noise: Floats, num_visible: int) -> tuple[Ids, Ids]:
    """(B, N) -> visible (B, V), masked (B, M): the V smallest numbers are visible; ids ascending."""
    order = np.argsort(noise, axis=1, kind="stable")
    return np.sort(order[:, :num_visible], axis=1), np.sort(order[:, num_visible:], axis=1)


def unit_length(vectors: Floats) -> Floats:
    """Vectors (..., D) divided by their length; a zero vector stays zero.

    The largest entry is scaled to 1 first, so that squares neither overflow nor vanish.
    """
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1.0)
    length = np.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    return scaled / np.maximum(length, NORM_EPS)


def similarity_scores(tokens: Floats, center: Center = "unit") -> Floats:
    """(B, N, D) -> (B, N): cosine with the mean over the sequence of the unit-length (or raw) tokens."""
    unit = unit_length(tokens)
    mean = (unit if center == "unit" else tokens).mean(axis=1, keepdims=True)
    return np.clip((unit * unit_length(mean)).sum(axis=-1), -1.0, 1.0)


def select_tokens(scores: Floats, k: int) -> Ids:
    """(B, N) -> (B, k): ids of the k lowest scores, in ascending position order. Ties go to the lower index."""
    return np.sort(np.argsort(scores, axis=1, kind="stable")[:, :k], axis=1)


def gather_tokens(tokens: Floats, ids: Ids) -> Floats:
    """(B, N, D), (B, k) -> (B, k, D)."""
    return np.take_along_axis(tokens, ids[:, :, None], axis=1)


def reduce_tokens(tokens: Floats, k: int, num_prefix_tokens: int = 0, center: Center = "unit") -> tuple[Floats, Ids]:
    """(B, P + N, D) -> kept tokens (B, P + k, D), ids of the patches among them (B, k)."""
    prefix, patches = tokens[:, :num_prefix_tokens], tokens[:, num_prefix_tokens:]
    ids = select_tokens(similarity_scores(patches, center), k)
    return np.concatenate([prefix, gather_tokens(patches, ids)], axis=1), ids


def restore_grid(tokens: Floats, kept_ids: Ids, num_patches: int, features: Floats | None) -> Floats:
    """(B, k, D), (B, k) -> (B, N, D): each patch its own token, or that of its most similar survivor.

    Args:
        features: features of all patches (B, N, F); similarity is their cosine, or without them closeness on the grid.
    """
    order = np.argsort(kept_ids, axis=1)  # then the first of equal survivors has the lowest id
    survivors = np.take_along_axis(kept_ids, order, axis=1)
    if features is None:
        similarity = -squared_distances(num_patches)[:, survivors].swapaxes(0, 1)  # (B, N, k)
    else:
        unit = unit_length(features)
        similarity = unit @ gather_tokens(unit, survivors).swapaxes(1, 2)
    similarity = np.where(np.isnan(similarity), -np.inf, similarity)
    own = survivors[:, None, :] == np.arange(num_patches)[:, None]
    nearest = np.where(own, np.inf, similarity).argmax(axis=2)  # (B, N)
    return gather_tokens(tokens, np.take_along_axis(order, nearest, axis=1))


def squared_distances(num_patches: int) -> Floats:
    """Squared distances (N, N) between the patches of a square grid, in patches."""
    row, column = np.divmod(np.arange(num_patches), math.isqrt(num_patches))
    return 1.0 * (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2


def standardize(latents: Floats, eps: float = STANDARDIZE_EPS) -> Floats:
    """(B, K, D): each token to mean 0 and unbiased variance 1 over its features."""
    mean = latents.mean(axis=-1, keepdims=True)
    variance = latents.var(axis=-1, ddof=1, keepdims=True)
    return (latents - mean) / np.sqrt(variance + eps)


def cosine_loss(prediction: Floats, target: Floats) -> Floats:
    """(B, K, D) twice -> scalar: `1 - cosine`, averaged over the tokens."""
    cosine = (unit_length(prediction) * unit_length(target)).sum(axis=-1)
    return np.asarray(1.0 - cosine.mean())


def ema_update(teacher: Mapping[str, Floats], student: Mapping[str, Floats], momentum: float) -> dict[str, Floats]:
    """`momentum * teacher + (1 - momentum) * student`, by name."""
    return {name: momentum * value + (1.0 - momentum) * student[name] for name, value in teacher.items()}


# Layers


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """LayerNorm (..., D) with biased variance."""
    return normalized(x, eps)[0] * weight + bias


def normalized(x: Floats, eps: float) -> tuple[Floats, Floats]:
    """Normalise (..., D) to mean 0 and variance 1. Also returns the inverse standard deviations (..., 1)."""
    centered = x - x.mean(axis=-1, keepdims=True)
    inverse_std = 1.0 / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + eps)
    return centered * inverse_std, inverse_std


def linear(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """(..., D_in) -> (..., D_out); weight is (D_out, D_in)."""
    return x @ weight.T + bias


def gelu(x: Floats) -> Floats:
    """`x * Phi(x)` with the exact normal distribution function."""
    return 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))


TANH_SCALE, TANH_CUBE, QUICK_SCALE = math.sqrt(2.0 / math.pi), 0.044715, 1.702
"""Of the two approximations of GELU (Hendrycks & Gimpel, 2016)."""


def gelu_tanh(x: Floats) -> Floats:
    """`x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, near to GELU."""
    return 0.5 * x * (1.0 + np.tanh(TANH_SCALE * (x + TANH_CUBE * x**3)))


def quick_gelu(x: Floats) -> Floats:
    """`x sigmoid(1.702 x)`, near to GELU."""
    return x * expit(QUICK_SCALE * x)


ACTIVATIONS: dict[Activation, Callable[[Floats], Floats]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
}


def soft_cross_entropy(logits: Floats, targets: Floats) -> Floats:
    """(B, classes) twice -> scalar: `-sum(target log softmax(logits))`, averaged over the images."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(-(targets * log_probabilities).sum(axis=1).mean())


def softmax(x: Floats) -> Floats:
    """Softmax over the last axis."""
    exponential = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def split_heads(qkv: Floats, num_heads: int) -> tuple[Floats, Floats, Floats]:
    """(B, T, 3*D) -> query, key, value, each (B, h, T, D/h)."""
    batch, length, width = qkv.shape
    heads = qkv.reshape(batch, length, 3, num_heads, width // (3 * num_heads)).transpose(2, 0, 3, 1, 4)
    return heads[0], heads[1], heads[2]


def merge_heads(x: Floats) -> Floats:
    """(B, h, T, D/h) -> (B, T, D)."""
    batch, heads, length, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, length, heads * width)


def attention_weights(query: Floats, key: Floats) -> Floats:
    """(B, h, T, d) twice -> (B, h, T, T): softmax of the scaled products."""
    return softmax(query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1]))
