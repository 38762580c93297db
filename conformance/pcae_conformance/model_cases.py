"""Cases for whole models and for training: a small random model, its images and its noise.

All parameters are random (biases are not 0, position embeddings are not sines). So a backend that uses a wrong one
fails. Letters: B images, C channels, p patch size, N patches, L blocks.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_conformance.cases import Case
from pcae_conformance.dtypes import Floats, cast, parameter_dtype, rounded
from pcae_core.config import Activation, DataConfig, ModelConfig, Pooling, PretrainConfig, ReductionConfig
from pcae_core.contract import LAYER_NORM_EPS, Center, TrainState
from pcae_core.parameters import encoder_shapes, is_trainable, student_shapes
from pcae_core.randomness import drop_path_scales
from pcae_core.schedule import drop_path_rates

Parameters = dict[str, Floats]


def random_parameters(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator, dtype: str) -> Parameters:
    """Random parameters with values of `dtype` that keep the activations of every layer near 1."""
    parameters = {}
    for name, shape in shapes.items():
        value = rng.normal(size=shape)
        if len(shape) == 1:  # biases; the weight of a LayerNorm is near 1
            value = 0.2 * value + name.endswith(".weight")
        elif name.endswith(".weight"):
            value /= math.sqrt(math.prod(shape[1:]))
        else:  # tokens and position embeddings
            value *= 0.5
        parameters[name] = rounded(value, dtype)
    return parameters


def close_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Noise whose values are equal in half precision."""
    return 0.5 + 1e-4 * rng.random(shape)


@dataclass(frozen=True)
class ModelCase(Case):
    """A small model and a batch for it. The attributes are those of `ModelConfig`, with shorter names.

    Attributes:
        width, heads, depth: width, heads and depth of the encoder.
        decoder_*: the same of the decoder.
        blank: whether every image has one flat colour, so that patches differ by position only.
    """

    batch: int = 1
    grid: int = 2
    patch: int = 1
    chans: int = 1
    width: int = 8
    heads: int = 1
    depth: int = 1
    decoder_width: int = 8
    decoder_heads: int = 1
    decoder_depth: int = 1
    classes: int = 0
    pooling: Pooling = "cls"
    stages: int = 1
    keep: float = 0.5
    mask_ratio: float = 0.5
    center: Center = "unit"
    blank: bool = False
    norm_eps: float = LAYER_NORM_EPS
    activation: Activation = "gelu"
    pre_norm: bool = False
    patch_bias: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, C, H, W)."""
        return (self.batch, self.chans, self.grid * self.patch, self.grid * self.patch)

    def config(self) -> ModelConfig:
        """Configuration of the model."""
        return ModelConfig(
            image_size=self.grid * self.patch,
            patch_size=self.patch,
            in_chans=self.chans,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=2.0,
            num_classes=self.classes,
            layer_norm_eps=self.norm_eps,
            activation=self.activation,
            pre_norm=self.pre_norm,
            patch_bias=self.patch_bias,
            pooling=self.pooling,
            decoder_embed_dim=self.decoder_width,
            decoder_depth=self.decoder_depth,
            decoder_num_heads=self.decoder_heads,
            mask_ratio=self.mask_ratio,
            reduction=ReductionConfig(num_stages=self.stages, keep=self.keep, center=self.center),
        )

    def encoder_config(self) -> ModelConfig:
        """The model with another keep ratio, which a backend must not use in place of the argument `keep`."""
        config = self.config()
        other = config.reduction.model_copy(update={"keep": 0.6 if self.keep == 1.0 else 1.0})
        return config.model_copy(update={"reduction": other})

    @property
    def always_ties(self) -> bool:
        """Whether encoder or teacher must choose one of two tokens by "unit" similarity.

        Two unit vectors are equally similar to their mean. So rounding decides, differently in each framework.
        """
        config = self.config()
        steps: list[tuple[int, int]] = []
        for tokens in (config.num_patches, config.num_masked):
            counts = [tokens, *config.kept_after_block(tokens, self.keep).values()]
            steps += itertools.pairwise(counts)
        return self.center == "unit" and (2, 1) in steps

    def student(self, dtype: str) -> Parameters:
        """Parameters of encoder and decoder."""
        return random_parameters(student_shapes(self.config()), np.random.default_rng([self.seed, 1]), dtype)

    def teacher(self, dtype: str) -> Parameters:
        """Parameters of another encoder than the student's."""
        return random_parameters(encoder_shapes(self.config()), np.random.default_rng([self.seed, 2]), dtype)

    def images(self, dtype: str) -> Floats:
        """(B, C, H, W)."""
        images = np.random.default_rng([self.seed, 3]).normal(size=self.shape)
        return rounded(np.broadcast_to(images[..., :1, :1], self.shape) if self.blank else images, dtype)

    def noise(self) -> Floats:
        """(B, N)."""
        return close_noise(np.random.default_rng([self.seed, 4]), (self.batch, self.grid**2))


