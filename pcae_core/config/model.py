"""Shape of the model, and presets with timm's names."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pcae_core import schedule
from pcae_core.config.base import Activation, Blocks, Config, Fraction, Pooling, Positive, Size
from pcae_core.contract import LAYER_NORM_EPS, Center
from pcae_core.errors import ConfigError


class ReductionConfig(Config):
    """Which tokens the encoder drops, and where (paper, section 3).

    Attributes:
        num_stages: number of blocks after which tokens are dropped (`schedule.reduction_blocks`).
        keep: share of the patch tokens that each stage keeps in training, in (0, 1].
        center: mean that tokens are compared with: of the unit-length tokens ("unit"), or of the raw tokens ("raw", as
            in the paper's figure).
    """

    num_stages: Positive = 3
    keep: Fraction = 0.5
    center: Center = "unit"


class ModelConfig(Config):
    """Shape of the encoder and the decoder. Defaults: ViT-B/16 at 224 px with the paper's decoder.

    Attributes:
        image_size: height and width in pixels; images are square.
        patch_size: height and width of a patch in pixels; divides `image_size`.
        in_chans: channels of an image.
        embed_dim: width of the encoder.
        depth: number of encoder blocks.
        num_heads: number of attention heads of the encoder; divides `embed_dim`.
        mlp_ratio: ratio of an MLP's hidden width to the width of its block.
        activation: of every MLP: exact GELU `x Phi(x)` ("gelu"), its approximation by tanh ("gelu_tanh"), or
            `x sigmoid(1.702 x)` ("quick_gelu", as in OpenAI's CLIP).
        pre_norm: whether a LayerNorm of all tokens (`norm_pre`) comes before the first block, as in CLIP.
        patch_bias: whether the patch projection has a bias; CLIP's has none.
        num_classes: number of outputs of a linear head; 0 for no head.
        layer_norm_eps: epsilon of every LayerNorm. timm and MAE use 1e-6, many models of Hugging Face 1e-12.
        pooling: input of the head: the CLS token after the final norm ("cls"), or the mean of the surviving patch
            tokens before the final norm, through a norm of its own, `fc_norm` ("mean", as timm's `global_pool="avg"`).
        decoder_embed_dim: width of the decoder.
        decoder_depth: number of decoder blocks.
        decoder_num_heads: number of attention heads of the decoder; divides `decoder_embed_dim`.
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
    activation: Activation = "gelu"
    pre_norm: bool = False
    patch_bias: bool = True
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
        """N, the patches of an image."""
        return self.grid_size**2

    @property
    def num_prefix_tokens(self) -> int:
        """P = 1, the tokens before an image's patch tokens (B, P + k, D): the class token, at index 0.

        The position embeddings (1, P + N, D) have a row for each of them.
        """
        return 1

    @property
    def num_visible(self) -> int:
        """V, the patches that the student sees."""
        return int(self.num_patches * (1 - self.mask_ratio))

    @property
    def num_masked(self) -> int:
        """M = N - V, the patches that the teacher starts from."""
        return self.num_patches - self.num_visible

    @property
    def num_targets(self) -> int:
        """K, the masked patches that are left after the teacher's last stage."""
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
        """The model with this timm name, and `overrides` of its settings. Raises ConfigError for an unknown name."""
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
