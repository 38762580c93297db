"""Layers as modules, with timm's names. Letters as in `ops`; T tokens with prefix."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from pcae_core.config import Activation, ModelConfig
from pcae_torch import ops


class Attention(nn.Module):
    """Multi-head self-attention (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, num_outputs: int | None = None) -> Tensor:
        """Fused scaled-dot-product attention. With `num_outputs`, only for the last tokens (B, num_outputs, D)."""
        query, key, value = self.project(x, num_outputs)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, h, T, D/h)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def project(self, x: Tensor, num_outputs: int | None) -> list[Tensor]:
        """Query, key, value, each (B, h, T, D/h)."""
        dim = x.shape[2]
        if num_outputs is None:
            # Unbind before the transpose, so that the backward pass writes the gradient once, not three times.
            parts = self.qkv(x).unflatten(2, (3, dim)).unbind(2)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            key_value = F.linear(x, weight[dim:], bias[dim:]).unflatten(2, (2, dim)).unbind(2)
            parts = (F.linear(x[:, -num_outputs:], weight[:dim], bias[:dim]), *key_value)
        return [part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts]


class Mlp(nn.Module):
    """Two linear layers with the activation between."""

    def __init__(self, dim: int, hidden_dim: int, activation: Activation) -> None:
        super().__init__()
        self.act = ops.ACTIVATIONS[activation]
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, eps: float, activation: Activation = "gelu") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden_dim, activation)

    def forward(self, x: Tensor, scales: Tensor | None = None, num_outputs: int | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or only its last `num_outputs` tokens. The others serve as keys and values only.

        Args:
            scales: factors of the two branches (2, B), for drop path.
        """
        kept = x if num_outputs is None else x[:, -num_outputs:]
        if scales is None:
            x = kept + self.attn(self.norm1(x), num_outputs)
            return x + self.mlp(self.norm2(x))
        attention_scale, mlp_scale = scales[:, :, None, None]
        x = kept + attention_scale * self.attn(self.norm1(x), num_outputs)
        return x + mlp_scale * self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Linear projection of flat patches; the weight has the shape of timm's convolution."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.in_chans, config.embed_dim, config.patch_size, config.patch_size, bias=config.patch_bias
        )

    def forward(self, patches: Tensor) -> Tensor:
        """(B, k, C*p*p) -> (B, k, D)."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)
