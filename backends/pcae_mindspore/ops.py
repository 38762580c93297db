"""The operations of PCAE on tensors. They run with and without `ms.jit`.

Letters: B images, C channels, H height, W width, p patch size, N tokens, V visible, M masked, K targets, k kept,
D width. Scores, standardisation and loss are computed in float32 or better. Constants are tensors of the right dtype:
MindSpore rounds a Python float to float32 even in float64 arithmetic.
"""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, mint, ops

from pcae_core.contract import NORM_EPS, STANDARDIZE_EPS, Center
from pcae_mindspore import _compat

_SMALLEST_SQUARE = NORM_EPS**2


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; other dtypes unchanged."""
    if x.dtype == ms.float16 or x.dtype == ms.bfloat16:  # `in` does not compile
        return x.astype(ms.float32)
    return x


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C*p*p), patches row by row."""
    batch, chans, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    grid = images.reshape(batch, chans, rows, patch_size, columns, patch_size)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, chans * patch_size * patch_size)


def split_by_noise(noise: Tensor, num_visible: int) -> tuple[Tensor, Tensor]:
    """(B, N) -> visible (B, V), masked (B, M), each ascending."""
    order = _order(noise)
    return ops.sort(order[:, :num_visible], -1)[0], ops.sort(order[:, num_visible:], -1)[0]


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors (..., D) divided by their length, zero vectors unchanged; scaled first, to keep squares in range.

    The scale cancels, so no gradient goes through it.
    """
    largest = ops.stop_gradient(ops.abs(vectors).max(-1, keepdims=True))
    scaled = vectors / ops.where(largest == 0, ops.ones_like(largest), largest)
    squares = (scaled * scaled).sum(-1, keepdims=True)
    # Bound the square, not the root: the root's gradient at 0 is infinite.
    return scaled / ops.sqrt(ops.maximum(squares, Tensor(_SMALLEST_SQUARE, squares.dtype)))


def similarity_scores(tokens: Tensor, center: Center = "unit") -> Tensor:
    """(B, N, D) -> (B, N): cosine with the mean token of the sequence."""
    tokens = at_least_float32(tokens)
    unit = unit_length(tokens)
    mean = (unit if center == "unit" else tokens).mean(1, keep_dims=True)
    scores = (unit * unit_length(mean)).sum(-1)
    one = ops.ones_like(scores)
    scores = ops.where(scores > one, one, scores)  # NaN stays NaN; `clamp` would make it -1
    return ops.where(scores < -one, -one, scores)


def select_tokens(scores: Tensor, k: int) -> Tensor:
    """(B, N) -> (B, k): the k lowest by (score, index), ascending."""
    return ops.sort(_order(scores)[:, :k], -1)[0]


def _order(x: Tensor) -> Tensor:
    """Ids (B, N) that sort each row of x (B, N), ties by index, NaN last.

    A NaN would also put other elements out of order. So it is sorted as infinity, and then moved behind the others.
    """
    is_nan = x != x
    order = _compat.stable_argsort(ops.where(is_nan, ops.full_like(x, float("inf")), x))
    nan_last = _compat.stable_argsort(ops.gather_elements(is_nan.astype(ms.int32), 1, order))
    return ops.gather_elements(order, 1, nan_last)


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """(B, N, D), (B, k) -> (B, k, D). It copies whole rows; `gather_elements` would copy single numbers."""
    return ops.gather(tokens, ids, 1, 1)


def reduce_tokens(tokens: Tensor, k: int, num_prefix_tokens: int = 0, center: Center = "unit") -> tuple[Tensor, Tensor]:
    """(B, P + N, D) -> kept tokens (B, P + k, D), ids of the patches among them (B, k)."""
    patches = tokens[:, num_prefix_tokens:]
    ids = select_tokens(similarity_scores(ops.stop_gradient(patches), center), k)
    kept = gather_tokens(patches, ids)
    if num_prefix_tokens:
        kept = mint.cat([tokens[:, :num_prefix_tokens], kept], 1)
    return kept, ids


def restore_grid(tokens: Tensor, kept_ids: Tensor, num_patches: int, features: Tensor | None = None) -> Tensor:
    """(B, k, D), (B, k) -> (B, N, D): each patch its own token, or that of its most similar survivor.

    Args:
        features: features of all patches (B, N, F); similarity is their cosine, or without them closeness on the grid.

    Raises:
        ShapeError: as `Backend.restore_grid`.
    """
    _compat.check_restore_grid(tokens.shape, kept_ids.shape, num_patches, None if features is None else features.shape)
    survivors, order = ops.sort(kept_ids.astype(ms.int32), -1)  # then the first of equal survivors has the lowest id
    place = ops.arange(num_patches, dtype=ms.int32)
    if features is None:
        similarity = -_squared_distances(place, survivors, num_patches).astype(ms.float32)  # integers
    else:
        unit = unit_length(at_least_float32(ops.stop_gradient(features)))
        similarity = ops.BatchMatMul(transpose_b=True)(unit, gather_tokens(unit, survivors))  # (B, N, k)
    lowest, highest = ops.full_like(similarity, float("-inf")), ops.full_like(similarity, float("inf"))
    similarity = ops.where(similarity != similarity, lowest, similarity)
    own = survivors.expand_dims(1) == place.expand_dims(1)
    similarity = ops.where(own, highest, similarity)
    return gather_tokens(tokens, ops.gather_elements(order, 1, _first_largest(similarity)))


def _squared_distances(place: Tensor, survivors: Tensor, num_patches: int) -> Tensor:
    """Squared distance (B, N, k) of each patch to each survivor on the square grid, in patches."""
    side = math.isqrt(num_patches)
    rows = place.expand_dims(1) // side - survivors.expand_dims(1) // side
    columns = place.expand_dims(1) % side - survivors.expand_dims(1) % side
    return rows * rows + columns * columns


def _first_largest(x: Tensor) -> Tensor:
    """(B, N, k) -> (B, N): the lowest index of the largest value. `argmax` does not specify ties."""
    count = x.shape[2]
    index = ops.arange(count, dtype=ms.int32).astype(ms.float32)  # exact; some devices have no integer `min`
    others = ops.full_like(x.astype(ms.float32), float(count))
    candidates = ops.where(x == x.max(-1, keepdims=True), index.expand_dims(0).expand_dims(0), others)
    return ops.amin(candidates, -1).astype(ms.int32)


def standardize(latents: Tensor, eps: float = STANDARDIZE_EPS) -> Tensor:
    """(B, K, D): each token to mean 0 and unbiased variance 1."""
    latents = at_least_float32(latents)
    centered = latents - latents.mean(-1, keep_dims=True)
    variance = (centered * centered).sum(-1, keepdims=True) / (latents.shape[-1] - 1)
    return centered / ops.sqrt(variance + Tensor(eps, variance.dtype))


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, K, D) twice -> scalar: `1 - cosine`, averaged over the tokens."""
    prediction, target = at_least_float32(prediction), at_least_float32(target)
    return 1.0 - (unit_length(prediction) * unit_length(target)).sum(-1).mean()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, classes) twice, of one dtype -> scalar: `-sum(target log softmax(logits))`, averaged over the images."""
    shifted = logits - ops.stop_gradient(logits.max(-1, keepdims=True))
    log_sum = ops.log(ops.exp(shifted).sum(-1, keepdims=True))
    return (targets * (log_sum - shifted)).sum(-1).mean()


def ema(teacher: Tensor, student: Tensor, momentum: Tensor) -> Tensor:
    """`momentum * teacher + (1 - momentum) * student`. The momentum is a scalar in the dtype of the others."""
    return teacher * momentum + student * (1.0 - momentum)
