"""Pure functions of the step or of the block: token counts, learning rate, EMA momentum, drop-path rates.

They compute with Python numbers only, so every backend and every process gets the same values.
"""

from __future__ import annotations

import math


def reduction_blocks(depth: int, num_stages: int) -> tuple[int, ...]:
    """Indices of the blocks after which tokens are dropped: `depth // S * i` for `i = 0..S-1` (paper, section 3).

    Raises:
        ValueError: there are more stages than blocks, or fewer than one stage.
    """
    if not 1 <= num_stages <= depth:
        raise ValueError(f"num_stages must be between 1 and depth ({depth}), not {num_stages}")
    return tuple(depth // num_stages * i for i in range(num_stages))


def num_kept(num_tokens: int, keep: float) -> int:
    """Number of tokens that stay of `num_tokens`: `int(num_tokens * keep)`, and at least 1.

    Raises:
        ValueError: `keep` is not in (0, 1].
    """
    if not 0.0 < keep <= 1.0:  # not a ConfigError: MindSpore compiles this function into graphs
        raise ValueError(f"keep must be in (0, 1], not {keep}")
    return max(1, int(num_tokens * keep))


def kept_after_block(depth: int, num_stages: int, keep: float, num_tokens: int) -> dict[int, int]:
    """Block index -> number of patch tokens that stay after it, for the blocks that drop tokens."""
    counts = {}
    for block in reduction_blocks(depth, num_stages):
        num_tokens = counts[block] = num_kept(num_tokens, keep)
    return counts


def tokens_per_block(
    depth: int, num_stages: int, keep: float, num_tokens: int, num_prefix_tokens: int = 0
) -> list[int]:
    """Number of tokens that enter each block, prefix tokens included; `num_tokens` counts patch tokens only."""
    kept = kept_after_block(depth, num_stages, keep, num_tokens)
    counts = []
    for block in range(depth):
        counts.append(num_prefix_tokens + num_tokens)
        num_tokens = kept.get(block, num_tokens)
    return counts


def cosine_with_warmup(step: int, *, base: float, warmup_steps: int, total_steps: int, final: float = 0.0) -> float:
    """Learning rate of 0-based `step`: linear warm-up to `base`, then a half cosine down to `final`."""
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final + (base - final) * 0.5 * (1.0 + math.cos(math.pi * progress))


def ema_momentum(step: int, *, base: float, total_steps: int, final: float = 1.0) -> float:
    """EMA momentum of 0-based `step`: a half cosine from `base` at step 0 to `final` at the last step."""
    progress = min(1.0, step / max(1, total_steps - 1))
    return final - (final - base) * 0.5 * (1.0 + math.cos(math.pi * progress))


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Drop-path rate of each block, rising linearly from 0 to `rate`."""
    return [rate * block / max(1, depth - 1) for block in range(depth)]
