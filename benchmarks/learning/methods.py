"""What is compared: PCAE, PCAE with other choices of the targets, MAE, and supervised training, on the same encoder.

PCAE is the product's own trainer. Letters: B images, C channels, p patch size, N patches, V visible, M masked,
K targets, k kept, D width, P = C*p*p numbers of a patch.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from benchmarks.mae import MAE, patch_dim
from torch import Tensor, nn

from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.contract import TrainState
from pcae_core.parameters import is_trainable, pretraining_state
from pcae_core.randomness import Purpose, generator
from pcae_core.training.collapse import constant_prediction_loss
from pcae_torch import model, ops
from pcae_torch.pretraining import TorchPretrainer
from pcae_torch.trainer import TorchTrainer

CPU = torch.device("cpu")
PATCHES = "patch_embed.proj.weight"


class ScoringTeacher(model.Teacher, abc.ABC):
    """The product's teacher, in which another score says which tokens stay: the lowest ones."""

    @abc.abstractmethod
    def score(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N)."""

    def forward(self, patches: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """See `model.Teacher.forward`."""
        tokens, ids = self.encoder.embed(patches, masked), masked
        kept_after_block = self.encoder.config.kept_after_block(masked.shape[1])
        for i, block in enumerate(self.encoder.blocks):
            tokens = block(tokens)
            if i in kept_after_block:
                kept = ops.select_tokens(self.score(tokens), kept_after_block[i])
                tokens, ids = ops.gather_tokens(tokens, kept), ids.gather(1, kept)
        return ops.standardize(self.encoder.norm(tokens)), ids


class OppositeTeacher(ScoringTeacher):
    """Keeps the tokens most similar to the mean token."""

    def score(self, tokens: Tensor) -> Tensor:
        """See `ScoringTeacher.score`."""
        return -ops.similarity_scores(tokens, self.encoder.config.reduction.center)


class RandomTeacher(ScoringTeacher):
    """Keeps tokens at random; its stream belongs to the benchmark's seed 0, whatever the seed of a run."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._stream = generator(0, Purpose.MASK, minor=1)  # a run's masks have minor 0

    def score(self, tokens: Tensor) -> Tensor:
        """See `ScoringTeacher.score`."""
        return torch.from_numpy(self._stream.random(tokens.shape[:2]))


class Pretrainer(TorchPretrainer):
    """The product's trainer, for other modules."""

    student: type[nn.Module] = model.Student
    teacher: type[nn.Module] | None = model.Teacher

    def __init__(self, config: PretrainConfig) -> None:
        state = self.pretraining_state(config)
        trained = [name for name in state.student if is_trainable(name)]
        TorchTrainer.__init__(self, config, CPU, state, self.student, self.teacher, trained)

    def pretraining_state(self, config: PretrainConfig) -> TrainState:
        """The product's."""
        return pretraining_state(config.model, config.seed)

    @staticmethod
    def constant_loss(target: Tensor) -> float:
        """Loss of the best constant prediction for targets (B, K, D)."""
        return constant_prediction_loss(target.numpy())


class OppositePretrainer(Pretrainer):
    """See `OppositeTeacher`."""

    teacher = OppositeTeacher


class RandomPretrainer(Pretrainer):
    """See `RandomTeacher`."""

    teacher = RandomTeacher


class BlindPretrainer(Pretrainer):
    """Beyond the paper: filters of the patch projection start blind to a patch's mean, and larger.

    So the first targets say more of structure and less of brightness.
    """

    SCALE = 5.0

    def pretraining_state(self, config: PretrainConfig) -> TrainState:
        """The product's with other filters, in the teacher too."""
        state = pretraining_state(config.model, config.seed)
        filters = state.student[PATCHES]
        blind = {PATCHES: self.SCALE * (filters - filters.mean(axis=(2, 3), keepdims=True))}
        return dataclasses.replace(state, student=state.student | blind, teacher=state.teacher | blind)


def with_linear(state: TrainState, config: PretrainConfig, name: str, width: int) -> TrainState:
    """`state` with a linear layer from `width` to P, Xavier-uniform as the others."""
    shape = patch_dim(config.model), width
    bound = math.sqrt(6.0 / sum(shape))
    rng = generator(config.seed, Purpose.INIT, major=len(state.student))
    layer = {f"{name}.weight": rng.uniform(-bound, bound, shape), f"{name}.bias": np.zeros(shape[0])}
    values = {key: value.astype(np.float32) for key, value in layer.items()}
    zeros = {key: np.zeros_like(value) for key, value in values.items()}
    student, exp_avg, exp_avg_sq = state.student | values, state.exp_avg | zeros, state.exp_avg_sq | zeros
    return dataclasses.replace(state, student=student, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)


