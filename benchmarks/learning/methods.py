"""What is compared: PCAE, PCAE with other choices of the targets, MAE, and supervised training, on the same encoder.

All but the supervised are students and teachers of the product's own trainer. Letters: B images, C channels, p patch
size, N patches, V visible, M masked, K targets, k kept, D width, P = C*p*p numbers of a patch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from benchmarks.mae import MAE, patch_dim, pixel_targets
from torch import Tensor, nn

from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.contract import Center, TrainState
from pcae_core.parameters import pretraining_state
from pcae_core.randomness import Purpose, generator
from pcae_core.training.collapse import constant_prediction_loss
from pcae_torch import model, ops
from pcae_torch.pretraining import TorchPretrainer

CPU = torch.device("cpu")
PATCHES = "patch_embed.proj.weight"


def create_pcae(config: PretrainConfig) -> TorchPretrainer:
    """The product's own."""
    return TorchPretrainer(config, CPU)


def opposite_score(center: Center) -> ops.Score:
    """The tokens most similar to the mean token stay."""
    return lambda tokens: -ops.similarity_scores(tokens, center)


class RandomScore:
    """Tokens stay at random; the stream belongs to the benchmark's seed 0, whatever the seed of a run."""

    def __init__(self) -> None:
        self._stream = generator(0, Purpose.MASK, minor=1)  # a run's masks have minor 0

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N)."""
        return torch.from_numpy(self._stream.random(tokens.shape[:2]))


def create_opposite(config: PretrainConfig) -> TorchPretrainer:
    """PCAE whose teacher keeps what PCAE drops first."""
    score = opposite_score(config.model.reduction.center)
    return TorchPretrainer(config, CPU, teacher=partial(model.Teacher, score=score))


def create_random(config: PretrainConfig) -> TorchPretrainer:
    """PCAE whose teacher drops tokens at random."""
    return TorchPretrainer(config, CPU, teacher=partial(model.Teacher, score=RandomScore()))


BLIND_SCALE = 5.0


def create_blind(config: PretrainConfig) -> TorchPretrainer:
    """Beyond the paper: filters of the patch projection start blind to a patch's mean, and larger, in the teacher too.

    So the first targets say more of structure and less of brightness.
    """
    state = pretraining_state(config.model, config.seed)
    filters = state.student[PATCHES]
    blind = {PATCHES: BLIND_SCALE * (filters - filters.mean(axis=(2, 3), keepdims=True))}
    state = dataclasses.replace(state, student=state.student | blind, teacher=state.teacher | blind)
    return TorchPretrainer(config, CPU, state)


def with_linear(config: PretrainConfig, name: str, width: int) -> TrainState:
    """The product's first state with a linear layer from `width` to P, Xavier-uniform as the others."""
    state, shape = pretraining_state(config.model, config.seed), (patch_dim(config.model), width)
    bound = math.sqrt(6.0 / sum(shape))
    rng = generator(config.seed, Purpose.INIT, major=len(state.student))
    layer = {f"{name}.weight": rng.uniform(-bound, bound, shape), f"{name}.bias": np.zeros(shape[0])}
    values = {key: value.astype(np.float32) for key, value in layer.items()}
    zeros = {key: np.zeros_like(value) for key, value in values.items()}
    student, exp_avg, exp_avg_sq = state.student | values, state.exp_avg | zeros, state.exp_avg_sq | zeros
    return dataclasses.replace(state, student=student, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)


class PixelTeacher(nn.Module):
    """MAE's targets; it has no parameters."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def forward(self, patches: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, N, P), ids (B, M) -> targets (B, M, P), the same ids."""
        return pixel_targets(patches, masked), masked


def create_mae(config: PretrainConfig) -> TorchPretrainer:
    """MAE, with the product's optimizer."""
    state = with_linear(config, "decoder_pred", config.model.decoder_embed_dim)
    return TorchPretrainer(config, CPU, state, student=MAE, teacher=PixelTeacher)


class PixelStudent(model.Student):
    """Learns also the normalised pixels of a patch from its predicted feature, less and less.

    The weight of the pixels falls linearly to 0 over the first half of `total_steps`.
    """

    WEIGHT = 0.5  # at the first step

    def __init__(self, config: ModelConfig, total_steps: int) -> None:
        super().__init__(config)
        self.pixel_pred = nn.Linear(config.embed_dim, patch_dim(config))
        self._total, self._done = total_steps, 0

    def forward(
        self, patches: Tensor, visible: Tensor, target: Tensor, target_ids: Tensor, drop_path: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As the product's: the pixels change the gradient of the loss, and leave its value."""
        loss, prediction, features = super().forward(patches, visible, target, target_ids, drop_path)
        weight = self.WEIGHT * max(0.0, 1.0 - 2.0 * self._done / self._total)
        self._done += 1
        pixels = weight * F.mse_loss(self.pixel_pred(prediction), pixel_targets(patches, target_ids))
        return loss + (pixels - pixels.detach()), prediction, features


def create_early_pixels(config: PretrainConfig) -> TorchPretrainer:
    """Beyond the paper: see `PixelStudent`."""
    state = with_linear(config, "pixel_pred", config.model.embed_dim)
    return TorchPretrainer(config, CPU, state, student=partial(PixelStudent, total_steps=config.steps or 1))


def constant_feature_loss(target: Tensor) -> float:
    """PCAE's loss of the best constant prediction for targets (B, K, D)."""
    return constant_prediction_loss(target.numpy())


def constant_pixel_loss(target: Tensor) -> float:
    """MAE's loss of the best constant prediction for targets (B, M, P)."""
    return float(target.flatten(0, 1).var(dim=0, correction=0).mean())


@dataclasses.dataclass(frozen=True)
class Method:
    """How a method trains.

    Attributes:
        trainer: of pre-training; None for what trains with labels or not at all.
        constant_loss: of the best constant prediction for some targets.
        settings: what it changes in a set's recipe.
        clock: the method whose trials and whose steps it takes, when not its own.
        trained: whether it trains at all.
    """

    trainer: Callable[[PretrainConfig], TorchPretrainer] | None = None
    constant_loss: Callable[[Tensor], float] = constant_feature_loss
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
    REFERENCE: Method(create_pcae),
    "random drop": Method(create_random),
    "opposite selection": Method(create_opposite),
    "no drop": Method(create_pcae, settings=NO_DROP),
    "no drop, PCAE's steps": Method(create_pcae, settings=NO_DROP, clock=REFERENCE),
    "with a faster teacher": Method(create_pcae, settings={"memory": 0.02}, clock=REFERENCE),
    LESS_REDUCTION: Method(create_pcae, settings=LESS),
    SMALL_DATA: Method(create_pcae, settings=SMALL),
    EARLY_PIXELS: Method(create_early_pixels),
    BLIND_START: Method(create_blind),
    PEER: Method(create_mae, constant_pixel_loss),
    SMALL_PEER: Method(create_mae, constant_pixel_loss, SMALL),
    SUPERVISED: Method(),
    RANDOM: Method(trained=False),
    PIXELS: Method(trained=False),
}
