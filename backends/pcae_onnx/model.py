"""The encoder with token reduction as an ONNX graph.

Weights are read by canonical name from a mapping when the file is written. Letters: B images, C channels, p patch size,
N patches, n of these patches, P prefix tokens, T tokens of a sequence with its prefix, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import ModelConfig
from pcae_core.parameters import encoder_shapes
from pcae_onnx import ops, stages
from pcae_onnx.graph import Graph

Parameters = Mapping[str, NDArray[Any]]


class Layers:
    """Layers with their weights.

    Attributes:
        g: graph to which layers are added.
        dim: width of a token.
    """

    def __init__(self, g: Graph, config: ModelConfig, parameters: Parameters) -> None:
        self.g, self.config, self.dim = g, config, config.embed_dim
        self._parameters, self._shapes = parameters, encoder_shapes(config)

    def weight(self, name: str) -> str:
        """A parameter, unchanged."""
        return self._weight(name, name, self._shapes[name], lambda x: x)

    def linear(self, x: str, name: str) -> str:
        """(..., D_in) -> (..., D_out)."""
        rows, columns = self._shapes[f"{name}.weight"]
        matrix = self._weight(f"{name}.weight", f"{name}.weight.T", (columns, rows), np.transpose)
        return self.g.add("Add", self.g.add("MatMul", x, matrix), self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str) -> str:
        """LayerNorm over the last axis."""
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.g.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=self.config.layer_norm_eps)

    def attention(self, x: str, name: str, num_heads: int) -> str:
        """Multi-head self-attention (B, T, D) -> (B, T, D)."""
        qkv = self.linear(x, f"{name}.qkv")
        if self.g.opset >= 23:
            parts = self.g.add_many("Split", 3, qkv, axis=-1, num_outputs=3)
            mixed = self.g.add("Attention", *parts, q_num_heads=num_heads, kv_num_heads=num_heads)
        else:
            mixed = self._attention_by_hand(qkv, num_heads, self._shapes[f"{name}.proj.bias"][0])
        return self.linear(mixed, f"{name}.proj")

    def _attention_by_hand(self, qkv: str, num_heads: int, dim: int) -> str:
        """(B, T, 3*D) -> (B, T, D), from operators that older runtimes know."""
        g, head_dim = self.g, dim // num_heads
        heads = g.add("Reshape", qkv, g.ints(0, 0, 3, num_heads, head_dim))
        query, key, value = (
            g.add("Squeeze", part, g.ints(2)) for part in g.add_many("Split", 3, heads, axis=2, num_outputs=3)
        )
        query = g.add("Transpose", query, perm=[0, 2, 1, 3])
        scale = g.constant(1.0 / math.sqrt(head_dim), g.dtype)
        query = g.add("Mul", query, scale)  # before the product, because that could overflow in float16
        scores = g.add("MatMul", query, g.add("Transpose", key, perm=[0, 2, 3, 1]))
        weights = g.add("Softmax", scores, axis=-1)
        mixed = g.add("MatMul", weights, g.add("Transpose", value, perm=[0, 2, 1, 3]))
        return g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), g.ints(0, 0, dim))

    def activation(self, x: str) -> str:
        """The activation of an MLP."""
        g, kind = self.g, self.config.activation
        if kind == "quick_gelu":
            return g.add("Mul", x, g.add("Sigmoid", g.add("Mul", x, g.constant(1.702, g.dtype))))
        return g.add("Gelu", x, approximate="tanh") if kind == "gelu_tanh" else g.add("Gelu", x)

    def block(self, x: str, name: str, num_heads: int) -> str:
        """Pre-norm block (B, T, D)."""
        x = self.g.add("Add", x, self.attention(self.norm(x, f"{name}.norm1"), f"{name}.attn", num_heads))
        hidden = self.activation(self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        return self.g.add("Add", x, self.linear(hidden, f"{name}.mlp.fc2"))

    def patches(self, images: str) -> str:
        """Images (B, C, H, W) in the graph's dtype to embedded patches (B, N, D) with position embeddings."""
        g, size = self.g, self.config.patch_size
        kinds = ("weight", "bias") if self.config.patch_bias else ("weight",)
        projection = [self.weight(f"patch_embed.proj.{kind}") for kind in kinds]
        grid = g.add("Conv", images, *projection, kernel_shape=[size, size], strides=[size, size])
        flat = g.add("Reshape", grid, g.ints(0, self.dim, self.config.num_patches))
        positions = self.weight_part("pos_embed", "pos_embed.patches", self.config.num_prefix_tokens, None)
        return g.add("Add", g.add("Transpose", flat, perm=[0, 2, 1]), positions)

    def prepend_prefix(self, tokens: str) -> str:
        """(B, n, D) -> (B, P + n, D), the class token first."""
        num_prefix = self.config.num_prefix_tokens
        positions = self.weight_part("pos_embed", "pos_embed.cls", 0, num_prefix)
        prefix = self.g.add("Add", self.weight("cls_token"), positions)
        return self.g.add("Concat", repeat(self.g, prefix, tokens, (num_prefix, self.dim)), tokens, axis=1)

    def weight_part(self, name: str, part: str, start: int, end: int | None) -> str:
        """Rows start:end of position embeddings."""
        _, rows, dim = self._shapes[name]
        shape = (1, (rows if end is None else end) - start, dim)
        return self._weight(name, part, shape, lambda x: x[:, start:end])

    def _weight(
        self, name: str, label: str, shape: tuple[int, ...], change: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> str:
        parameters = self._parameters
        return self.g.weight(label, shape, lambda: change(parameters[name]))


def repeat(g: Graph, x: str, like: str, rest: tuple[int, ...]) -> str:
    """(1, *rest) -> (B, *rest), with the batch size of `like`."""
    batch = g.add("Shape", like, start=0, end=1)
    return g.add("Expand", x, g.add("Concat", batch, g.ints(*rest), axis=0))


def reduced_blocks(layers: Layers, tokens: str, keep: float | str, every_score: bool = False) -> tuple[str, str | None]:
    """All blocks, with tokens dropped at each stage. The values of the stages have the names in `stages`.

    Args:
        tokens: prefix tokens and all patches (B, P + N, D).
        keep: keep ratio, or the name of a float32 scalar.
        every_score: compute scores even at a stage that keeps all tokens.

    Returns:
        What is left (B, P + k, D), before the final norm, and which patches of those that entered (B, k); None when
        all of them stay.
    """
    g, config = layers.g, layers.config
    static = config.kept_after_block(config.num_patches, keep) if isinstance(keep, float) else None
    ratio = ops.read_keep_nodes(g, keep) if isinstance(keep, str) else ""
    count: ops.Count = config.num_patches
    ids, num_prefix = None, config.num_prefix_tokens
    blocks, center = list(config.kept_after_block(config.num_patches)), config.reduction.center
    for i in range(config.depth):
        tokens = layers.block(tokens, f"blocks.{i}", config.num_heads)
        if i not in blocks:
            continue
        k = static[i] if static is not None else ops.num_kept(g, count, ratio)
        if k != count:
            tokens, chosen, scores = ops.reduce_tokens(g, tokens, k, num_prefix, center, g.dtype)
            ids = chosen if ids is None else ops.gather(g, ids, chosen)
            ids = g.rename(ids, stages.kept_ids_name(blocks.index(i)))
            g.rename(scores, stages.scores_name(blocks.index(i)))
        elif every_score:
            scores = ops.patch_scores(g, tokens, num_prefix, center, g.dtype)[1]
            g.rename(scores, stages.scores_name(blocks.index(i)))
        count = k
    return tokens, ids


def encoder(
    g: Graph,
    config: ModelConfig,
    parameters: Parameters,
    keep: float | None,
    logits: bool,
    keep_default: bool = False,
    every_score: bool = False,
) -> None:
    """Inputs `pixel_values`, and `keep` when `keep` is None; outputs `last_hidden_state`, `kept_ids`, `logits`.

    Pixels and outputs are float32 for any dtype of the graph.

    Args:
        keep_default: give the input `keep` the default 1.
        every_score: as in `reduced_blocks`.
    """
    size, layers = config.image_size, Layers(g, config, parameters)
    images = g.input("pixel_values", "float32", ["batch_size", config.in_chans, size, size])
    default = np.array(1.0, np.float32) if keep_default else None
    ratio = g.input("keep", "float32", [], default) if keep is None else keep
    tokens = layers.prepend_prefix(layers.patches(g.cast(images, g.dtype) if g.dtype != "float32" else images))
    if config.pre_norm:
        tokens = layers.norm(tokens, "norm_pre")
    tokens, ids = reduced_blocks(layers, tokens, ratio, every_score)
    hidden = layers.norm(tokens, "norm")
    if ids is None:
        every = g.constant(np.arange(config.num_patches)[None], "int64")
        ids = repeat(g, every, images, (config.num_patches,))
    kept = "kept_patches" if keep is None else list(config.kept_after_block(config.num_patches, keep).values())[-1]
    num_prefix = config.num_prefix_tokens
    length = f"{num_prefix} + {kept}" if isinstance(kept, str) else num_prefix + kept
    _output_float32(g, hidden, "last_hidden_state", ["batch_size", length, config.embed_dim])
    g.output(ids, "kept_ids", "int64", ["batch_size", kept])
    if logits:
        pooled = _pooled(layers, tokens, hidden)
        _output_float32(g, layers.linear(pooled, "head"), "logits", ["batch_size", config.num_classes])


def _pooled(layers: Layers, tokens: str, hidden: str) -> str:
    """Input of the head (B, D), from tokens (B, P + k, D) before and after the final norm."""
    g = layers.g
    if layers.config.pooling == "cls":
        return g.add("Squeeze", ops.slice_tokens(g, hidden, 0, 1), g.ints(1))
    mean = ops.token_mean(g, ops.slice_tokens(g, tokens, layers.config.num_prefix_tokens), g.dtype)
    return layers.norm(g.add("Squeeze", mean, g.ints(1)), "fc_norm")


def _output_float32(g: Graph, value: str, name: str, shape: list[int | str]) -> None:
    g.output(g.cast(value, "float32") if g.dtype != "float32" else value, name, "float32", shape)
