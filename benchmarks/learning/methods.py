"""What is compared: PCAE, PCAE with other choices of the targets, MAE, and supervised training, on the same encoder.

PCAE is the product's own trainer. Letters: B images, C channels, p patch size, N patches, V visible, M masked,
K targets, k kept, D width, P = C*p*p numbers of a patch.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.parameters import initial_state, is_trainable
from pcae_core.protocol import TrainState
from pcae_core.randomness import Purpose, generator
from pcae_core.training.metrics import constant_prediction_loss
from pcae_torch import model, ops
from pcae_torch.trainer import TorchTrainer
from pcae_torch.training import TorchPretrainer

CPU = torch.device("cpu")


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
        state = self.initial_state(config)
        trained = [name for name in state.student if is_trainable(name)]
        TorchTrainer.__init__(self, config, CPU, state, self.student, self.teacher, trained)

    def initial_state(self, config: PretrainConfig) -> TrainState:
        """The product's."""
        return initial_state(config.model, config.seed)

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


class Mae(nn.Module):
    """MAE: predicts the pixels of the masked patches, normalised by patch. Encoder and decoder are PCAE's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = model.Encoder(config), model.Decoder(config)
        self.decoder.decoder_pred = nn.Linear(config.decoder_embed_dim, patch_numbers(config))

    def forward(
        self, patches: Tensor, visible: Tensor, masked: Tensor, drop_path: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Patches (B, N, P) -> loss (scalar), targets (B, M, P), the mean visible token (B, D) without gradient."""
        latent = self.encoder.encode_visible(patches, visible, drop_path)
        target = ops.standardize(ops.gather_tokens(patches, masked))
        loss = F.mse_loss(self.decoder(latent, visible, masked), target)
        return loss, target, latent[:, 1:].detach().mean(dim=1)


def patch_numbers(config: ModelConfig) -> int:
    """P."""
    return config.in_chans * config.patch_size**2


class MaePretrainer(Pretrainer):
    """One step of MAE."""

    student, teacher = Mae, None

    def initial_state(self, config: PretrainConfig) -> TrainState:
        """PCAE's, with an output layer of another size, Xavier-uniform too."""
        state = initial_state(config.model, config.seed)
        shape = patch_numbers(config.model), config.model.decoder_embed_dim
        bound = math.sqrt(6.0 / sum(shape))
        rng = generator(config.seed, Purpose.INIT, major=len(state.student))
        state.student["decoder_pred.weight"] = rng.uniform(-bound, bound, shape).astype(np.float32)
        state.student["decoder_pred.bias"] = np.zeros(shape[0], np.float32)
        for moments in (state.exp_avg, state.exp_avg_sq):
            moments |= {n: np.zeros_like(state.student[n]) for n in ("decoder_pred.weight", "decoder_pred.bias")}
        return state

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


@dataclass(frozen=True)
class Method:
    """How a method trains.

    Attributes:
        trainer: of pre-training; None for what trains with labels or not at all.
        settings: what it changes in a set's recipe.
        clock: the method whose trials and whose steps it takes, when not its own.
        trained: whether it trains at all.
    """

    trainer: Callable[[PretrainConfig], Pretrainer] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    clock: str | None = None
    trained: bool = True

    @property
    def tried(self) -> bool:
        """Whether it has trials of its own."""
        return self.trained and self.clock is None


NO_DROP: dict[str, Any] = {"model": {"reduction": {"keep": 1.0}}}
REFERENCE, SUPERVISED, RANDOM, PIXELS = "PCAE", "supervised", "random initialisation", "raw pixels"

METHODS = {
    REFERENCE: Method(Pretrainer),
    "random drop": Method(RandomPretrainer),
    "opposite selection": Method(OppositePretrainer),
    "no drop": Method(Pretrainer, NO_DROP),
    "no drop, PCAE's steps": Method(Pretrainer, NO_DROP, REFERENCE),
    "MAE": Method(MaePretrainer),
    SUPERVISED: Method(),
    RANDOM: Method(trained=False),
    PIXELS: Method(trained=False),
}
