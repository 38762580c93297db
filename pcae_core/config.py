"""Configuration: strict, immutable, and refused with one clear line when it makes no sense.

`ModelConfig` is what a checkpoint's tensors depend on; `PretrainConfig` is everything that a pre-training run depends
on, and `config_finetune.FinetuneConfig` everything that a fine-tuning run depends on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import Field, model_validator

from pcae_core import schedule
from pcae_core.errors import ConfigError, describe_validation_error
from pcae_core.protocol import LAYER_NORM_EPS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_DEEPEST = 20  # levels of a YAML file; settings have three

Positive = Annotated[int, Field(ge=1)]
Blocks = Annotated[int, Field(ge=1, le=1000)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Pooling = Literal["cls", "mean"]


class Config(pydantic.BaseModel):
    """Base of all configurations: no coercion, no unknown keys, no change after construction.

    Constructing one with wrong values raises pydantic's ValidationError, a ValueError.
    """

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """From plain data as YAML or JSON give it (lists for tuples, strings for paths).

        Raises:
            ConfigError: naming each value that is unknown, missing, of the wrong type or out of range.
        """
        try:
            return cls.model_validate_json(json.dumps(values))
        except pydantic.ValidationError as error:
            raise ConfigError(describe_validation_error(error)) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"settings must be plain data: {error}") from None

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """From a YAML file. Raises ConfigError."""
        return cls.from_dict(read_yaml(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` takes back."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The YAML text that `from_yaml` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def is_utf8(name: str) -> bool:
    """Whether a name that the file system gave can be written down."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


