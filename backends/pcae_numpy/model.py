"""The models: Vision Transformer blocks, the encoder with token reduction, and the pre-training forward pass.

Parameters are dictionaries by canonical name. Functions with a backward pass also return the input of each block.
Letters as in `ops`; L blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pcae_core.config import Activation, ModelConfig
from pcae_core.contract import Array, EncoderOutput, EncoderTrace, PretrainingOutput, StageOutput
from pcae_numpy import ops
from pcae_numpy.ops import Floats, Ids

Parameters = Mapping[str, Floats]


class Widened(Mapping[str, Floats]):
    """Parameters that are converted to float64 when they are read. So the model is not in memory twice."""

    def __init__(self, narrow: Mapping[str, Array]) -> None:
        self._narrow = narrow

    def __getitem__(self, name: str) -> Floats:
        return np.array(self._narrow[name], dtype=np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._narrow)

    def __len__(self) -> int:
        return len(self._narrow)


def attention(p: Parameters, prefix: str, x: Floats, num_heads: int) -> Floats:
    """Multi-head self-attention (B, T, D) -> (B, T, D)."""
    qkv = ops.linear(x, p[f"{prefix}.qkv.weight"], p[f"{prefix}.qkv.bias"])
    query, key, value = ops.split_heads(qkv, num_heads)
    mixed = ops.merge_heads(ops.attention_weights(query, key) @ value)
    return ops.linear(mixed, p[f"{prefix}.proj.weight"], p[f"{prefix}.proj.bias"])


def mlp(p: Parameters, prefix: str, x: Floats, activation: Activation) -> Floats:
    """Two linear layers with the activation between (B, T, D) -> (B, T, D)."""
    hidden = ops.ACTIVATIONS[activation](ops.linear(x, p[f"{prefix}.fc1.weight"], p[f"{prefix}.fc1.bias"]))
    return ops.linear(hidden, p[f"{prefix}.fc2.weight"], p[f"{prefix}.fc2.bias"])


def norm(p: Parameters, prefix: str, x: Floats, eps: float) -> Floats:
    """LayerNorm (B, T, D)."""
    return ops.layer_norm(x, p[f"{prefix}.weight"], p[f"{prefix}.bias"], eps)


def block(config: ModelConfig, p: Parameters, prefix: str, x: Floats, num_heads: int, scales: Floats) -> Floats:
    """Pre-norm block (B, T, D); `scales` (2, B) multiply its attention and MLP branch (drop path)."""
    attention_scale, mlp_scale = scales[:, :, None, None]
    eps = config.layer_norm_eps
    x = x + attention_scale * attention(p, f"{prefix}.attn", norm(p, f"{prefix}.norm1", x, eps), num_heads)
    return x + mlp_scale * mlp(p, f"{prefix}.mlp", norm(p, f"{prefix}.norm2", x, eps), config.activation)


def blocks(
    config: ModelConfig, p: Parameters, name: str, x: Floats, num_heads: int, scales: Floats
) -> tuple[Floats, list[Floats]]:
    """`len(scales)` blocks in a row. Returns the output, and the input of each block."""
    inputs = []
    for i, block_scales in enumerate(scales):
        inputs.append(x)
        x = block(config, p, f"{name}.{i}", x, num_heads, block_scales)
    return x, inputs


def embed_patches(config: ModelConfig, p: Parameters, patches: Floats, ids: Ids) -> Floats:
    """Patches (B, N, C*p*p) at ids (B, k), projected, with their position embeddings: (B, k, D)."""
    weight = p["patch_embed.proj.weight"]
    bias = p["patch_embed.proj.bias"] if config.patch_bias else np.zeros(len(weight))
    embedded = ops.linear(ops.gather_tokens(patches, ids), weight.reshape(len(weight), -1), bias)
    return embedded + p["pos_embed"][0, config.num_prefix_tokens + ids]


def prepend_prefix(config: ModelConfig, p: Parameters, tokens: Floats) -> Floats:
    """(B, k, D) -> (B, P + k, D), the class token first."""
    prefix = p["cls_token"] + p["pos_embed"][:, : config.num_prefix_tokens]
    return np.concatenate([np.broadcast_to(prefix, (len(tokens), *prefix.shape[1:])), tokens], axis=1)


def pre_normed(config: ModelConfig, p: Parameters, tokens: Floats) -> Floats:
    """Embedded tokens (B, T, D) as the first block gets them."""
    return norm(p, "norm_pre", tokens, config.layer_norm_eps) if config.pre_norm else tokens


@dataclass(frozen=True)
class Stage:
    """One reduction of patches at ids (B, n) with scores (B, n). Those at indices `kept` (B, k) stay."""

    ids: Ids
    scores: Floats
    kept: Ids

    @property
    def kept_ids(self) -> Ids:
        """Positions of the patches that stay (B, k)."""
        return np.take_along_axis(self.ids, self.kept, axis=1)

    def gaps(self) -> Floats:
        """Distance between the highest score that stays and the lowest that is dropped (B,); infinite if all stay."""
        ordered, k = np.sort(self.scores, axis=1), self.kept.shape[1]
        return np.full(len(ordered), np.inf) if k == ordered.shape[1] else ordered[:, k] - ordered[:, k - 1]


@dataclass(frozen=True)
class ReductionTrace:
    """Intermediate values of blocks that drop tokens."""

    inputs: list[Floats]  # input of each of the L blocks
    stages: dict[int, Stage]  # by the block before the reduction
    ids: Ids  # positions of the patches that are left (B, k)
    tokens: Floats  # what is left (B, P + k, D), before the final norm


def reduced_blocks(
    config: ModelConfig, p: Parameters, tokens: Floats, ids: Ids, keep: float, num_prefix_tokens: int, scales: Floats
) -> ReductionTrace:
    """All blocks, dropping tokens at each stage (paper, section 3).

    Args:
        tokens: embedded (B, P + n, D); ids: their patches' positions (B, n).
        scales: (L, 2, B), multiply the residual branches (drop path).
    """
    kept_after_block = config.kept_after_block(ids.shape[1], keep)
    inputs, stages = [], {}
    tokens = pre_normed(config, p, tokens)
    for i in range(config.depth):
        inputs.append(tokens)
        tokens = block(config, p, f"blocks.{i}", tokens, config.num_heads, scales[i])
        if i in kept_after_block:
            scores = ops.similarity_scores(tokens[:, num_prefix_tokens:], config.reduction.center)
            tokens, kept = ops.reduce_tokens(tokens, kept_after_block[i], num_prefix_tokens, config.reduction.center)
            stages[i] = Stage(ids, scores, kept)
            ids = stages[i].kept_ids
    return ReductionTrace(inputs, stages, ids, tokens)


def reduced_encoder(
    config: ModelConfig, p: Parameters, tokens: Floats, ids: Ids, keep: float, num_prefix_tokens: int
) -> tuple[Floats, Ids]:
    """`reduced_blocks` and the final norm. Returns the tokens that are left (B, P + k, D) and their patches (B, k)."""
    no_drop_path = np.ones((config.depth, 2, len(tokens)))
    trace = reduced_blocks(config, p, tokens, ids, keep, num_prefix_tokens, no_drop_path)
    return norm(p, "norm", trace.tokens, config.layer_norm_eps), trace.ids


def teacher_targets(config: ModelConfig, p: Parameters, patches: Floats, masked: Ids) -> tuple[Floats, Ids]:
    """Standardised features (B, K, D) of the masked patches that stay, and their ids (B, K)."""
    tokens = embed_patches(config, p, patches, masked)
    latent, target_ids = reduced_encoder(config, p, tokens, masked, config.reduction.keep, num_prefix_tokens=0)
    return ops.standardize(latent), target_ids


@dataclass(frozen=True)
class StudentTrace:
    """Intermediate values of the student that its backward pass needs."""

    patches: Floats  # (B, N, C*p*p)
    visible: Ids  # (B, V)
    encoder_inputs: list[Floats]  # L times (B, P + V, D)
    encoded: Floats  # before the final norm
    latent: Floats  # after it
    decoder_inputs: list[Floats]
    decoded: Floats  # before the decoder's norm
    prediction: Floats  # (B, K, D)


def student_forward(
    config: ModelConfig, p: Parameters, patches: Floats, visible: Ids, target_ids: Ids, drop_path: Floats
) -> StudentTrace:
    """Encode the prefix tokens and the visible patches, then decode at the target positions only."""
    tokens = prepend_prefix(config, p, embed_patches(config, p, patches, visible))
    encoded, encoder_inputs = blocks(config, p, "blocks", pre_normed(config, p, tokens), config.num_heads, drop_path)
    latent = norm(p, "norm", encoded, config.layer_norm_eps)

    context = ops.linear(latent, p["decoder_embed.weight"], p["decoder_embed.bias"])
    num_prefix, positions = config.num_prefix_tokens, p["decoder_pos_embed"][0]
    of_prefix = np.broadcast_to(positions[:num_prefix], (len(visible), num_prefix, positions.shape[1]))
    context = context + np.concatenate([of_prefix, positions[num_prefix + visible]], axis=1)
    queries = p["mask_token"] + positions[num_prefix + target_ids]
    no_drop_path = np.ones((config.decoder_depth, 2, len(visible)))
    decoded, decoder_inputs = blocks(
        config, p, "decoder_blocks", np.concatenate([context, queries], axis=1), config.decoder_num_heads, no_drop_path
    )
    answers = norm(p, "decoder_norm", decoded, config.layer_norm_eps)[:, -target_ids.shape[1] :]
    prediction = ops.linear(answers, p["decoder_pred.weight"], p["decoder_pred.bias"])
    return StudentTrace(patches, visible, encoder_inputs, encoded, latent, decoder_inputs, decoded, prediction)


def traced_forward(
    config: ModelConfig, student: Parameters, teacher: Parameters, images: Floats, noise: Floats, drop_path: Floats
) -> tuple[PretrainingOutput, StudentTrace]:
    """The whole pre-training forward pass, and the student's trace."""
    patches = ops.patchify(images, config.patch_size)
    visible, masked = ops.split_by_noise(noise, config.num_visible)
    target, target_ids = teacher_targets(config, teacher, patches, masked)
    trace = student_forward(config, student, patches, visible, target_ids, drop_path)
    loss = ops.cosine_loss(trace.prediction, target)
    return PretrainingOutput(loss, trace.prediction, target, visible, target_ids), trace


