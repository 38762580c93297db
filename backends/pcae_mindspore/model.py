"""The models as cells: `Encoder` (what is deployed), `Decoder`, and the two sides of pre-training made of them.

Parameter names are timm's and MAE's. Cells are made with zeros; `load` gives them values. `dtype` is that of the
parameters, `compute` that of the matrix products. Letters as in `ops`; T tokens with prefix, L blocks.
"""

from __future__ import annotations

from collections.abc import Mapping

import mindspore as ms
from mindspore import Parameter, Tensor, mint, nn, ops

from pcae_core.config import ModelConfig
from pcae_mindspore import _compat
from pcae_mindspore.ops import cosine_loss, gather_tokens, patchify, reduce_tokens, standardize


def _zeros(name: str, *shape: int, dtype: ms.Type, trainable: bool = True) -> Parameter:
    return Parameter(ops.zeros(shape, dtype), name=name, requires_grad=trainable)


class Linear(nn.Cell):
    """`x @ weight.T + bias`, (B, T, D_in) -> (B, T, D_out) of the dtype `compute`."""

    def __init__(self, inputs: int, outputs: int, dtype: ms.Type, compute: ms.Type) -> None:
        super().__init__()
        self.compute = compute
        self.weight = _zeros("weight", outputs, inputs, dtype=dtype)
        self.bias = _zeros("bias", outputs, dtype=dtype)

    def construct(self, x: Tensor) -> Tensor:
        """See the class."""
        return _compat.linear(x, self.weight, self.bias, self.compute)


class LayerNorm(nn.Cell):
    """Layer normalisation (..., D)."""

    def __init__(self, dim: int, dtype: ms.Type, eps: float) -> None:
        super().__init__()
        self.eps, self.fused = eps, _compat.fused_layer_norm(eps)
        self.weight = _zeros("weight", dim, dtype=dtype)
        self.bias = _zeros("bias", dim, dtype=dtype)

    def construct(self, x: Tensor) -> Tensor:
        """See the class."""
        return _compat.layer_norm(x, self.weight, self.bias, self.eps, self.fused)


class Attention(nn.Cell):
    """Multi-head self-attention (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, num_heads: int, dtype: ms.Type, compute: ms.Type) -> None:
        super().__init__()
        self.dim, self.num_heads, self.compute = dim, num_heads, compute
        self.scale = (dim // num_heads) ** -0.5  # not in `construct`: a graph computes with Python floats in float32
        self.fused = _compat.has_fused_attention(dim, num_heads, compute)
        self.qkv = Linear(dim, 3 * dim, dtype, compute)
        self.proj = Linear(dim, dim, dtype, compute)

    def construct(self, x: Tensor, num_outputs: int = 0) -> Tensor:
        """With `num_outputs`, of the last tokens only (B, num_outputs, D)."""
        query, key, value = self.project(x, num_outputs)
        if self.fused:
            return self.proj(_compat.fused_attention(query, key, value, self.num_heads, self.scale))
        return self.proj(_compat.plain_attention(query, key, value, self.num_heads, self.scale))

    def project(self, x: Tensor, num_outputs: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, num_outputs or T, D), key and value (B, T, D). `mint.split` has wrong gradients here."""
        dim = self.dim
        if num_outputs == 0:
            return ops.split(self.qkv(x), dim, axis=-1)
        weight, bias = self.qkv.weight, self.qkv.bias
        query = _compat.linear(x[:, -num_outputs:], weight[:dim], bias[:dim], self.compute)
        key, value = ops.split(_compat.linear(x, weight[dim:], bias[dim:], self.compute), dim, axis=-1)
        return query, key, value


class Mlp(nn.Cell):
    """Two linear layers with exact GELU between."""

    def __init__(self, dim: int, hidden_dim: int, dtype: ms.Type, compute: ms.Type) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim, dtype, compute)
        self.fc2 = Linear(hidden_dim, dim, dtype, compute)

    def construct(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.fc2(_compat.gelu(self.fc1(x)))


class Block(nn.Cell):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, dtype: ms.Type, compute: ms.Type, eps: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, dtype, eps)
        self.attn = Attention(dim, num_heads, dtype, compute)
        self.norm2 = LayerNorm(dim, dtype, eps)
        self.mlp = Mlp(dim, hidden_dim, dtype, compute)

    def construct(self, x: Tensor, scales: Tensor | None = None, num_outputs: int = 0) -> Tensor:
        """(B, T, D) -> (B, T, D), or the last `num_outputs` tokens of it: the others are read, not computed.

        Args:
            scales: (2, B, 1, 1), multiply the two branches (drop path).
        """
        kept = x if num_outputs == 0 else x[:, -num_outputs:]
        attended = self.attn(self.norm1(x), num_outputs).astype(x.dtype)
        x = kept + (attended if scales is None else scales[0] * attended)
        answer = self.mlp(self.norm2(x)).astype(x.dtype)
        return x + (answer if scales is None else scales[1] * answer)