class MaePretrainer(Pretrainer):
    """One step of MAE."""

    student, teacher = MAE, None

    def pretraining_state(self, config: PretrainConfig) -> TrainState:
        """The product's, with an output layer of another size."""
        state = pretraining_state(config.model, config.seed)
        return with_linear(state, config, "decoder_pred", config.model.decoder_embed_dim)

    def _accumulate(
        self, patches: Tensor, visible: Tensor, masked: Tensor, scales: Tensor | None, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        loss, target, features = self._parallel(patches, visible, masked, scales)
        loss.backward()
        return loss.detach(), target, features

    @staticmethod
    def constant_loss(target: Tensor) -> float:
        """Loss of the best constant prediction for targets (B, M, P)."""
        return float(target.flatten(0, 1).var(dim=0, correction=0).mean())


class PixelStudent(model.Student):
    """Also says, from each predicted feature, the normalised pixels of its patch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pixel_pred = nn.Linear(config.embed_dim, patch_dim(config))

    def pixel_loss(self, prediction: Tensor, patches: Tensor, target_ids: Tensor) -> Tensor:
        """Prediction (B, K, D), patches (B, N, P), ids (B, K) -> scalar."""
        return F.mse_loss(self.pixel_pred(prediction), ops.standardize(ops.gather_tokens(patches, target_ids)))


class EarlyPixelsPretrainer(Pretrainer):
    """Beyond the paper: a pixel loss that fades out linearly over the first half of the run."""

    student = PixelStudent
    WEIGHT = 0.5  # at the first step

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self._total, self._done = config.steps or 1, 0

    def pretraining_state(self, config: PretrainConfig) -> TrainState:
        """The product's, and the pixels' layer."""
        return with_linear(pretraining_state(config.model, config.seed), config, "pixel_pred", config.model.embed_dim)

    def _accumulate(
        self, patches: Tensor, visible: Tensor, masked: Tensor, scales: Tensor | None, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            target, target_ids = self._teacher(patches, masked)
        loss, prediction, features = self._parallel(patches, visible, target, target_ids, scales)
        weight = self.WEIGHT * max(0.0, 1.0 - 2.0 * self._done / self._total)
        self._done += 1
        (loss + weight * self._student.pixel_loss(prediction, patches, target_ids)).backward()
        return loss.detach(), target, features


@dataclasses.dataclass(frozen=True)
class Method:
    """How a method trains.

    Attributes:
        trainer: of pre-training; None for what trains with labels or not at all.
        settings: what it changes in a set's recipe.
        clock: the method whose trials and whose steps it takes, when not its own.
        trained: whether it trains at all.
    """

    trainer: Callable[[PretrainConfig], Pretrainer] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    clock: str | None = None
    trained: bool = True

    @property
    def tried(self) -> bool:
        """Whether it has trials of its own."""
        return self.trained and self.clock is None


NO_DROP: dict[str, Any] = {"model": {"reduction": {"keep": 1.0}}}
LESS: dict[str, Any] = {"model": {"reduction": {"num_stages": 2, "keep": 0.7}}}  # as the recipes of colour images
SMALL: dict[str, Any] = {"batch_size": 32, "model": LESS["model"] | {"decoder_depth": 1}}  # what gained most at 60 s
REFERENCE, PEER, SUPERVISED, RANDOM, PIXELS = "PCAE", "MAE", "supervised", "random initialisation", "raw pixels"
LESS_REDUCTION, SMALL_DATA = "with less reduction", "with small-data settings"
SMALL_PEER = "MAE with small-data settings"
EARLY_PIXELS, BLIND_START = "with early pixels (extension)", "with a blind start (extension)"

METHODS = {
    REFERENCE: Method(Pretrainer),
    "random drop": Method(RandomPretrainer),
    "opposite selection": Method(OppositePretrainer),
    "no drop": Method(Pretrainer, NO_DROP),
    "no drop, PCAE's steps": Method(Pretrainer, NO_DROP, REFERENCE),
    "with a faster teacher": Method(Pretrainer, {"memory": 0.02}, REFERENCE),
    LESS_REDUCTION: Method(Pretrainer, LESS),
    SMALL_DATA: Method(Pretrainer, SMALL),
    EARLY_PIXELS: Method(EarlyPixelsPretrainer),
    BLIND_START: Method(BlindPretrainer),
    PEER: Method(MaePretrainer),
    SMALL_PEER: Method(MaePretrainer, SMALL),
    SUPERVISED: Method(),
    RANDOM: Method(trained=False),
    PIXELS: Method(trained=False),
}
