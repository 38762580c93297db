"""`pcae_torch.Encoder`: a pre-trained encoder as a module for any training code.

Letters: B images, C channels, H height, W width, k patch tokens kept, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from pcae_core.config import DataConfig, EncoderName, ModelConfig
from pcae_core.contract import EncoderOutput
from pcae_core.reduction import Reduction
from pcae_core.shapes import check_images
from pcae_core.storage import pretrained
from pcae_torch import model


class Encoder(model.Encoder):
    """Vision Transformer that drops tokens; parameters and `state_dict` have timm's names.

    Attributes:
        reduction: `reduction.keep` is the share of the patch tokens that each stage keeps, 1 at first.
        mean, std: mean and standard deviation of each channel, for pixels in [0, 1].
        config: configuration of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.reduction = Reduction()
        self.mean, self.std = DataConfig().normalization(config.in_chans)

    @classmethod
    def from_pretrained(cls, path: Path | str, encoder: EncoderName | None = None) -> Self:
        """Load the encoder in `path` on the CPU.

        Args:
            path: run folder, checkpoint, or encoder folder that `pcae convert` wrote.
            encoder: student or teacher of a run. Default: the student; of a fine-tuned run, the weights that were
                scored.

        Raises:
            CheckpointError: there is no encoder, or it is damaged.
            ConfigError: `encoder` is given for an encoder folder, which holds one encoder.
        """
        pretrained.refuse_choice(Path(path), encoder)
        found = pretrained.load(Path(path), encoder)
        module = model.build(cls, found.config.model)
        model.load(module, {name: torch.from_numpy(value).clone() for name, value in found.encoder.items()})
        module.mean, module.std = found.config.loader.normalization(found.config.model.in_chans)
        return module

    def forward(self, images: Tensor) -> EncoderOutput:  # type: ignore[override]  # the ratio is in `reduction`
        """Normalised images (B, C, H, W) of any floating dtype -> `EncoderOutput` of the parameters' dtype.

        `last_hidden_state` is the P prefix tokens, the class token first, and the tokens that stay (B, P + k, D).
        `kept_ids` are their patches (B, k).

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
        """
        check_images(images.shape, self.config.in_chans, self.config.image_size)
        return super().forward(images.to(self.cls_token.dtype), self.reduction.keep)
