"""Multiply-accumulates, by arithmetic on the shapes.

Counted: every matrix product (linear layers and the two products of attention). Not counted: norms, softmax, GELU,
biases, as is the custom. One image, one forward pass unless said otherwise. A backward pass costs two forward passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcae_core.config import ModelConfig


def block_macs(num_tokens: int, dim: int, hidden_dim: int, num_outputs: int | None = None) -> int:
    """One transformer block: qkv, attention's two products, projection, MLP.

    Args:
        num_outputs: tokens whose output is needed; the others give keys and values only. Default: all.
    """
    outputs = num_tokens if num_outputs is None else num_outputs
    key_value = num_tokens * dim * 2 * dim
    query, projection, mlp = outputs * dim * dim, outputs * dim * dim, 2 * outputs * dim * hidden_dim
    attention = 2 * outputs * num_tokens * dim
    return key_value + query + attention + projection + mlp


def _blocks_macs(token_counts: Iterable[int], dim: int, hidden_dim: int) -> int:
    return sum(block_macs(count, dim, hidden_dim) for count in token_counts)


def patch_embed_macs(config: ModelConfig, num_patches: int) -> int:
    """Projection of `num_patches` patches."""
    return num_patches * config.in_chans * config.patch_size**2 * config.embed_dim


def encoder_macs(config: ModelConfig, keep: float = 1.0) -> int:
    """Inference on one image: all patches and CLS, dropping `1 - keep` of the patch tokens at each stage."""
    counts = config.tokens_per_block(config.num_patches, num_prefix_tokens=1, keep=keep)
    head = config.num_classes * config.embed_dim
    blocks = _blocks_macs(counts, config.embed_dim, config.hidden_dim(config.embed_dim))
    return patch_embed_macs(config, config.num_patches) + blocks + head


def decoder_macs(config: ModelConfig, num_context: int, num_targets: int) -> int:
    """The decoder on `num_context` encoded tokens and `num_targets` queries; its last block computes only these."""
    dim, hidden = config.decoder_embed_dim, config.hidden_dim(config.decoder_embed_dim)
    tokens = num_context + num_targets
    embed, predict = num_context * config.embed_dim * dim, num_targets * dim * config.embed_dim
    blocks = _blocks_macs([tokens] * (config.decoder_depth - 1), dim, hidden)
    return embed + blocks + block_macs(tokens, dim, hidden, num_targets) + predict


def pretraining_forward_macs(config: ModelConfig) -> dict[str, int]:
    """Forward pass of one image by part: "teacher", "student", "decoder"."""
    dim, hidden = config.embed_dim, config.hidden_dim(config.embed_dim)
    teacher = _blocks_macs(config.tokens_per_block(config.num_masked), dim, hidden)
    student = _blocks_macs([1 + config.num_visible] * config.depth, dim, hidden)
    return {
        "teacher": patch_embed_macs(config, config.num_masked) + teacher,
        "student": patch_embed_macs(config, config.num_visible) + student,
        "decoder": decoder_macs(config, 1 + config.num_visible, config.num_targets),
    }


def pretraining_macs(config: ModelConfig) -> int:
    """One training step of one image: the teacher's forward pass once, student and decoder three times."""
    parts = pretraining_forward_macs(config)
    return parts["teacher"] + 3 * (parts["student"] + parts["decoder"])


def mae_macs(config: ModelConfig) -> int:
    """One MAE training step of one image with the same encoder and decoder: all N positions decoded to pixels.

    As MAE is published: every patch is embedded, the decoder sees 1 + N tokens and predicts all of them.
    """
    dim, hidden = config.embed_dim, config.hidden_dim(config.embed_dim)
    patch_dim = config.in_chans * config.patch_size**2
    width = config.decoder_embed_dim
    student = _blocks_macs([1 + config.num_visible] * config.depth, dim, hidden)
    decoder = (1 + config.num_visible) * dim * width + (1 + config.num_patches) * width * patch_dim
    decoder += _blocks_macs([1 + config.num_patches] * config.decoder_depth, width, config.hidden_dim(width))
    return 3 * (patch_embed_macs(config, config.num_patches) + student + decoder)
