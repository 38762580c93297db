"""The models: Vision Transformer blocks, the encoder with token reduction, the forward pass of pre-training.

Parameters are dictionaries by canonical name. Letters as in `ops`; T tokens of a sequence with its prefix.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from pcae_core import ModelConfig
from pcae_jax import ops

Parameters = Mapping[str, Array]


def linear(p: Parameters, name: str, x: Array) -> Array:
    """(..., D_in) -> (..., D_out); the weight may have the shape of a convolution."""
    weight = p[f"{name}.weight"]
    return x @ weight.reshape(len(weight), -1).T + p[f"{name}.bias"]


def norm(p: Parameters, name: str, x: Array, eps: float) -> Array:
    """LayerNorm over the last axis."""
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered**2).mean(axis=-1, keepdims=True)
    return centered / jnp.sqrt(variance + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(p: Parameters, name: str, x: Array, num_heads: int) -> Array:
    """Multi-head self-attention (B, T, D) -> (B, T, D).

    `jax.nn.dot_product_attention` takes its softmax in float32 whatever the inputs' dtype: 1e-7 off in float64.
    """
    batch, length, dim = x.shape
    qkv = linear(p, f"{name}.qkv", x).reshape(batch, length, 3, num_heads, dim // num_heads)
    query, key, value = jnp.moveaxis(qkv, 2, 0)  # each (B, T, h, D/h)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key) / (dim // num_heads) ** 0.5, axis=-1)
    return linear(p, f"{name}.proj", jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, dim))


def block(p: Parameters, name: str, x: Array, num_heads: int, eps: float) -> Array:
    """Pre-norm block (B, T, D) -> (B, T, D)."""
    x = x + attention(p, f"{name}.attn", norm(p, f"{name}.norm1", x, eps), num_heads)
    hidden = jax.nn.gelu(linear(p, f"{name}.mlp.fc1", norm(p, f"{name}.norm2", x, eps)), approximate=False)
    return x + linear(p, f"{name}.mlp.fc2", hidden)


def embed_patches(p: Parameters, patches: Array, ids: Array) -> Array:
    """Patches (B, N, C*p*p) at ids (B, k), projected, with their position embeddings: (B, k, D)."""
    return linear(p, "patch_embed.proj", ops.gather_tokens(patches, ids)) + p["pos_embed"][0, 1 + ids]


def prepend_cls(p: Parameters, tokens: Array) -> Array:
    """(B, k, D) -> (B, 1 + k, D)."""
    cls = jnp.broadcast_to(p["cls_token"] + p["pos_embed"][:, :1], (len(tokens), 1, tokens.shape[2]))
    return jnp.concatenate([cls, tokens], axis=1)


def encode_reduced(
    config: ModelConfig, p: Parameters, tokens: Array, ids: Array, keep: float, num_prefix_tokens: int
) -> tuple[Array, Array]:
    """Embedded tokens (B, P + n, D) of the patches at ids (B, n) through all blocks, dropping some at each stage.

    Returns what is left (B, P + k, D), before the final norm, and its positions (B, k).
    """
    kept_after_block = config.kept_after_block(ids.shape[1], keep)
    for i in range(config.depth):
        tokens = block(p, f"blocks.{i}", tokens, config.num_heads, config.layer_norm_eps)
        if i in kept_after_block:
            tokens, kept = ops.reduce_tokens(tokens, kept_after_block[i], num_prefix_tokens, config.reduction.center)
            ids = jnp.take_along_axis(ids, kept, axis=1)
    return tokens, ids


def classify(config: ModelConfig, p: Parameters, tokens: Array) -> Array:
    """Logits (B, classes) of the last block's output (B, 1 + k, D)."""
    eps = config.layer_norm_eps
    if config.pooling == "cls":
        return linear(p, "head", norm(p, "norm", tokens[:, 0], eps))
    return linear(p, "head", norm(p, "fc_norm", tokens[:, 1:].mean(axis=1), eps))


@functools.partial(jax.jit, static_argnames=("config", "keep"))
def encode(config: ModelConfig, p: Parameters, images: Array, keep: float) -> tuple[Array, Array, Array | None]:
    """CLS and all patches of images (B, C, H, W) through the encoder: the fields of `EncoderOutput`."""
    patches = ops.patchify(images, config.patch_size)
    ids = jnp.broadcast_to(jnp.arange(config.num_patches), (len(images), config.num_patches))
    tokens, kept_ids = encode_reduced(config, p, prepend_cls(p, embed_patches(p, patches, ids)), ids, keep, 1)
    return (
        norm(p, "norm", tokens, config.layer_norm_eps),
        kept_ids,
        classify(config, p, tokens) if config.num_classes else None,
    )


def decode(config: ModelConfig, p: Parameters, latent: Array, visible: Array, target_ids: Array) -> Array:
    """(B, 1 + V, D), (B, V), (B, K) -> predictions (B, K, D); only 1 + V + K tokens are decoded."""
    positions = p["decoder_pos_embed"][0]
    context = linear(p, "decoder_embed", latent)
    cls, patches = context[:, :1] + positions[0], context[:, 1:] + positions[1 + visible]
    tokens = jnp.concatenate([cls, patches, p["mask_token"] + positions[1 + target_ids]], axis=1)
    for i in range(config.decoder_depth):
        tokens = block(p, f"decoder_blocks.{i}", tokens, config.decoder_num_heads, config.layer_norm_eps)
    answers = norm(p, "decoder_norm", tokens[:, -target_ids.shape[1] :], config.layer_norm_eps)
    return linear(p, "decoder_pred", answers)


@functools.partial(jax.jit, static_argnames="config")
def pretraining_forward(
    config: ModelConfig, student: Parameters, teacher: Parameters, images: Array, noise: Array
) -> tuple[Array, ...]:
    """Images (B, C, H, W) and noise (B, N) to targets, predictions and loss: the fields of `PretrainingOutput`."""
    patches = ops.patchify(images, config.patch_size)
    visible, masked = ops.split_by_noise(noise, config.num_visible)
    tokens = embed_patches(teacher, patches, masked)
    latent, target_ids = encode_reduced(config, teacher, tokens, masked, config.reduction.keep, 0)
    target = ops.standardize(norm(teacher, "norm", latent, config.layer_norm_eps))

    tokens = prepend_cls(student, embed_patches(student, patches, visible))
    for i in range(config.depth):
        tokens = block(student, f"blocks.{i}", tokens, config.num_heads, config.layer_norm_eps)
    latent = norm(student, "norm", tokens, config.layer_norm_eps)
    prediction = decode(config, student, latent, visible, target_ids)
    return ops.cosine_loss(prediction, target), prediction, target, visible, target_ids
