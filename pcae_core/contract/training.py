"""`TrainingBackend`: a backend that trains too.

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
        """Noise (B, N) to visible ids (B, V), of the V smallest numbers, and masked ids (B, M); both ascending."""

    @abc.abstractmethod
    def standardize(self, latents: Array, eps: float = STANDARDIZE_EPS) -> Array:
        """Each token (B, K, D) to mean 0 and unbiased variance 1 over its features; float32 or better."""

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
            student: encoder and decoder; teacher: encoder.
            images: normalised (B, C, H, W).
            noise: (B, N), splits the patches.

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
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
        """Loss of `pretraining_forward`, and its gradient by each trainable student parameter."""

    @abc.abstractmethod
    def create_pretrainer(self, config: PretrainConfig, state: TrainState | None = None) -> Pretrainer:
        """A model in training, from `state` or from `config.seed`."""

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
        """Cross-entropy of the logits with soft targets, and its gradient by each parameter that fine-tuning trains.

        The choice of the tokens that stay has no gradient; those that go have one through what they gave the others.

        Args:
            targets: (B, classes), each row the wanted probabilities.
            drop_path: factors of the residual branches (L, 2, B), or None.
        """

    @abc.abstractmethod
    def create_finetuner(self, config: FinetuneConfig, state: TrainState | None = None) -> Finetuner:
        """A classifier in training, from `state`, or from `config.seed` at random."""

    # Any function

    @abc.abstractmethod
    def gradient(self, function: Callable[[Array], Array], x: Array) -> Array:
        """Gradient by `x` of a scalar function made of this backend's operations; of the shape and dtype of `x`."""


def training_backend(backend: Backend) -> TrainingBackend:
    """`backend` itself, as one that trains.

    Raises:
        BackendError: it does not train.
    """
    if not isinstance(backend, TrainingBackend):
        raise no_training(backend)
    return backend
