"""The operations of PCAE on JAX arrays.

Letters: B images, C channels, H height, W width, p patch size, N tokens, k kept, P prefix tokens,
D width.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from pcae_core.contract import NORM_EPS, Center
from pcae_core.shapes import check_restore_grid


def patchify(images: Array, patch_size: int) -> Array:
    """(B, C, H, W) -> (B, N, C*p*p), patches row by row."""
    batch, chans, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    grid = images.reshape(batch, chans, rows, patch_size, columns, patch_size)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, chans * patch_size**2)


def unit_length(vectors: Array) -> Array:
    """(..., D) divided by their length, zero vectors unchanged; scaled first so that squares stay in range."""
    largest = jnp.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / jnp.where(largest == 0, 1.0, largest)
    length = jnp.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    return scaled / jnp.maximum(length, NORM_EPS)


def similarity_scores(tokens: Array, center: Center = "unit") -> Array:
    """(B, N, D) -> (B, N): cosine of each token with the mean token of its sequence."""
    unit = unit_length(tokens)
    mean = (unit if center == "unit" else tokens).mean(axis=1, keepdims=True)
    return jnp.clip((unit * unit_length(mean)).sum(axis=-1), -1.0, 1.0)


def select_tokens(scores: Array, k: int) -> Array:
    """(B, N) -> (B, k): the k lowest by (score, index), ascending.

    `jnp.argsort` is stable. `jax.lax.top_k` would put NaN first.
    """
    return jnp.sort(jnp.argsort(scores, axis=1)[:, :k], axis=1)


def gather_tokens(tokens: Array, ids: Array) -> Array:
    """(B, N, D), (B, k) -> (B, k, D)."""
    return jnp.take_along_axis(tokens, ids[:, :, None], axis=1)


def reduce_tokens(tokens: Array, k: int, num_prefix_tokens: int = 0, center: Center = "unit") -> tuple[Array, Array]:
    """(B, P + N, D) -> kept tokens (B, P + k, D), ids of the patches among them (B, k)."""
    prefix, patches = tokens[:, :num_prefix_tokens], tokens[:, num_prefix_tokens:]
    ids = select_tokens(similarity_scores(patches, center), k)
    return jnp.concatenate([prefix, gather_tokens(patches, ids)], axis=1), ids


def restore_grid(tokens: Array, kept_ids: Array, num_patches: int, features: Array | None) -> Array:
    """(B, k, D), (B, k) -> (B, N, D): each patch its own token, or that of its most similar survivor."""
    check_restore_grid(tokens.shape, kept_ids.shape, num_patches, None if features is None else features.shape)
    order = jnp.argsort(kept_ids, axis=1)  # the first of equals is then the lowest id
    survivors = jnp.take_along_axis(kept_ids, order, axis=1)
    place = jnp.arange(num_patches)
    if features is None:
        row, column = jnp.divmod(place, math.isqrt(num_patches))
        distance = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
        similarity = -1.0 * distance[survivors].swapaxes(1, 2)  # (B, N, k)
    else:
        unit = unit_length(features)
        similarity = unit @ gather_tokens(unit, survivors).swapaxes(1, 2)
    similarity = jnp.where(jnp.isnan(similarity), -jnp.inf, similarity)
    nearest = jnp.where(survivors[:, None, :] == place[:, None], jnp.inf, similarity).argmax(axis=2)
    return gather_tokens(tokens, jnp.take_along_axis(order, nearest, axis=1))
