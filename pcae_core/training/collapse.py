"""Measurements that tell learning from collapse. The loss alone does not: constant targets make it low.

Letters: B images, K targets, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from pcae_core.config import PretrainConfig
from pcae_core.contract import Array, Floats, PretrainOutput
from pcae_core.evaluation.probes import effective_rank
from pcae_core.training.monitor import Found, Monitor

HEALTHY_RANK = 2.0
"""Below this effective rank of pooled features or targets a run counts as collapsed."""
HEALTHY_RATIO = 0.97
"""Above this share of the best constant prediction's loss a run has learned nothing (after the warm-up)."""
SMALLEST_JUDGED_BATCH = 16
"""Images in a batch below which effective ranks say too little to warn of."""


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


class CollapseMonitor(Monitor[PretrainOutput]):
    """Measures collapse, warns whenever a run starts to collapse, and averages `loss_ratio` between checkpoints."""

    def __init__(self, config: PretrainConfig, total_steps: int, to_numpy: Callable[[Array], Floats]) -> None:
        self._num_patches, self._to_numpy = config.model.num_patches, to_numpy
        self._judged_after = max(config.warmup_share * total_steps, 10 * config.log_every)
        self._ratios: list[float] = []
        self._warned = False

    def measure(self, step: int, out: PretrainOutput, loss: float) -> Found:
        """Measure the last batch, and judge it once the warm-up is over."""
        target, features = self._to_numpy(out.target), self._to_numpy(out.features)
        metrics = collapse_metrics(loss, target, features, self._num_patches)
        if math.isfinite(metrics["loss_ratio"]):
            self._ratios.append(metrics["loss_ratio"])
        judged = step > self._judged_after and len(target) >= SMALLEST_JUDGED_BATCH
        warning = collapse_warning(metrics) if judged else None
        begins = warning is not None and not self._warned
        self._warned = warning is not None
        return Found(metrics, [f"warning: step {step}: {warning}"] if begins else [])

    def checkpoint_metrics(self, step: int) -> Mapping[str, float]:
        """The mean `loss_ratio` since the last checkpoint."""
        return {"loss_ratio": sum(self._ratios) / len(self._ratios)} if self._ratios else {}

    def checkpoint_written(self) -> None:
        """Start another mean."""
        self._ratios = []
