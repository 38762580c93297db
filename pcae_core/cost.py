"""Multiply-accumulates (MACs), computed from shapes.

Every matrix product counts: linear layers and the two products of attention. Norms, softmax, GELU and biases do not
count, as usual. Numbers are for one image and one forward pass, unless a function says otherwise. A backward pass costs
as much as two forward passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcae_core.config import ModelConfig


def block_macs(num_tokens: int, dim: int, hidden_dim: int, num_outputs: int | None = None) -> int:
    """One transformer block: qkv, attention's two products, projection, MLP.

    Args:
        num_outputs: number of tokens whose output is needed; the others give keys and values only. Default: all.
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
    """Inference on one image: prefix tokens and all patches, of which each stage drops a share `1 - keep`."""
    counts = config.tokens_per_block(config.num_patches, config.num_prefix_tokens, keep=keep)
    head = config.num_classes * config.embed_dim
    blocks = _blocks_macs(counts, config.embed_dim, config.hidden_dim(config.embed_dim))
    return patch_embed_macs(config, config.num_patches) + blocks + head


def decoder_macs(config: ModelConfig, num_context: int, num_targets: int) -> int:
    """The decoder on `num_context` encoded tokens and `num_targets` queries; its last block gives only the queries."""
    dim, hidden = config.decoder_embed_dim, config.hidden_dim(config.decoder_embed_dim)
    tokens = num_context + num_targets
    embed, predict = num_context * config.embed_dim * dim, num_targets * dim * config.embed_dim
    blocks = _blocks_macs([tokens] * (config.decoder_depth - 1), dim, hidden)
    return embed + blocks + block_macs(tokens, dim, hidden, num_targets) + predict


def pretraining_forward_macs(config: ModelConfig) -> dict[str, int]:
    """MACs of one image's forward pass in each part: "teacher", "student" and "decoder"."""
    dim, hidden = config.embed_dim, config.hidden_dim(config.embed_dim)
    seen = config.num_prefix_tokens + config.num_visible
    teacher = _blocks_macs(config.tokens_per_block(config.num_masked), dim, hidden)
    student = _blocks_macs([seen] * config.depth, dim, hidden)
    return {
        "teacher": patch_embed_macs(config, config.num_masked) + teacher,
        "student": patch_embed_macs(config, config.num_visible) + student,
        "decoder": decoder_macs(config, seen, config.num_targets),
    }


def pretraining_macs(config: ModelConfig) -> int:
    """One training step of one image: forward once for the teacher, forward and backward for student and decoder."""
    parts = pretraining_forward_macs(config)
    return parts["teacher"] + 3 * (parts["student"] + parts["decoder"])


def mae_macs(config: ModelConfig) -> int:
    """One MAE training step of one image, with the same encoder and decoder.

    As in the published MAE, every patch is embedded, and the decoder sees P + N tokens and predicts the pixels of all.
    """
    dim, hidden = config.embed_dim, config.hidden_dim(config.embed_dim)
    patch_dim = config.in_chans * config.patch_size**2
    width = config.decoder_embed_dim
    seen, every = (config.num_prefix_tokens + patches for patches in (config.num_visible, config.num_patches))
    student = _blocks_macs([seen] * config.depth, dim, hidden)
    decoder = seen * dim * width + every * width * patch_dim
    decoder += _blocks_macs([every] * config.decoder_depth, width, config.hidden_dim(width))
    return 3 * (patch_embed_macs(config, config.num_patches) + student + decoder)