class _Loader(yaml.SafeLoader):
    """Plain YAML without aliases, which make a short file endless, and nested no deeper than settings are."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported; write the value again")
        if self._depth == _DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {_DEEPEST} deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when there is none."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # nosec B506 # a SafeLoader, see above
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None
    except Exception as error:  # PyYAML raises its own errors, and about any other for tags such as "!!int x"
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {type(values).__name__}")
    return values


class ReductionConfig(Config):
    """Which tokens the encoder drops, and where (paper, section 3).

    Attributes:
        num_stages: after how many blocks tokens are dropped (`schedule.reduction_blocks`).
        keep: share of the patch tokens that stays at each stage in training, in (0, 1].
        center: mean of the unit-length tokens ("unit") or of the raw ones ("raw", as the paper's figure writes).
    """

    num_stages: Positive = 3
    keep: Fraction = 0.5
    center: Literal["unit", "raw"] = "unit"


class ModelConfig(Config):
    """Shape of the encoder and the decoder. Defaults: ViT-B/16 at 224 px with the paper's decoder.

    Attributes:
        image_size: height and width in pixels; images are square.
        patch_size: height and width of a patch in pixels; divides `image_size`.
        in_chans: channels of an image.
        embed_dim: width of the encoder.
        depth: its blocks.
        num_heads: its attention heads; divide `embed_dim`.
        mlp_ratio: hidden width of an MLP, in widths of its block.
        num_classes: outputs of a linear head; 0 for none.
        layer_norm_eps: of every LayerNorm; 1e-6 in timm and MAE, while many of Hugging Face's models say 1e-12.
        pooling: what the head reads: the CLS token after the final norm ("cls"), or the mean of the surviving patch
            tokens before it, through a norm of its own, `fc_norm` ("mean", as timm's `global_pool="avg"`).
        decoder_embed_dim: width of the decoder.
        decoder_depth: its blocks.
        decoder_num_heads: its attention heads; divide `decoder_embed_dim`.
        mask_ratio: share of the patches that the student does not see; `int(N * (1 - mask_ratio))` are visible.
        init_residual_scale: factor on the initial output layer of every residual branch; 1.0 as in the release,
            0.1 for small data (docs/training.md).
    """

    image_size: Size = 224
    patch_size: Size = 16
    in_chans: Size = 3
    embed_dim: Size = 768
    depth: Blocks = 12
    num_heads: Size = 12
    mlp_ratio: Annotated[float, Field(gt=0.0, le=1000.0)] = 4.0
    num_classes: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    layer_norm_eps: Annotated[float, Field(gt=0.0)] = LAYER_NORM_EPS
    pooling: Pooling = "cls"
    decoder_embed_dim: Size = 512
    decoder_depth: Blocks = 8
    decoder_num_heads: Size = 16
    mask_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.75
    init_residual_scale: Annotated[float, Field(gt=0.0)] = 1.0
    reduction: ReductionConfig = ReductionConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not divisible by patch_size {self.patch_size}")
        for prefix in ("", "decoder_"):
            dim, heads = getattr(self, f"{prefix}embed_dim"), getattr(self, f"{prefix}num_heads")
            if dim % heads:
                raise ValueError(f"{prefix}embed_dim {dim} is not divisible by {prefix}num_heads {heads}")
            if dim % 4:
                raise ValueError(f"{prefix}embed_dim {dim} must be a multiple of 4 for 2-D position embeddings")
        if self.reduction.num_stages > self.depth:
            raise ValueError(f"reduction.num_stages {self.reduction.num_stages} exceeds the {self.depth} blocks")
        if not 1 <= self.num_visible < self.num_patches:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} leaves {self.num_visible} of {self.num_patches} patches visible; "
                "at least one patch must be visible and one masked"
            )
        return self

    @property
    def grid_size(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid_size**2

    @property
    def num_visible(self) -> int:
        """V."""
        return int(self.num_patches * (1 - self.mask_ratio))

    @property
    def num_masked(self) -> int:
        """M = N - V."""
        return self.num_patches - self.num_visible

    @property
    def num_targets(self) -> int:
        """K: masked tokens that the teacher has left after its last stage."""
        return list(self.kept_after_block(self.num_masked).values())[-1]

    def hidden_dim(self, dim: int) -> int:
        """Width of the MLP in a block of width `dim`."""
        return int(dim * self.mlp_ratio)

    def kept_after_block(self, num_tokens: int, keep: float | None = None) -> dict[int, int]:
        """Block index -> patch tokens that stay after it, starting from `num_tokens`."""
        keep = self.reduction.keep if keep is None else keep
        return schedule.kept_after_block(self.depth, self.reduction.num_stages, keep, num_tokens)

    def tokens_per_block(self, num_tokens: int, num_prefix_tokens: int = 0, keep: float | None = None) -> list[int]:
        """Tokens that enter each encoder block, e.g. 147, 73, 73, 73, 73, 36, ... for ViT-B's teacher."""
        keep = self.reduction.keep if keep is None else keep
        return schedule.tokens_per_block(self.depth, self.reduction.num_stages, keep, num_tokens, num_prefix_tokens)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """A model by its timm name, with single settings replaced. Raises ConfigError for an unknown name."""
        if name not in PRESETS:
            raise ConfigError(f"unknown model preset {name!r}; known: {', '.join(PRESETS)}")
        return cls.model_validate(PRESETS[name] | overrides)


_SMALL: dict[str, Any] = {
    "embed_dim": 64, "depth": 6, "num_heads": 4, "init_residual_scale": 0.1,
    "decoder_embed_dim": 64, "decoder_depth": 1, "decoder_num_heads": 4,
    "reduction": {"num_stages": 2, "keep": 0.7},  # three halvings would leave 4 of 37 patches (docs/learning.md)
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"embed_dim": 192, "num_heads": 3},
    "vit_small_patch16_224": {"embed_dim": 384, "num_heads": 6},
    "vit_base_patch16_224": {},
    "vit_large_patch16_224": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vit_huge_patch14_224": {"patch_size": 14, "embed_dim": 1280, "depth": 32, "num_heads": 16},
    "vit_micro_patch4_28": {"image_size": 28, "patch_size": 4, **_SMALL},
    "vit_micro_patch4_32": {"image_size": 32, "patch_size": 4, **_SMALL},
    "vit_micro_patch8_64": {"image_size": 64, "patch_size": 8, **_SMALL},
}


class DataConfig(Config):
    """How images become batches.

    Attributes:
        crop_scale: smallest and largest share of the area that a random-resized crop takes.
        crop_ratio: smallest and largest aspect ratio of a crop.
        hflip: flip half of the images left to right.
        mean: per channel, of pixel values in [0, 1]; one number stands for all channels. Default: ImageNet's for three
            channels, 0.5 otherwise.
        std: likewise; ImageNet's, or 0.25.
        workers: processes that load images; 0 loads in the training process.
    """

    crop_scale: tuple[Fraction, Fraction] = (0.2, 1.0)
    crop_ratio: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (3 / 4, 4 / 3)
    hflip: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    workers: Annotated[int, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be (smallest, largest), not ({low}, {high})")
        if self.std is not None and min(self.std, default=0.0) <= 0.0:
            raise ValueError("std must be positive")
        return self

    def normalization(self, in_chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, each with `in_chans` numbers. Raises ConfigError when another number of them is set."""
        mean = self.mean or (IMAGENET_MEAN if in_chans == 3 else (0.5,))
        std = self.std or (IMAGENET_STD if in_chans == 3 else (0.25,))
        if not {len(mean), len(std)} <= {1, in_chans}:
            raise ConfigError(f"loader.mean and loader.std need 1 or {in_chans} numbers")
        return _per_channel(mean, in_chans), _per_channel(std, in_chans)


def _per_channel(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    return values * in_chans if len(values) == 1 else values


class RunConfig(Config):
    """What every training run has settings for; the subclasses are the kinds of run.

    Attributes:
        data: folder of images, `.npz` file, or folder written by Hugging Face's `datasets`.
        out: the run's folder; a run that is there already is continued.
        backend: as `pcae backends` lists it.
        device: as the backend names it; "auto" takes its best one.
        precision: of matrix products; losses and scores are at least float32, parameters float32 (float64 with
            "float64").
        seed: of weights, order, crops, masks and drop path; the same seed gives the same run.
        epochs: passes over the data; `steps`, when given, is used instead.
        steps: optimizer steps of the whole run.
        batch_size: images per optimizer step, over all processes.
        accumulation: micro-batches per optimizer step and process.
        base_learning_rate: for 256 images; the peak rate is `base_learning_rate * batch_size / 256`.
        warmup_share: share of the steps with a linearly rising rate.
        weight_decay: of AdamW, on the weights of linear layers.
        betas: of AdamW.
        grad_clip: largest global gradient norm; none when not set.
        max_skipped_steps: steps in a row whose loss or gradient is not finite, which are skipped; so many end the run.
        drop_path: of the last encoder block; rises linearly from 0.
        checkpoint_every: optimizer steps.
        log_every: optimizer steps.
        compile: use the framework's compiler where it is optional.
        tensorboard: write event files into the run's folder.
        wandb: send the measurements to Weights & Biases.
    """

    model: ModelConfig = ModelConfig()
    data: Path | None = None
    out: Path
    loader: DataConfig = DataConfig()
    backend: str = "torch"
    device: str = "auto"
    precision: Literal["float64", "float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    epochs: Positive = 300
    steps: Positive | None = None
    batch_size: Positive = 256
    accumulation: Positive = 1
    base_learning_rate: Rate = 1.5e-4
    warmup_share: Share = 0.1
    weight_decay: Rate = 0.05
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    grad_clip: Annotated[float, Field(gt=0.0)] | None = None
    max_skipped_steps: Positive = 10
    drop_path: BelowOne = 0.25
    checkpoint_every: Positive = 1000
    log_every: Positive = 20
    tensorboard: bool = True
    wandb: bool = False

    @model_validator(mode="after")
    def _check_run(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")
        self.loader.normalization(self.model.in_chans)
        for name, value in self:
            if isinstance(value, Path) and not is_utf8(str(value)):
                raise ValueError(f"the path of {name}, {str(value)!r}, is not UTF-8, in which runs are written down")
        return self

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate at the end of the warm-up."""
        return self.base_learning_rate * self.batch_size / 256

    def local_batch_size(self, world_size: int) -> int:
        """Images per optimizer step of each of `world_size` processes.

        Raises:
            ConfigError: they cannot be shared out evenly, among processes and then among micro-batches.
        """
        if self.batch_size % world_size:
            raise ConfigError(f"batch_size {self.batch_size} is not divisible by {world_size} processes")
        size = self.batch_size // world_size
        if size % self.accumulation:
            raise ConfigError(
                f"batch_size {self.batch_size} gives each of {world_size} processes {size} images, which accumulation "
                f"{self.accumulation} does not divide"
            )
        return size

    def total_steps(self, num_samples: int) -> int:
        """Optimizer steps of the whole run."""
        return self.steps or max(1, self.epochs * num_samples // self.batch_size)

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Learning rate of 0-based `step`."""
        warmup = round(self.warmup_share * total_steps)
        return schedule.cosine_with_warmup(
            step, base=self.peak_learning_rate, warmup_steps=warmup, total_steps=total_steps
        )


class PretrainConfig(RunConfig):
    """A pre-training run.

    Attributes:
        ema_momentum: of the teacher at the first step; the last step's is 1.
    """

    out: Path = Path("runs/pretrain")
    ema_momentum: Share = 0.9999

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model.num_classes:
            raise ValueError("model.num_classes must be 0: pre-training has no labels and no head")
        return self

    def hyper_parameters(self, step: int, total_steps: int) -> tuple[float, float]:
        """Learning rate and EMA momentum of 0-based `step`."""
        momentum = schedule.ema_momentum(step, base=self.ema_momentum, total_steps=total_steps)
        return self.learning_rate(step, total_steps), momentum
