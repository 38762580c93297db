"""The models as modules: `Encoder`, which is deployed, `Decoder`, and the `Teacher` and `Student` of pre-training.

Parameter names are timm's and MAE's. Letters as in `ops`; P prefix tokens, T tokens with prefix, L blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from pcae_core.config import ModelConfig
from pcae_core.contract import EncoderOutput, StageOutput
from pcae_torch import ops
from pcae_torch.layers import Block, PatchEmbed

M = TypeVar("M", bound=nn.Module)


class Encoder(nn.Module):
    """Vision Transformer whose blocks can drop tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.num_prefix_tokens = config, config.num_prefix_tokens
        dim, hidden = config.embed_dim, config.hidden_dim(config.embed_dim)
        num_tokens = config.num_prefix_tokens + config.num_patches
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, dim), requires_grad=False)
        self.patch_embed = PatchEmbed(config)
        eps = config.layer_norm_eps
        self.norm_pre = nn.LayerNorm(dim, eps=eps) if config.pre_norm else None
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, hidden, eps, config.activation) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)
        pools = config.num_classes and config.pooling == "mean"
        self.fc_norm = nn.LayerNorm(dim, eps=eps) if pools else None
        self.head = nn.Linear(dim, config.num_classes) if config.num_classes else None

    def embed(self, patches: Tensor, ids: Tensor) -> Tensor:
        """Project only the patches (B, N, C*p*p) at ids (B, k) and add their positions: (B, k, D)."""
        return self.patch_embed(ops.gather_tokens(patches, ids)) + self.pos_embed[0, self.num_prefix_tokens + ids]

    def prepend_prefix(self, tokens: Tensor) -> Tensor:
        """(B, k, D) -> (B, P + k, D), the class token first."""
        prefix = self.cls_token + self.pos_embed[:, : self.num_prefix_tokens]
        return torch.cat([prefix.expand(len(tokens), -1, -1), tokens], dim=1)

    def pre_normed(self, tokens: Tensor) -> Tensor:
        """Embedded tokens (B, T, D) as the first block gets them."""
        return tokens if self.norm_pre is None else self.norm_pre(tokens)

    def encode_visible(self, patches: Tensor, visible: Tensor, drop_path: Tensor | None) -> Tensor:
        """The student's pass: prefix tokens and the patches at `visible` (B, V) through all blocks: (B, P + V, D)."""
        tokens = self.pre_normed(self.prepend_prefix(self.embed(patches, visible)))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, None if drop_path is None else drop_path[i])
        return self.norm(tokens)

    def reduced_blocks(
        self,
        tokens: Tensor,
        ids: Tensor,
        keep: float,
        num_prefix_tokens: int,
        drop_path: Tensor | None = None,
        stages: list[StageOutput] | None = None,
        score: ops.Score | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, P + n, D) of the patches at ids (B, n) through all blocks, dropping some at each stage.

        Args:
            stages: list to add each stage to, with its scores. Without it, a stage that keeps all tokens has no scores.
            score: function that scores patch tokens; None for `ops.similarity_scores`.

        Returns:
            What is left (B, P + k, D), before the final norm, and its positions (B, k).
        """
        score = score or functools.partial(ops.similarity_scores, center=self.config.reduction.center)
        kept_after_block = self.config.kept_after_block(ids.shape[1], keep)
        tokens = self.pre_normed(tokens)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, None if drop_path is None else drop_path[i])
            entered, scored, k = ids, tokens, kept_after_block.get(i, ids.shape[1])
            if k < ids.shape[1]:
                tokens, kept = ops.reduce_tokens(tokens, k, num_prefix_tokens, score)
                ids = ids.gather(1, kept)
            if stages is not None and i in kept_after_block:
                stages.append(StageOutput(i, entered, score(scored[:, num_prefix_tokens:]), ids))
        return tokens, ids

    def encode_reduced(
        self, tokens: Tensor, ids: Tensor, keep: float, num_prefix_tokens: int, score: ops.Score | None = None
    ) -> tuple[Tensor, Tensor]:
        """`reduced_blocks` and the final norm."""
        tokens, ids = self.reduced_blocks(tokens, ids, keep, num_prefix_tokens, score=score)
        return self.norm(tokens), ids

    def encode_all(
        self,
        images: Tensor,
        keep: float,
        drop_path: Tensor | None = None,
        stages: list[StageOutput] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Prefix tokens and every patch of images (B, C, H, W) through `reduced_blocks`: (B, P + k, D), (B, k)."""
        patches = ops.patchify(images, self.config.patch_size)
        ids = torch.arange(self.config.num_patches, device=images.device).expand(len(images), -1)
        tokens = self.patch_embed(patches) + self.pos_embed[:, self.num_prefix_tokens :]
        return self.reduced_blocks(self.prepend_prefix(tokens), ids, keep, self.num_prefix_tokens, drop_path, stages)

    def classify(self, tokens: Tensor) -> Tensor:
        """The last block's output (B, P + k, D) -> logits (B, classes)."""
        assert self.head is not None  # nosec B101 # callers check first; tells mypy
        if self.fc_norm is None:
            return self.head(self.norm(tokens[:, 0]))
        return self.head(self.fc_norm(tokens[:, self.num_prefix_tokens :].mean(dim=1)))

    def forward(self, images: Tensor, keep: float = 1.0, stages: list[StageOutput] | None = None) -> EncoderOutput:
        """Normalised images (B, C, H, W) -> EncoderOutput. Each stage keeps a share `keep` of the patches.

        Args:
            stages: as in `reduced_blocks`.
        """
        tokens, kept_ids = self.encode_all(images, keep, stages=stages)
        logits = None if self.head is None else self.classify(tokens)
        return EncoderOutput(self.norm(tokens), kept_ids.contiguous(), logits)


