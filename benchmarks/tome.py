"""Token Merging (Bolya et al., ICLR 2023), stated from the paper's description: the peer of dropping tokens.

In every block, between attention and MLP: the tokens are dealt alternately into two sets; each token of the first finds
its most similar one in the second, by the cosine of their keys, averaged over the heads; the r most similar pairs are
merged into the average of all patches that they stand for. A token that stands for s patches counts s times as key
(`log s` is added before the softmax). The CLS token is never merged away.

Letters: B images, T tokens with CLS, D width, h heads, r tokens fewer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pcae_core import cost
from pcae_core.config import ModelConfig
from pcae_torch import layers, model, ops


def merge(x: Tensor, keys: Tensor, size: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, T, D), keys (B, T, D/h), sizes (B, T, 1) -> tokens (B, T - r, D), sizes (B, T - r, 1); CLS first."""
    if r == 0:
        return x, size
    unit = F.normalize(keys, dim=-1)
    similarity = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    similarity[:, 0] = -torch.inf  # CLS
    best, partner = similarity.max(dim=-1)
    order = best.argsort(dim=1, descending=True)
    merged, left = order[:, :r], order[:, r:].sort(dim=1).values
    summed = torch.cat([x * size, size], dim=2)
    first, second = summed[:, ::2], summed[:, 1::2]
    into = partner.gather(1, merged)[:, :, None].expand(-1, -1, summed.shape[2])
    second = second.scatter_add(1, into, ops.gather_tokens(first, merged))
    together = torch.cat([ops.gather_tokens(first, left), second], dim=1)
    size = together[:, :, -1:]
    return together[:, :, :-1] / size, size


def block(own: layers.Block, x: Tensor, size: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """One transformer block (B, T, D) -> (B, T - r, D), and the sizes."""
    query, key, value = own.attn.project(own.norm1(x), None)
    mask = size.log().transpose(1, 2)[:, None]  # (B, 1, 1, T)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    x = x + own.attn.proj(mixed.transpose(1, 2).flatten(2))
    x, size = merge(x, key.mean(dim=1), size, r)
    return x + own.mlp(own.norm2(x)), size


class ToMe(torch.nn.Module):
    """An encoder whose blocks merge `fewer` tokens each."""

    def __init__(self, encoder: model.Encoder, fewer: list[int]) -> None:
        super().__init__()
        self.encoder, self.fewer = encoder, fewer

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) -> logits, or the tokens that are left when there is no head."""
        own = self.encoder
        positions = own.pos_embed[:, own.num_prefix_tokens :]
        x = own.prepend_prefix(own.patch_embed(ops.patchify(images, own.config.patch_size)) + positions)
        size = torch.ones_like(x[:, :, :1])
        for part, r in zip(own.blocks, self.fewer, strict=True):
            x, size = block(part, x, size, r)
        return own.norm(x) if own.head is None else own.classify(x)


def macs(config: ModelConfig, fewer: list[int]) -> int:
    """Multiply-accumulates of one image, the products that compare keys among them."""
    dim, tokens = config.embed_dim, config.num_prefix_tokens + config.num_patches
    total = cost.patch_embed_macs(config, config.num_patches) + config.num_classes * dim
    for r in fewer:
        comparing = (tokens // 2) * (tokens - tokens // 2) * dim // config.num_heads if r else 0
        attention = cost.block_macs(tokens, dim, hidden_dim=0)
        tokens -= r
        total += attention + comparing + 2 * tokens * dim * config.hidden_dim(dim)
    return total


def fewer_for(config: ModelConfig, wanted: int) -> list[int]:
    """Tokens to merge in each block, evenly, so that `macs` is as near to `wanted` as can be."""
    found, tokens = [], config.num_prefix_tokens + config.num_patches
    for total in range(config.depth * (config.num_patches // 2)):  # the last blocks may have fewer left to merge
        each, more = divmod(total, config.depth)
        found.append(_possible([each + (i < more) for i in range(config.depth)], tokens))
    return min(found, key=lambda fewer: abs(macs(config, fewer) - wanted))


def _possible(fewer: list[int], tokens: int) -> list[int]:
    """No more than the tokens of the first set but CLS."""
    possible = []
    for r in fewer:
        possible.append(min(r, (tokens - 1) // 2))
        tokens -= possible[-1]
    return possible
