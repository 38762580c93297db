"""The models as cells: `Encoder`, which is deployed, `Decoder`, and the `Teacher` and `Student` of pre-training.

Parameter names are timm's and MAE's. Cells are filled with zeros, and `load` gives them values. `dtype` is the dtype of
the parameters, `compute` that of the matrix products. Letters as in `ops`; P prefix tokens, T tokens with prefix, L
blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, mint, nn, ops

from pcae_core.config import ModelConfig
from pcae_core.contract import StageOutput
from pcae_mindspore.layers import Block, LayerNorm, Linear, PatchEmbed, zeros
from pcae_mindspore.ops import (
    at_least_float32,
    cosine_loss,
    gather_tokens,
    patchify,
    reduce_tokens,
    similarity_scores,
    soft_cross_entropy,
    standardize,
)


class Encoder(nn.Cell):
    """Vision Transformer whose blocks can drop tokens."""

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__()
        self.config, self.num_prefix_tokens = config, config.num_prefix_tokens
        compute = compute or dtype
        dim, hidden = config.embed_dim, config.hidden_dim(config.embed_dim)
        self.center = config.reduction.center
        self.stage_blocks = tuple(config.kept_after_block(config.num_patches))
        self.cls_token = zeros("cls_token", 1, 1, dim, dtype=dtype)
        num_tokens = config.num_prefix_tokens + config.num_patches
        self.pos_embed = zeros("pos_embed", 1, num_tokens, dim, dtype=dtype, trainable=False)
        self.patch_embed = PatchEmbed(config, dtype, compute)
        eps = config.layer_norm_eps
        self.norm_pre = LayerNorm(dim, dtype, eps) if config.pre_norm else None
        self.blocks = nn.CellList(
            [Block(dim, config.num_heads, hidden, dtype, compute, eps, config.activation) for _ in range(config.depth)]
        )
        self.norm = LayerNorm(dim, dtype, eps)
        pools = config.num_classes and config.pooling == "mean"
        self.fc_norm = LayerNorm(dim, dtype, eps) if pools else None
        # A Linear or None. It is Any, because code that MindSpore compiles cannot assert which
        self.head: Any = Linear(dim, config.num_classes, dtype, compute) if config.num_classes else None

    def embed(self, patches: Tensor, ids: Tensor) -> Tensor:
        """Project only the patches (B, N, C*p*p) at ids (B, k) and add their positions: (B, k, D)."""
        positions = ops.gather(self.pos_embed[0], self.num_prefix_tokens + ids, 0)
        return self.patch_embed(gather_tokens(patches, ids)) + positions

    def prepend_prefix(self, tokens: Tensor) -> Tensor:
        """(B, k, D) -> (B, P + k, D), the class token first."""
        prefix = self.cls_token + self.pos_embed[:, : self.num_prefix_tokens]
        shape = (tokens.shape[0], self.num_prefix_tokens, tokens.shape[2])
        return mint.cat([ops.broadcast_to(prefix, shape), tokens], 1)

    def pre_normed(self, tokens: Tensor) -> Tensor:
        """Embedded tokens (B, T, D) as the first block gets them."""
        return tokens if self.norm_pre is None else self.norm_pre(tokens)

    def encode_visible(self, patches: Tensor, visible: Tensor, drop_path: Tensor | None) -> Tensor:
        """The student's pass: prefix tokens and the patches at `visible` (B, V) through all blocks: (B, P + V, D).

        Args:
            drop_path: (L, 2, B, 1, 1), or None.
        """
        tokens = self.pre_normed(self.prepend_prefix(self.embed(patches, visible)))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, None if drop_path is None else drop_path[i])
        return self.norm(tokens)

    def reduced_blocks(
        self,
        tokens: Tensor,
        ids: Tensor,
        kept_after_block: tuple[int, ...],
        num_prefix_tokens: int,
        drop_path: Tensor | None = None,
        stages: list[StageOutput] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, P + n, D) of the patches at ids (B, n) through all blocks, dropping some at each stage.

        Args:
            kept_after_block: number of patch tokens that are left after each block.
            drop_path: (L, 2, B, 1, 1), or None.
            stages: list to add each stage to, with its scores; None in a compiled graph.

        Returns:
            What is left (B, P + k, D), before the final norm, and its positions (B, k).
        """
        tokens = self.pre_normed(tokens)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, None if drop_path is None else drop_path[i])
            entered, scored, k = ids, tokens, kept_after_block[i]
            if k < ids.shape[1]:
                tokens, kept = reduce_tokens(tokens, k, num_prefix_tokens, self.center)
                ids = ops.gather_elements(ids, 1, kept)
            if stages is not None and i in self.stage_blocks:
                scores = similarity_scores(scored[:, num_prefix_tokens:], self.center)
                stages.append(StageOutput(i, entered, scores, ids))
        return tokens, ids

    def encode_all(
        self,
        images: Tensor,
        kept_after_block: tuple[int, ...],
        drop_path: Tensor | None = None,
        stages: list[StageOutput] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Prefix tokens and every patch of images (B, C, H, W) through `reduced_blocks`."""
        config = self.config
        tokens = self.patch_embed(patchify(images, config.patch_size)) + self.pos_embed[:, self.num_prefix_tokens :]
        ids = ops.broadcast_to(ops.arange(config.num_patches, dtype=ms.int32), tokens.shape[:2])
        tokens = self.prepend_prefix(tokens)
        return self.reduced_blocks(tokens, ids, kept_after_block, self.num_prefix_tokens, drop_path, stages)

    def classify(self, tokens: Tensor) -> Tensor:
        """The last block's output (B, P + k, D) -> logits (B, classes)."""
        if self.fc_norm is None:
            return self.head(self.norm(tokens[:, 0]))
        return self.head(self.fc_norm(tokens[:, self.num_prefix_tokens :].mean(1)))

    def construct(
        self, images: Tensor, keep: float = 1.0, stages: list[StageOutput] | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Normalised images (B, C, H, W) -> hidden (B, P + k, D), kept ids (B, k), logits (B, classes) or None.

        Args:
            keep: share of the patch tokens that each stage keeps.
            stages: as in `reduced_blocks`.
        """
        config = self.config  # a compiled graph does not find methods of `self.config`
        counts = tokens_left(config, config.num_patches, keep)
        tokens, kept_ids = self.encode_all(images, counts, None, stages)
        logits = None if self.head is None else self.classify(tokens)
        return self.norm(tokens), kept_ids, logits


class Decoder(nn.Cell):
    """Predicts features at the target positions from the encoded visible tokens."""

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__()
        self.num_prefix_tokens = config.num_prefix_tokens
        compute = compute or dtype
        dim, hidden = config.decoder_embed_dim, config.hidden_dim(config.decoder_embed_dim)
        self.mask_token = zeros("mask_token", 1, 1, dim, dtype=dtype)
        num_tokens = config.num_prefix_tokens + config.num_patches
        self.decoder_pos_embed = zeros("decoder_pos_embed", 1, num_tokens, dim, dtype=dtype, trainable=False)
        self.decoder_embed = Linear(config.embed_dim, dim, dtype, compute)
        eps = config.layer_norm_eps
        self.decoder_blocks = nn.CellList(
            [
                Block(dim, config.decoder_num_heads, hidden, dtype, compute, eps, config.activation)
                for _ in range(config.decoder_depth)
            ]
        )
        self.decoder_norm = LayerNorm(dim, dtype, eps)
        self.decoder_pred = Linear(dim, config.embed_dim, dtype, compute)
        self.last = config.decoder_depth - 1

    def construct(self, latent: Tensor, visible: Tensor, target_ids: Tensor) -> Tensor:
        """(B, P + V, D), (B, V), (B, K) -> predictions (B, K, D); only P + V + K tokens are decoded."""
        num_prefix, positions = self.num_prefix_tokens, self.decoder_pos_embed[0]
        context = self.decoder_embed(latent).astype(latent.dtype)
        of_prefix = ops.broadcast_to(ops.arange(num_prefix, dtype=visible.dtype), (visible.shape[0], num_prefix))
        seen = mint.cat([of_prefix, num_prefix + visible], 1)
        context = context + ops.gather(positions, seen, 0)
        tokens = mint.cat([context, self.mask_token + ops.gather(positions, num_prefix + target_ids, 0)], 1)
        for i, block in enumerate(self.decoder_blocks):
            tokens = block(tokens, None, target_ids.shape[1] if i == self.last else 0)
        return self.decoder_pred(self.decoder_norm(tokens))


class Teacher(nn.Cell):
    """The encoder that makes the targets from the masked patches; no prefix tokens, no gradient."""

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config, dtype, compute)
        self.tokens_left = tokens_left(config, config.num_masked, config.reduction.keep)

    def construct(self, patches: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, N, C*p*p) at `masked` (B, M) -> targets (B, K, D) and their ids (B, K)."""
        tokens = self.encoder.embed(patches, masked)
        latent, ids = self.encoder.reduced_blocks(tokens, masked, self.tokens_left, 0)
        return ops.stop_gradient(standardize(self.encoder.norm(latent))), ids


class Student(nn.Cell):
    """Encoder and decoder."""

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__()
        self.num_prefix_tokens = config.num_prefix_tokens
        self.encoder = Encoder(config, dtype, compute)
        self.decoder = Decoder(config, dtype, compute)

    def construct(
        self, patches: Tensor, visible: Tensor, target: Tensor, target_ids: Tensor, drop_path: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (scalar), prediction (B, K, D), and the mean visible token (B, D) without gradient."""
        latent = self.encoder.encode_visible(patches, visible, drop_path)
        prediction = self.decoder(latent, visible, target_ids)
        features = ops.stop_gradient(latent)[:, self.num_prefix_tokens :].mean(1)
        return cosine_loss(prediction, target), prediction, features


class Classifier(nn.Cell):
    """Encoder and head for fine-tuning."""

    def __init__(
        self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None, keep: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder = Encoder(config, dtype, compute)
        self.tokens_left = tokens_left(config, config.num_patches, keep)

    def construct(self, images: Tensor, targets: Tensor, drop_path: Tensor | None) -> Tensor:
        """Images (B, C, H, W), targets (B, classes) -> the cross-entropy, a scalar of float32 or better."""
        tokens, _ = self.encoder.encode_all(images, self.tokens_left, drop_path)
        return soft_cross_entropy(at_least_float32(self.encoder.classify(tokens)), targets)


def tokens_left(config: ModelConfig, num_tokens: int, keep: float) -> tuple[int, ...]:
    """Number of patch tokens that are left after each encoder block, starting from `num_tokens`."""
    kept = config.kept_after_block(num_tokens, keep)
    counts = []
    for block in range(config.depth):
        num_tokens = kept.get(block, num_tokens)
        counts.append(num_tokens)
    return tuple(counts)


def canonical_names(cell: nn.Cell) -> dict[str, Parameter]:
    """Canonical name -> parameter, without the prefixes of the parts of `Student` and `Teacher`."""
    named = cell.parameters_and_names()
    return {name.removeprefix("encoder.").removeprefix("decoder."): parameter for name, parameter in named}


def load(cell: nn.Cell, parameters: Mapping[str, Tensor]) -> None:
    """Copy these tensors into `cell` by canonical name. Surplus tensors are ignored."""
    for name, parameter in canonical_names(cell).items():
        ops.assign(parameter, parameters[name])
