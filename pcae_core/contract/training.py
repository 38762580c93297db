"""`TrainingBackend`: a backend that infers and trains.

Letters as in `pcae_core.contract`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pcae_core.contract.constants import STANDARDIZE_EPS, Array
from pcae_core.contract.inference import Backend, no_training
from pcae_core.contract.outputs import PretrainingOutput, TrainState
from pcae_core.contract.trainers import Finetuner, Pretrainer

if TYPE_CHECKING:
    from pcae_core.config import ModelConfig, PretrainConfig
    from pcae_core.config.finetune import FinetuneConfig


class TrainingBackend(Backend):
    """Inference and training in one framework. Subclasses implement every abstract method."""

    # Operations of pre-training

    @abc.abstractmethod
    def split_by_noise(self, noise: Array, num_visible: int) -> tuple[Array, Array]:
        """Split patches by noise (B, N): visible ids (B, V) of the V smallest numbers, masked ids (B, M); ascending."""

    @abc.abstractmethod
    def standardize(self, latents: Array, eps: float = STANDARDIZE_EPS) -> Array:
        """Standardise each token (B, K, D) to mean 0 and unbiased variance 1 over its features; float32 or better."""

    @abc.abstractmethod
    def cosine_loss(self, prediction: Array, target: Array) -> Array:
        """`1 - cosine` of each pair of tokens (B, K, D), averaged: a scalar, float32 or better."""

    @abc.abstractmethod
    def ema_update(
        self, teacher: Mapping[str, Array], student: Mapping[str, Array], momentum: float
    ) -> dict[str, Array]:
        """`momentum * teacher + (1 - momentum) * student` for every name in `teacher`; dtypes kept."""

    # Pre-training

    @abc.abstractmethod
    def pretraining_forward(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
    ) -> PretrainingOutput:
        """The whole forward pass of pre-training, without drop path.

        Args:
            student: parameters of encoder and decoder.
            teacher: parameters of the encoder.
            images: normalised (B, C, H, W).
            noise: noise that splits the patches (B, N).

        Raises:
            ShapeError: the images do not have the model's size, or there are none.
        """

    @abc.abstractmethod
    def pretraining_loss_and_gradients(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
        drop_path: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Loss of `pretraining_forward`, and its gradient with respect to each trainable student parameter."""

    @abc.abstractmethod
    def create_pretrainer(self, config: PretrainConfig, state: TrainState | None = None) -> Pretrainer:
        """A trainer that starts from `state`, or from `config.seed` without one."""

    # Fine-tuning

    @abc.abstractmethod
    def finetuning_loss_and_gradients(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Array],
        images: Array,
        targets: Array,
        keep: float = 1.0,
        drop_path: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy of the logits with soft targets, and its gradients.

        There is a gradient for each parameter in `parameters.finetuned_shapes`. The choice of the tokens that stay has
        no gradient. Dropped tokens have one through attention, in the blocks before they are dropped.

        Args:
            targets: target probabilities (B, classes).
            drop_path: factors of the residual branches (L, 2, B), or None.
        """

    @abc.abstractmethod
    def create_finetuner(self, config: FinetuneConfig, state: TrainState | None = None) -> Finetuner:
        """A trainer that starts from `state`, or from random initialisation with `config.seed` without one."""

    # Any function

    @abc.abstractmethod
    def gradient(self, function: Callable[[Array], Array], x: Array) -> Array:
        """Gradient with respect to `x` of a scalar function of this backend's operations; shape and dtype of `x`."""


def training_backend(backend: Backend) -> TrainingBackend:
    """`backend` itself, typed as a `TrainingBackend`.

    Raises:
        BackendError: it does not train.
    """
    if not isinstance(backend, TrainingBackend):
        raise no_training(backend)
    return backend