class PatchProjection(nn.Cell):
    """Linear projection of flat patches (B, k, C*p*p) -> (B, k, D); the weight has the shape of timm's convolution."""

    def __init__(self, config: ModelConfig, dtype: ms.Type, compute: ms.Type) -> None:
        super().__init__()
        self.compute = compute
        size = config.patch_size
        self.weight = _zeros("weight", config.embed_dim, config.in_chans, size, size, dtype=dtype)
        self.bias = _zeros("bias", config.embed_dim, dtype=dtype)

    def construct(self, patches: Tensor) -> Tensor:
        """See the class."""
        weight = self.weight.reshape(self.weight.shape[0], -1)
        return _compat.linear(patches, weight, self.bias, self.compute).astype(patches.dtype)


class PatchEmbed(nn.Cell):
    """Holds the projection under timm's name."""

    def __init__(self, config: ModelConfig, dtype: ms.Type, compute: ms.Type) -> None:
        super().__init__()
        self.proj = PatchProjection(config, dtype, compute)

    def construct(self, patches: Tensor) -> Tensor:
        """(B, k, C*p*p) -> (B, k, D)."""
        return self.proj(patches)


class Encoder(nn.Cell):
    """Vision Transformer whose blocks can drop tokens."""

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__()
        self.config = config
        compute = compute or dtype
        dim, hidden = config.embed_dim, config.hidden_dim(config.embed_dim)
        self.center = config.reduction.center
        self.cls_token = _zeros("cls_token", 1, 1, dim, dtype=dtype)
        self.pos_embed = _zeros("pos_embed", 1, 1 + config.num_patches, dim, dtype=dtype, trainable=False)
        self.patch_embed = PatchEmbed(config, dtype, compute)
        eps = config.layer_norm_eps
        self.blocks = nn.CellList(
            [Block(dim, config.num_heads, hidden, dtype, compute, eps) for _ in range(config.depth)]
        )
        self.norm = LayerNorm(dim, dtype, eps)
        self.head = Linear(dim, config.num_classes, dtype, compute) if config.num_classes else None

    def embed(self, patches: Tensor, ids: Tensor) -> Tensor:
        """Project only the patches (B, N, C*p*p) at ids (B, k) and add their positions: (B, k, D)."""
        return self.patch_embed(gather_tokens(patches, ids)) + ops.gather(self.pos_embed[0], 1 + ids, 0)

    def prepend_cls(self, tokens: Tensor) -> Tensor:
        """(B, k, D) -> (B, 1 + k, D)."""
        cls = self.cls_token + self.pos_embed[:, :1]
        return mint.cat([ops.broadcast_to(cls, (tokens.shape[0], 1, tokens.shape[2])), tokens], 1)

    def encode_visible(self, patches: Tensor, visible: Tensor, drop_path: Tensor | None) -> Tensor:
        """The student's pass: CLS and the patches at `visible` (B, V) through all blocks: (B, 1 + V, D).

        Args:
            drop_path: (L, 2, B, 1, 1), or None.
        """
        tokens = self.prepend_cls(self.embed(patches, visible))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, None if drop_path is None else drop_path[i])
        return self.norm(tokens)

    def encode_reduced(
        self, tokens: Tensor, ids: Tensor, kept_after_block: tuple[int, ...], num_prefix_tokens: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, P + n, D) of the patches at ids (B, n) through all blocks, dropping some at each stage.

        Args:
            kept_after_block: patch tokens that are left after each block.

        Returns:
            What is left (B, P + k, D) after the final norm, and its positions (B, k).
        """
        for block, k in zip(self.blocks, kept_after_block):  # noqa: B905 (`strict` does not compile)
            tokens = block(tokens)
            if k < ids.shape[1]:
                tokens, kept = reduce_tokens(tokens, k, num_prefix_tokens, self.center)
                ids = ops.gather_elements(ids, 1, kept)
        return self.norm(tokens), ids

    def construct(self, images: Tensor, keep: float = 1.0) -> tuple[Tensor, Tensor, Tensor | None]:
        """Normalised images (B, C, H, W) -> hidden (B, 1 + k, D), kept ids (B, k), logits (B, classes) or None.

        Args:
            keep: share of the patch tokens that stays at each stage.
        """
        config = self.config
        tokens = self.patch_embed(patchify(images, config.patch_size)) + self.pos_embed[:, 1:]
        ids = ops.broadcast_to(ops.arange(config.num_patches, dtype=ms.int32), tokens.shape[:2])
        counts = tokens_left(config, config.num_patches, keep)
        hidden, kept_ids = self.encode_reduced(self.prepend_cls(tokens), ids, counts, 1)
        logits = None if self.head is None else self.head(hidden[:, 0])
        return hidden, kept_ids, logits


class Decoder(nn.Cell):
    """Predicts features at the target positions from the encoded visible tokens."""

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__()
        compute = compute or dtype
        dim, hidden = config.decoder_embed_dim, config.hidden_dim(config.decoder_embed_dim)
        self.mask_token = _zeros("mask_token", 1, 1, dim, dtype=dtype)
        self.decoder_pos_embed = _zeros(
            "decoder_pos_embed", 1, 1 + config.num_patches, dim, dtype=dtype, trainable=False
        )
        self.decoder_embed = Linear(config.embed_dim, dim, dtype, compute)
        eps = config.layer_norm_eps
        self.decoder_blocks = nn.CellList(
            [Block(dim, config.decoder_num_heads, hidden, dtype, compute, eps) for _ in range(config.decoder_depth)]
        )
        self.decoder_norm = LayerNorm(dim, dtype, eps)
        self.decoder_pred = Linear(dim, config.embed_dim, dtype, compute)
        self.last = config.decoder_depth - 1

    def construct(self, latent: Tensor, visible: Tensor, target_ids: Tensor) -> Tensor:
        """(B, 1 + V, D), (B, V), (B, K) -> predictions (B, K, D); only 1 + V + K tokens are decoded."""
        positions = self.decoder_pos_embed[0]
        context = self.decoder_embed(latent).astype(latent.dtype)
        seen = mint.cat([ops.zeros_like(visible[:, :1]), 1 + visible], 1)
        context = context + ops.gather(positions, seen, 0)
        tokens = mint.cat([context, self.mask_token + ops.gather(positions, 1 + target_ids, 0)], 1)
        for i, block in enumerate(self.decoder_blocks):
            tokens = block(tokens, None, target_ids.shape[1] if i == self.last else 0)
        return self.decoder_pred(self.decoder_norm(tokens))


class Teacher(nn.Cell):
    """The encoder that makes the targets from the masked patches; no CLS token, no gradient."""

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config, dtype, compute)
        self.tokens_left = tokens_left(config, config.num_masked, config.reduction.keep)

    def construct(self, patches: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, N, C*p*p) at `masked` (B, M) -> targets (B, K, D) and their ids (B, K)."""
        tokens = self.encoder.embed(patches, masked)
        latent, ids = self.encoder.encode_reduced(tokens, masked, self.tokens_left, 0)
        return ops.stop_gradient(standardize(latent)), ids


