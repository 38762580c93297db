"""The model: Vision Transformer blocks and the encoder with token reduction.

Parameters are dictionaries by canonical name. Letters as in `ops`; T tokens of a sequence with its prefix.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from pcae_core import ModelConfig
from pcae_core.config import Activation
from pcae_jax import ops

Parameters = Mapping[str, Array]


def linear(p: Parameters, name: str, x: Array) -> Array:
    """(..., D_in) -> (..., D_out); the weight may have the shape of a convolution, and the bias be absent."""
    weight = p[f"{name}.weight"]
    return x @ weight.reshape(len(weight), -1).T + p.get(f"{name}.bias", 0.0)


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


def activation(x: Array, kind: Activation) -> Array:
    """Of an MLP."""
    if kind == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=kind == "gelu_tanh")


def block(config: ModelConfig, p: Parameters, name: str, x: Array) -> Array:
    """Pre-norm block (B, T, D) -> (B, T, D)."""
    eps = config.layer_norm_eps
    x = x + attention(p, f"{name}.attn", norm(p, f"{name}.norm1", x, eps), config.num_heads)
    hidden = activation(linear(p, f"{name}.mlp.fc1", norm(p, f"{name}.norm2", x, eps)), config.activation)
    return x + linear(p, f"{name}.mlp.fc2", hidden)


def embed(config: ModelConfig, p: Parameters, images: Array) -> Array:
    """Prefix tokens and all patches of images (B, C, H, W), as the first block gets them: (B, P + N, D)."""
    patches = linear(p, "patch_embed.proj", ops.patchify(images, config.patch_size))
    prefix = jnp.broadcast_to(p["cls_token"], (len(images), config.num_prefix_tokens, config.embed_dim))
    tokens = jnp.concatenate([prefix, patches], axis=1) + p["pos_embed"]
    return norm(p, "norm_pre", tokens, config.layer_norm_eps) if config.pre_norm else tokens


Stages = list[tuple[Array, Array, Array]]
"""Of each stage ids that entered (B, n), their scores (B, n), and ids that stayed (B, k)."""


def reduced_blocks(config: ModelConfig, p: Parameters, tokens: Array, keep: float) -> tuple[Array, Stages]:
    """Tokens (B, P + N, D) through all blocks, dropping some at each stage.

    Returns what is left (B, P + k, D), before the final norm, and what each stage did.
    """
    ids = jnp.broadcast_to(jnp.arange(config.num_patches), (len(tokens), config.num_patches))
    kept_after_block = config.kept_after_block(config.num_patches, keep)
    stages: Stages = []
    num_prefix = config.num_prefix_tokens
    for i in range(config.depth):
        tokens = block(config, p, f"blocks.{i}", tokens)
        if i in kept_after_block:
            prefix, patches = tokens[:, :num_prefix], tokens[:, num_prefix:]
            scores = ops.similarity_scores(patches, config.reduction.center)
            kept = ops.select_tokens(scores, kept_after_block[i])
            stages.append((ids, scores, jnp.take_along_axis(ids, kept, axis=1)))
            tokens, ids = jnp.concatenate([prefix, ops.gather_tokens(patches, kept)], axis=1), stages[-1][2]
    return tokens, stages


def classify(config: ModelConfig, p: Parameters, tokens: Array) -> Array:
    """Logits (B, classes) of the last block's output (B, P + k, D)."""
    eps = config.layer_norm_eps
    if config.pooling == "cls":
        return linear(p, "head", norm(p, "norm", tokens[:, 0], eps))
    return linear(p, "head", norm(p, "fc_norm", tokens[:, config.num_prefix_tokens :].mean(axis=1), eps))


Output = tuple[Array, Array, Array | None]
"""The fields of `EncoderOutput`."""


@functools.partial(jax.jit, static_argnames=("config", "keep"))
def encode_stages(config: ModelConfig, p: Parameters, images: Array, keep: float) -> tuple[Output, Stages]:
    """Prefix tokens and all patches of images (B, C, H, W) through the encoder, and what each stage did."""
    tokens, stages = reduced_blocks(config, p, embed(config, p, images), keep)
    logits = classify(config, p, tokens) if config.num_classes else None
    return (norm(p, "norm", tokens, config.layer_norm_eps), stages[-1][2], logits), stages


@functools.partial(jax.jit, static_argnames=("config", "keep"))
def encode(config: ModelConfig, p: Parameters, images: Array, keep: float) -> Output:
    """`encode_stages` without the stages, which XLA then does not write."""
    return encode_stages(config, p, images, keep)[0]
