"""The operations of PCAE on tensors.

Letters: B images, C channels, H height, W width, p patch size, N tokens, V visible, M masked, K targets, k kept,
D width. Scores, standardisation and loss are computed in float32 or better.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from pcae_core.config import Activation
from pcae_core.contract import NORM_EPS, STANDARDIZE_EPS, Center
from pcae_core.shapes import check_restore_grid

Score = Callable[[Tensor], Tensor]
"""Function from patch tokens (B, N, D) to scores (B, N). The tokens with the lowest scores stay."""


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; other dtypes unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C*p*p), patches row by row."""
    batch, chans, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    grid = images.reshape(batch, chans, rows, patch_size, columns, patch_size)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, chans * patch_size**2)


def split_by_noise(noise: Tensor, num_visible: int) -> tuple[Tensor, Tensor]:
    """(B, N) -> visible (B, V), masked (B, M), each ascending."""
    order = noise.argsort(dim=1, stable=True)
    return order[:, :num_visible].sort(dim=1).values, order[:, num_visible:].sort(dim=1).values


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors (..., D) divided by their length, zero vectors unchanged; scaled first, to keep squares in range."""
    largest = vectors.abs().amax(dim=-1, keepdim=True)
    scaled = vectors / largest.masked_fill(largest == 0, 1.0)
    return scaled / scaled.norm(dim=-1, keepdim=True).clamp_min(NORM_EPS)


def similarity_scores(tokens: Tensor, center: Center = "unit") -> Tensor:
    """(B, N, D) -> (B, N): cosine with the mean token of the sequence."""
    tokens = at_least_float32(tokens)
    unit = unit_length(tokens)
    mean = (unit if center == "unit" else tokens).mean(dim=1, keepdim=True)
    return (unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0)


def select_tokens(scores: Tensor, k: int) -> Tensor:
    """(B, N) -> (B, k): ids of the k lowest by (score, index), ascending. `topk` is not stable."""
    return scores.argsort(dim=1, stable=True)[:, :k].sort(dim=1).values


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """(B, N, D), (B, k) -> (B, k, D)."""
    return tokens.gather(1, ids[:, :, None].expand(-1, -1, tokens.shape[2]))


def reduce_tokens(tokens: Tensor, k: int, num_prefix_tokens: int, score: Score) -> tuple[Tensor, Tensor]:
    """(B, P + N, D) -> kept tokens (B, P + k, D), ids of the patches among them (B, k)."""
    prefix, patches = tokens[:, :num_prefix_tokens], tokens[:, num_prefix_tokens:]
    ids = select_tokens(score(patches.detach()), k)  # the choice has no gradient
    return torch.cat([prefix, gather_tokens(patches, ids)], dim=1), ids


def restore_grid(tokens: Tensor, kept_ids: Tensor, num_patches: int, features: Tensor | None = None) -> Tensor:
    """(B, k, D), (B, k) -> (B, N, D): each patch its own token, or that of its most similar survivor.

    Args:
        features: features of all patches (B, N, F); similarity is their cosine, or without them closeness on the grid.

    Raises:
        ShapeError: as `Backend.restore_grid`.
    """
    check_restore_grid(tokens.shape, kept_ids.shape, num_patches, None if features is None else features.shape)
    survivors, order = kept_ids.sort(dim=1)  # then the first of equal survivors has the lowest id
    place = torch.arange(num_patches, device=tokens.device)
    if features is None:
        row, column = place // math.isqrt(num_patches), place % math.isqrt(num_patches)
        distance = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
        similarity = -distance[survivors].transpose(1, 2).float()  # (B, N, k), integers
    else:
        unit = unit_length(at_least_float32(features.detach()))
        with torch.autocast(unit.device.type, enabled=False):
            similarity = unit @ gather_tokens(unit, survivors).transpose(1, 2)
        similarity = similarity.nan_to_num(nan=-torch.inf)
    own = survivors[:, None, :] == place[:, None]
    nearest = similarity.masked_fill(own, torch.inf).argmax(dim=2)  # (B, N), the first of equals
    return gather_tokens(tokens, order.gather(1, nearest))


QUICK_SCALE = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """`x sigmoid(1.702 x)`, as SiLU: faster, and the backward pass needs one tensor instead of two."""
    return F.silu(QUICK_SCALE * x) * (1.0 / QUICK_SCALE)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
}


def standardize(latents: Tensor, eps: float = STANDARDIZE_EPS) -> Tensor:
    """(B, K, D): each token to mean 0 and unbiased variance 1."""
    latents = at_least_float32(latents)
    variance, mean = torch.var_mean(latents, dim=-1, correction=1, keepdim=True)
    return (latents - mean) * (variance + eps).rsqrt()


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, K, D) twice -> scalar: `1 - cosine`, averaged over the tokens."""
    prediction, target = at_least_float32(prediction), at_least_float32(target)
    return 1.0 - (unit_length(prediction) * unit_length(target)).sum(dim=-1).mean()


def ema_update_(teacher: list[Tensor], student: list[Tensor], momentum: float) -> None:
    """`teacher = momentum * teacher + (1 - momentum) * student`, in place, in one call."""
    torch._foreach_lerp_(teacher, student, 1.0 - momentum)


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The 2-norm of all tensors together, a scalar, float32 or better. On CPUs dot products use every thread."""
    if tensors[0].device.type != "cpu":
        return nn.utils.get_total_norm(tensors)
    flat = (tensor.flatten() for tensor in tensors)
    return torch.stack([values.dot(values) for values in flat]).sum().sqrt()