class Student(nn.Cell):
    """Encoder and decoder."""

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config, dtype, compute)
        self.decoder = Decoder(config, dtype, compute)

    def construct(
        self, patches: Tensor, visible: Tensor, target: Tensor, target_ids: Tensor, drop_path: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (scalar), prediction (B, K, D), and the mean visible token (B, D) without gradient."""
        latent = self.encoder.encode_visible(patches, visible, drop_path)
        prediction = self.decoder(latent, visible, target_ids)
        features = ops.stop_gradient(latent)[:, 1:].mean(1)
        return cosine_loss(prediction, target), prediction, features


def tokens_left(config: ModelConfig, num_tokens: int, keep: float) -> tuple[int, ...]:
    """Patch tokens that are left after each encoder block, of `num_tokens`."""
    kept = config.kept_after_block(num_tokens, keep)
    counts = []
    for block in range(config.depth):
        num_tokens = kept.get(block, num_tokens)
        counts.append(num_tokens)
    return tuple(counts)


def canonical_names(cell: nn.Cell) -> dict[str, Parameter]:
    """Canonical name -> parameter: the parts of `Student` and `Teacher` leave no trace in checkpoints."""
    named = cell.parameters_and_names()
    return {name.removeprefix("encoder.").removeprefix("decoder."): parameter for name, parameter in named}


def load(cell: nn.Cell, parameters: Mapping[str, Tensor]) -> None:
    """Copy these tensors into `cell` by canonical name; surplus ones are ignored."""
    for name, parameter in canonical_names(cell).items():
        ops.assign(parameter, parameters[name])