@dataclass(frozen=True)
class TrainCase(ModelCase):
    """A training run of a few steps.

    Attributes:
        steps: optimizer steps; each has its own images.
        accumulation: micro-batches per step; divides `batch`.
        clip: largest gradient norm; 0 for no clipping.
        drop_path: drop-path rate of the last block.
        pixels: whether images are uint8.
        own_mean: whether the loader's mean and standard deviation differ from the defaults.
        beta1, beta2: betas of AdamW.
        start_step: number of optimizer steps in the drawn state.
    """

    steps: int = 1
    accumulation: int = 1
    clip: float = 0.0
    weight_decay: float = 0.05
    learning_rate: float = 1e-3
    momentum: float = 0.9
    drop_path: float = 0.0
    pixels: bool = False
    own_mean: bool = False
    beta1: float = 0.9
    beta2: float = 0.95
    start_step: int = 3

    def loader(self) -> DataConfig:
        """Settings that normalise uint8 images."""
        if not self.own_mean:
            return DataConfig()
        mean, std = (tuple(first + 0.1 * c for c in range(self.chans)) for first in (0.3, 0.2))
        return DataConfig(mean=mean, std=std)

    def run_settings(self, dtype: str) -> dict[str, Any]:
        """Settings of any kind of run, with `dtype` as its precision."""
        return {
            "precision": dtype,
            "seed": self.seed,
            "loader": self.loader(),
            "batch_size": self.batch,
            "accumulation": self.accumulation,
            "betas": (self.beta1, self.beta2),
            "grad_clip": self.clip or None,
            "weight_decay": self.weight_decay,
        }

    def pretrain_config(self, dtype: str) -> PretrainConfig:
        """Configuration of a run with `dtype` as its precision."""
        return PretrainConfig.model_validate({"model": self.config()} | self.run_settings(dtype))

    def step_images(self, step: int) -> NDArray[Any]:
        """(B, C, H, W), uint8 or float32."""
        rng = np.random.default_rng([self.seed, 5, step])
        if self.pixels:
            return rng.integers(0, 256, self.shape, dtype=np.uint8)
        return rng.normal(size=self.shape).astype(np.float32)

    def step_noise(self, step: int) -> Floats:
        """(B, N)."""
        return close_noise(np.random.default_rng([self.seed, 6, step]), (self.batch, self.grid**2))

    def step_drop_path(self, step: int) -> NDArray[np.float32] | None:
        """(L, 2, B), or None without drop path."""
        rates = drop_path_rates(self.drop_path, self.depth)
        return drop_path_scales(self.seed, step, 0, self.batch, rates)

    def hyper_parameters(self, step: int) -> dict[str, float]:
        """Learning rate and momentum of `step`, different at each step."""
        return {
            "learning_rate": self.learning_rate / (1 + step),
            "momentum": 1.0 - (1.0 - self.momentum) / (1 + step),
        }

    def state(self, precision: str) -> TrainState:
        """State of a run in the middle of training. No moment is near zero, so AdamW's step is a smooth function.

        With zero moments, the first step would be the sign of the gradient, which rounding decides if a gradient is
        tiny. Student and teacher share the position embeddings, which are fixed.
        """
        dtype = parameter_dtype(precision)
        student = self.student(dtype)
        trained = {name: value.shape for name, value in student.items() if is_trainable(name)}
        return self.state_of(precision, student, self.teacher(dtype) | {"pos_embed": student["pos_embed"]}, trained)

    def state_of(
        self, precision: str, student: Parameters, teacher: Parameters, trained: dict[str, tuple[int, ...]]
    ) -> TrainState:
        """A state with random moments of the trained parameters."""
        rng, dtype = np.random.default_rng([self.seed, 7]), parameter_dtype(precision)
        first = {name: rounded(0.01 * rng.normal(size=shape), dtype) for name, shape in trained.items()}
        second = {name: rounded(1e-3 * rng.uniform(0.5, 1.5, shape), dtype) for name, shape in trained.items()}
        # so small that no gradient of a case overflows
        loss_scale = (1024.0, 3) if precision == "float16" else None
        return TrainState(
            cast(student, dtype), cast(teacher, dtype), cast(first, dtype), cast(second, dtype),
            self.start_step, loss_scale,
        )  # fmt: skip
