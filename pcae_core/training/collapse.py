"""What tells learning from collapse. The loss does not: a constant answer to constant targets has a low one.

Letters: B images, K targets, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pcae_core.contract import Floats
from pcae_core.evaluation.probes import effective_rank

HEALTHY_RANK = 2.0
"""Below this effective rank of pooled features or targets a run counts as collapsed."""
HEALTHY_RATIO = 0.97
"""Above this share of the best constant prediction's loss a run has learned nothing (after the warm-up)."""


def constant_prediction_loss(target: Floats) -> float:
    """Loss of the best constant prediction for targets (B, K, D): `1 - |mean of the unit targets|`."""
    rows = target.reshape(-1, target.shape[-1]).astype(np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return float(1.0 - np.linalg.norm(unit.mean(axis=0)))


def collapse_metrics(loss: float, target: Floats, features: Floats, num_patches: int) -> dict[str, float]:
    """Measurements on one batch.

    Args:
        loss: of the batch.
        target: standardised targets (B, K, D).
        features: pooled student features (B, D).
        num_patches: N.

    Returns:
        loss_ratio: loss / loss of the best constant prediction (1: nothing learned beyond a constant);
        target_rank: effective rank of the targets' means per image;
        token_rank: effective rank of the single targets;
        feature_rank: effective rank of the pooled student features;
        kept_share: share of the image's patches that are targets.
    """
    constant = constant_prediction_loss(target)
    return {
        "loss_ratio": loss / constant if constant > 0 else float("nan"),
        "target_rank": effective_rank(target.mean(axis=1)),
        "token_rank": effective_rank(target.reshape(-1, target.shape[-1])),
        "feature_rank": effective_rank(features),
        "kept_share": target.shape[1] / num_patches,
    }


def collapse_warning(metrics: Mapping[str, float]) -> str | None:
    """One line when the measurements say collapse, else None."""
    signs = []
    for name, what in (("target_rank", "the targets"), ("feature_rank", "the student's features")):
        if not metrics[name] >= HEALTHY_RANK:
            signs.append(f"effective rank of {what} is {metrics[name]:.1f}")
    if not metrics["loss_ratio"] <= HEALTHY_RATIO:
        signs.append(f"the loss is {metrics['loss_ratio']:.2f} of a constant prediction's")
    if not signs:
        return None
    return f"this looks like collapse: {', '.join(signs)}; try a smaller init_residual_scale or a lower ema_momentum"