def every_patch(config: ModelConfig, batch: int) -> Ids:
    """(B, N)."""
    return np.broadcast_to(np.arange(config.num_patches), (batch, config.num_patches))


def encoder_trace(config: ModelConfig, p: Parameters, images: Floats, keep: float, scales: Floats) -> ReductionTrace:
    """Prefix tokens and all patches through the blocks with token reduction."""
    patches, ids = ops.patchify(images, config.patch_size), every_patch(config, len(images))
    tokens = prepend_prefix(config, p, embed_patches(config, p, patches, ids))
    return reduced_blocks(config, p, tokens, ids, keep, config.num_prefix_tokens, scales)


def pooled(config: ModelConfig, p: Parameters, tokens: Floats) -> Floats:
    """What the head reads (B, D), of the last block's output (B, P + k, D)."""
    if config.pooling == "cls":
        return norm(p, "norm", tokens[:, 0], config.layer_norm_eps)
    return norm(p, "fc_norm", tokens[:, config.num_prefix_tokens :].mean(axis=1), config.layer_norm_eps)


def classify(config: ModelConfig, p: Parameters, tokens: Floats) -> Floats:
    """Logits (B, classes) of the last block's output (B, P + k, D)."""
    return ops.linear(pooled(config, p, tokens), p["head.weight"], p["head.bias"])


def encode(config: ModelConfig, p: Parameters, images: Floats, keep: float) -> EncoderTrace:
    """Prefix tokens and all patches through the encoder with token reduction, with its stages."""
    trace = encoder_trace(config, p, images, keep, np.ones((config.depth, 2, len(images))))
    hidden = norm(p, "norm", trace.tokens, config.layer_norm_eps)
    logits = classify(config, p, trace.tokens) if config.num_classes else None
    stages = [StageOutput(block, stage.ids, stage.scores, stage.kept_ids) for block, stage in trace.stages.items()]
    return EncoderTrace(EncoderOutput(hidden, trace.ids, logits), tuple(stages))
