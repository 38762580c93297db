"""Layers as cells, filled with zeros. `dtype` is the dtype of the parameters, `compute` that of the matrix products.

Letters as in `ops`; T tokens with prefix.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from pcae_core.config import Activation, ModelConfig
from pcae_mindspore import _compat


def zeros(name: str, *shape: int, dtype: ms.Type, trainable: bool = True) -> Parameter:
    """A parameter of zeros. `name` is timm's name in the cell."""
    return Parameter(ops.zeros(shape, dtype), name=name, requires_grad=trainable)


class Linear(nn.Cell):
    """`x @ weight.T + bias`, (B, T, D_in) -> (B, T, D_out) of the dtype `compute`."""

    def __init__(self, inputs: int, outputs: int, dtype: ms.Type, compute: ms.Type) -> None:
        super().__init__()
        self.compute = compute
        self.weight = zeros("weight", outputs, inputs, dtype=dtype)
        self.bias = zeros("bias", outputs, dtype=dtype)

    def construct(self, x: Tensor) -> Tensor:
        """(B, T, D_in) -> (B, T, D_out)."""
        return _compat.linear(x, self.weight, self.bias, self.compute)


class LayerNorm(nn.Cell):
    """Layer normalisation (..., D)."""

    def __init__(self, dim: int, dtype: ms.Type, eps: float) -> None:
        super().__init__()
        self.eps, self.fused = eps, _compat.fused_layer_norm(eps)
        self.weight = zeros("weight", dim, dtype=dtype)
        self.bias = zeros("bias", dim, dtype=dtype)

    def construct(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return _compat.layer_norm(x, self.weight, self.bias, self.eps, self.fused)


class Attention(nn.Cell):
    """Multi-head self-attention (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, num_heads: int, dtype: ms.Type, compute: ms.Type) -> None:
        super().__init__()
        self.dim, self.num_heads, self.compute = dim, num_heads, compute
        self.scale = (dim // num_heads) ** -0.5  # outside `construct`: a graph computes Python floats in float32
        self.fused = _compat.has_fused_attention(dim, num_heads, compute)
        self.qkv = Linear(dim, 3 * dim, dtype, compute)
        self.proj = Linear(dim, dim, dtype, compute)

    def construct(self, x: Tensor, num_outputs: int = 0) -> Tensor:
        """(B, T, D) -> (B, T, D). With `num_outputs`, only for the last tokens (B, num_outputs, D)."""
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
    """Two linear layers with the activation between."""

    def __init__(self, dim: int, hidden_dim: int, dtype: ms.Type, compute: ms.Type, activation: Activation) -> None:
        super().__init__()
        self.act = _compat.ACTIVATIONS[activation]
        self.fc1 = Linear(dim, hidden_dim, dtype, compute)
        self.fc2 = Linear(hidden_dim, dim, dtype, compute)

    def construct(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Cell):
    """Pre-norm transformer block."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        dtype: ms.Type,
        compute: ms.Type,
        eps: float,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, dtype, eps)
        self.attn = Attention(dim, num_heads, dtype, compute)
        self.norm2 = LayerNorm(dim, dtype, eps)
        self.mlp = Mlp(dim, hidden_dim, dtype, compute, activation)

    def construct(self, x: Tensor, scales: Tensor | None = None, num_outputs: int = 0) -> Tensor:
        """(B, T, D) -> (B, T, D), or only its last `num_outputs` tokens. The others serve as keys and values only.

        Args:
            scales: factors of the two branches (2, B, 1, 1), for drop path.
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
        self.weight = zeros("weight", config.embed_dim, config.in_chans, size, size, dtype=dtype)
        self.bias = zeros("bias", config.embed_dim, dtype=dtype) if config.patch_bias else None

    def construct(self, patches: Tensor) -> Tensor:
        """(B, k, C*p*p) -> (B, k, D)."""
        weight = self.weight.reshape(self.weight.shape[0], -1)
        return _compat.linear(patches, weight, self.bias, self.compute).astype(patches.dtype)


class PatchEmbed(nn.Cell):
    """Wraps the projection to give it timm's name."""

    def __init__(self, config: ModelConfig, dtype: ms.Type, compute: ms.Type) -> None:
        super().__init__()
        self.proj = PatchProjection(config, dtype, compute)

    def construct(self, patches: Tensor) -> Tensor:
        """(B, k, C*p*p) -> (B, k, D)."""
        return self.proj(patches)
