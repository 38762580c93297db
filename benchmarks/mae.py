"""MAE (He et al. 2022) made of this project's torch modules: what PCAE costs and learns beside a MAE of the same make.

Letters: B images, N patches, V visible, M masked, C channels, p patch size, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcae_core import cost
from pcae_core.config import ModelConfig
from pcae_torch import model, ops


class MAE(nn.Module):
    """The encoder on the visible patches; the decoder on all positions gives the pixels of the masked ones.

    Only the visible patches are embedded and only the masked ones predicted, which leaves the loss as published.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = model.Encoder(config), model.Decoder(config)
        self.decoder.decoder_pred = nn.Linear(config.decoder_embed_dim, patch_dim(config))

    def forward(
        self, patches: Tensor, visible: Tensor, target: Tensor, masked: Tensor, drop_path: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, prediction (B, M, C*p*p), and the mean visible token (B, D) without gradient.

        Args:
            patches: (B, N, C*p*p); visible: their ids (B, V).
            target, masked: from `pixel_targets`; the loss is the mean squared distance from the target.
        """
        latent = self.encoder.encode_visible(patches, visible, drop_path)
        prediction = self.decoder(latent, visible, masked)
        features = latent[:, self.encoder.num_prefix_tokens :].detach().mean(dim=1)
        return nn.functional.mse_loss(prediction, target), prediction, features


def pixel_targets(patches: Tensor, masked: Tensor) -> Tensor:
    """Pixels of the masked patches (B, M, C*p*p), each patch brought to mean 0 and variance 1."""
    return ops.standardize(ops.gather_tokens(patches, masked))


def loss(module: MAE, patches: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
    """Loss of a step, its targets included."""
    return module(patches, visible, pixel_targets(patches, masked), masked)[0]


def patch_dim(config: ModelConfig) -> int:
    """C*p*p."""
    return config.in_chans * config.patch_size**2


def create(config: ModelConfig, device: str) -> MAE:
    """With small normal weights; no position is learned."""
    made = MAE(config).to(device)
    for parameter in (made.encoder.pos_embed, made.decoder.decoder_pos_embed, made.encoder.cls_token):
        nn.init.normal_(parameter, std=0.02)
    return made.train()


def macs(config: ModelConfig) -> int:
    """Multiply-accumulates of one image in one training step."""
    width = config.decoder_embed_dim
    decoder = cost.decoder_macs(config, config.num_prefix_tokens + config.num_visible, config.num_masked)
    decoder += config.num_masked * width * (patch_dim(config) - config.embed_dim)  # pixels, not features
    return 3 * (cost.pretraining_forward_macs(config)["student"] + decoder)


def optimizer(made: nn.Module, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """AdamW as PCAE's: fused."""
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-4, betas=betas, weight_decay=weight_decay, fused=True)
