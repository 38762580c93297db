"""Compute an optimizer step from its gradients, and the gradients from the states around a step. Letters: L blocks."""

from __future__ import annotations

import numpy as np

from pcae_conformance.dtypes import Floats, cast
from pcae_core.config import RunConfig
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import ADAM_EPS, TrainState

Gradients = dict[str, Floats]


def norm(gradients: Gradients) -> float:
    """Norm of all gradients as one vector."""
    return float(np.sqrt(sum((g**2).sum() for g in gradients.values())))


def wide(state: TrainState) -> TrainState:
    """A copy in float64."""
    student, teacher, first, second = (
        cast(group, "float64") for group in (state.student, state.teacher, state.exp_avg, state.exp_avg_sq)
    )
    return TrainState(student, teacher, first, second, state.step)


def after(
    config: RunConfig, state: TrainState, gradients: Gradients, *, learning_rate: float, momentum: float
) -> TrainState:
    """The state after clipping the gradients' common norm, AdamW (Loshchilov & Hutter), and the moving average.

    Rate and decay of a fine-tuning run shrink from layer to layer.
    """
    shrink = 1.0 if config.grad_clip is None else min(1.0, config.grad_clip / norm(gradients))
    (beta1, beta2), t = config.betas, state.step + 1
    new = TrainState(dict(state.student), {}, {}, {}, t)
    for name, gradient in gradients.items():
        p, g, lr = state.student[name], shrink * gradient, learning_rate * _rate(config, name)
        new.exp_avg[name] = beta1 * state.exp_avg[name] + (1.0 - beta1) * g
        new.exp_avg_sq[name] = beta2 * state.exp_avg_sq[name] + (1.0 - beta2) * g**2
        first, second = new.exp_avg[name] / (1.0 - beta1**t), new.exp_avg_sq[name] / (1.0 - beta2**t)
        is_matrix = name.endswith(".weight") and p.ndim > 1  # no decay of biases, norms and tokens
        decay = config.weight_decay * p if is_matrix else 0.0
        new.student[name] = p - lr * (first / (np.sqrt(second) + ADAM_EPS) + decay)
    new.teacher = {n: momentum * value + (1.0 - momentum) * new.student[n] for n, value in state.teacher.items()}
    return new


def gradients_between(config: RunConfig, before: TrainState, later: TrainState) -> Gradients:
    """The clipped gradients of the step between two states, computed from AdamW's first moments."""
    beta1 = config.betas[0]
    return {
        name: (later.exp_avg[name].astype(np.float64) - beta1 * value) / (1.0 - beta1)
        for name, value in wide(before).exp_avg.items()
    }


def cosine(some: Gradients, others: Gradients) -> float:
    """Cosine between two sets of gradients, each taken as one vector."""
    product = sum(float((some[name] * value).sum()) for name, value in others.items())
    return product / max(norm(some) * norm(others), 1e-300)


def _rate(config: RunConfig, name: str) -> float:
    """Factor on the learning rate of a parameter."""
    if not isinstance(config, FinetuneConfig):
        return 1.0
    depth = config.model.depth
    return float(config.layer_decay ** (depth + 1 - _layer(name, depth)))


def _layer(name: str, depth: int) -> int:
    """Number of a parameter's layer: 0 below the blocks, i + 1 for block i, L + 1 above the blocks."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return 0 if name.startswith(("cls_token", "patch_embed.", "norm_pre.")) else depth + 1