class Decoder(nn.Module):
    """Predicts features at the target positions from the encoded visible tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_prefix_tokens = config.num_prefix_tokens
        dim, hidden = config.decoder_embed_dim, config.hidden_dim(config.decoder_embed_dim)
        num_tokens = config.num_prefix_tokens + config.num_patches
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, num_tokens, dim), requires_grad=False)
        self.decoder_embed = nn.Linear(config.embed_dim, dim)
        self.decoder_blocks = nn.ModuleList(
            Block(dim, config.decoder_num_heads, hidden, config.layer_norm_eps, config.activation)
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.decoder_pred = nn.Linear(dim, config.embed_dim)

    def forward(self, latent: Tensor, visible: Tensor, target_ids: Tensor) -> Tensor:
        """(B, P + V, D), (B, V), (B, K) -> predictions (B, K, D); only P + V + K tokens are decoded."""
        num_prefix, positions = self.num_prefix_tokens, self.decoder_pos_embed[0]
        context = self.decoder_embed(latent)
        prefix = context[:, :num_prefix] + positions[:num_prefix]
        patches = context[:, num_prefix:] + positions[num_prefix + visible]
        tokens = torch.cat([prefix, patches, self.mask_token + positions[num_prefix + target_ids]], dim=1)
        *blocks, last = self.decoder_blocks
        for block in blocks:
            tokens = block(tokens)
        answers = last(tokens, num_outputs=target_ids.shape[1])
        return self.decoder_pred(self.decoder_norm(answers))


class Teacher(nn.Module):
    """The encoder that computes the targets from the masked patches, without prefix tokens.

    Args of the constructor:
        score: function that scores patch tokens; None for `ops.similarity_scores`.
    """

    def __init__(self, config: ModelConfig, score: ops.Score | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.score = score

    def forward(self, patches: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, N, C*p*p) at `masked` (B, M) -> targets (B, K, D) and their ids (B, K)."""
        tokens = self.encoder.embed(patches, masked)
        keep = self.encoder.config.reduction.keep
        latent, ids = self.encoder.encode_reduced(tokens, masked, keep, 0, self.score)
        return ops.standardize(latent), ids


class Student(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def forward(
        self, patches: Tensor, visible: Tensor, target: Tensor, target_ids: Tensor, drop_path: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (scalar), prediction (B, K, D), and the mean visible token (B, D) without gradient."""
        latent = self.encoder.encode_visible(patches, visible, drop_path)
        prediction = self.decoder(latent, visible, target_ids)
        features = latent[:, self.encoder.num_prefix_tokens :].detach().mean(dim=1)
        return ops.cosine_loss(prediction, target), prediction, features


class Classifier(nn.Module):
    """Encoder and head for fine-tuning."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)

    def forward(self, images: Tensor, targets: Tensor, keep: float, drop_path: Tensor | None) -> Tensor:
        """Images (B, C, H, W), targets (B, classes) -> the cross-entropy, a scalar of float32 or better."""
        tokens, _ = self.encoder.encode_all(images, keep, drop_path)
        logits = ops.at_least_float32(self.encoder.classify(tokens))
        return F.cross_entropy(logits, targets.to(logits.dtype))


def canonical_names(module: nn.Module) -> dict[str, str]:
    """Canonical name -> name in `module`, without the prefixes of the parts of `Student` and `Teacher`."""
    names = [name for name, _ in module.named_parameters()]
    return {name.removeprefix("encoder.").removeprefix("decoder."): name for name in names}


def build(module_class: Callable[[ModelConfig], M], config: ModelConfig) -> M:
    """A module without storage, to be filled with parameters from a dictionary. No random number is drawn."""
    with torch.device("meta"):
        return module_class(config)


def load(module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Give `module` these tensors (not copies) by canonical name."""
    own = {name: parameters[canonical] for canonical, name in canonical_names(module).items()}
    module.load_state_dict(own, assign=True)
