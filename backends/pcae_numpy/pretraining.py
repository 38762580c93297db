"""Pre-training with the reference: gradients of `backward`, AdamW, EMA. It is slow, and meant for tiny models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from pcae_core.config import PretrainConfig, RunConfig
from pcae_core.contract import ADAM_EPS, Pretrainer, PretrainOutput, TrainState
from pcae_core.parameters import is_decayed, pretraining_state
from pcae_core.shapes import check_images
from pcae_numpy import backward, model, ops
from pcae_numpy.ops import Floats


def update(
    state: TrainState,
    grads: backward.Gradients,
    loss: Floats,
    config: RunConfig,
    learning_rate: float,
    scale: Callable[[str], float] = lambda name: 1.0,
) -> tuple[Floats, Floats]:
    """Clip and apply AdamW if loss and gradients are finite, and count the step. Replaces the state's arrays.

    Args:
        scale: function from a parameter's name to a factor on its learning rate.

    Returns:
        The gradient norm before clipping, and whether it and the loss are finite.
    """
    norm = np.sqrt(sum((grad**2).sum() for grad in grads.values()))
    finite = np.isfinite(loss + norm)
    state.step += 1
    if finite:
        clip_gradients(grads, norm, config.grad_clip)
        adamw_step(state, grads, config, learning_rate, scale)
    return np.asarray(norm), np.asarray(finite)


def clip_gradients(grads: backward.Gradients, norm: float, largest_norm: float | None) -> None:
    """Scale all gradients in place so that their global norm, `norm`, is at most `largest_norm`."""
    if largest_norm is not None:
        for grad in grads.values():
            grad *= min(1.0, largest_norm / norm)


def adamw_step(
    state: TrainState,
    grads: backward.Gradients,
    config: RunConfig,
    learning_rate: float,
    scale: Callable[[str], float],
) -> None:
    """AdamW (Loshchilov & Hutter) of step `state.step`: decoupled weight decay, bias-corrected moments."""
    beta1, beta2 = config.betas
    correction1, correction2 = 1.0 - beta1**state.step, 1.0 - beta2**state.step
    for name, grad in grads.items():
        first = state.exp_avg[name] = beta1 * state.exp_avg[name] + (1.0 - beta1) * grad
        second = state.exp_avg_sq[name] = beta2 * state.exp_avg_sq[name] + (1.0 - beta2) * grad**2
        decay = config.weight_decay if is_decayed(name, grad.shape) else 0.0
        update = (first / correction1) / (np.sqrt(second / correction2) + ADAM_EPS)
        rate = scale(name) * learning_rate
        state.student[name] = state.student[name] * (1.0 - rate * decay) - rate * update


class NumpyPretrainer(Pretrainer):
    """Pre-training with the reference. Each step replaces the arrays of the state and changes none of them."""

    def __init__(self, config: PretrainConfig, state: TrainState | None = None) -> None:
        self._config = config
        self._state = copy_state(state or pretraining_state(config.model, config.seed))

    @override
    def step(
        self,
        images: NDArray[Any],
        noise: NDArray[Any],
        *,
        learning_rate: float,
        momentum: float,
        drop_path: NDArray[Any] | None = None,
    ) -> PretrainOutput:
        config, parts = self._config, self._config.accumulation
        images = normalize(images, config)
        scales = (
            np.ones((config.model.depth, 2, len(images))) if drop_path is None else np.asarray(drop_path, np.float64)
        )
        losses, targets, features = [], [], []
        total = backward.zero_gradients(self._state.student)
        for part in np.split(np.arange(len(images)), parts):
            out, trace = model.traced_forward(
                config.model, self._state.student, self._state.teacher, images[part], noise[part], scales[:, :, part]
            )
            grads = backward.student_backward(config.model, self._state.student, trace, out.target, scales[:, :, part])
            for name, grad in grads.items():
                total[name] += grad / parts
            losses.append(out.loss)
            targets.append(out.target)
            features.append(trace.latent[:, config.model.num_prefix_tokens :].mean(axis=1))
        loss = np.asarray(np.mean(losses))
        norm, finite = update(self._state, total, loss, config, learning_rate)
        self._state.teacher = ops.ema_update(self._state.teacher, self._state.student, momentum)
        return PretrainOutput(loss, norm, finite, np.concatenate(targets), np.concatenate(features))

    @override
    def state(self) -> TrainState:
        return copy_state(self._state)


def normalize(images: NDArray[Any], config: RunConfig) -> Floats:
    """Normalise uint8 images (B, C, H, W) by the loader's mean and std. Floating images are normalised already.

    Raises:
        ShapeError: the images do not have the model's size.
    """
    check_images(np.shape(images), config.model.in_chans, config.model.image_size)
    if images.dtype != np.uint8:
        return np.asarray(images, dtype=np.float64)
    mean, std = config.loader.normalization(config.model.in_chans)
    return (images / 255.0 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))


def copy_state(state: TrainState) -> TrainState:
    """A copy in float64 that shares no memory."""
    return TrainState(
        student=_copies(state.student),
        teacher=_copies(state.teacher),
        exp_avg=_copies(state.exp_avg),
        exp_avg_sq=_copies(state.exp_avg_sq),
        step=state.step,
    )


def _copies(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.array(value, dtype=np.float64) for name, value in arrays.items()}
