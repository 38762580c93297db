"""`pcae_mindspore.Encoder`: a pre-trained encoder as a cell for any training code.

Letters: B images, C channels, H height, W width, k patch tokens kept, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import mindspore as ms
from mindspore import Tensor

from pcae_core.config import DataConfig, EncoderName, ModelConfig
from pcae_core.reduction import Reduction
from pcae_core.storage import pretrained
from pcae_mindspore import _compat, model


class Encoder(model.Encoder):
    """Vision Transformer that drops tokens; parameters have timm's names.

    Attributes:
        reduction: `reduction.keep` is the share of the patch tokens that each stage keeps, 1 at first. A compiled graph
            keeps the value that it was compiled with.
        mean, std: mean and standard deviation of each channel, for pixels in [0, 1].
        config: configuration of the model.
    """

    def __init__(self, config: ModelConfig, dtype: ms.Type = ms.float32, compute: ms.Type | None = None) -> None:
        super().__init__(config, dtype, compute)
        self.reduction = Reduction()
        self.mean, self.std = DataConfig().normalization(config.in_chans)

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        encoder: EncoderName | None = None,
        dtype: ms.Type = ms.float32,
        compute: ms.Type | None = None,
    ) -> Self:
        """Load the encoder in `path`.

        Args:
            path: run folder, checkpoint, or encoder folder that `pcae convert` wrote.
            encoder: student or teacher of a run. Default: the student; of a fine-tuned run, the weights that were
                scored.
            dtype: dtype of the parameters.
            compute: dtype of the matrix products; None for `dtype`.

        Raises:
            CheckpointError: there is no encoder, or it is damaged.
            ConfigError: `encoder` is given for an encoder folder, which holds one encoder.
        """
        pretrained.refuse_choice(Path(path), encoder)
        found = pretrained.load(Path(path), encoder)
        cell = cls(found.config.model, dtype, compute)
        model.load(cell, {name: Tensor(value, dtype) for name, value in found.encoder.items()})
        cell.mean, cell.std = found.config.loader.normalization(found.config.model.in_chans)
        return cell

    # The ratio is in `reduction`, not an argument
    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:  # type: ignore[override]
        """Normalised images (B, C, H, W) of any floating dtype -> hidden state, kept ids, logits.

        The hidden state is the P prefix tokens, the class token first, and the tokens that stay (B, P + k, D) in the
        parameters' dtype. Kept ids are their patches (B, k), logits (B, classes) or None without a head.

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
        """
        _compat.check_images(images.shape, self.config.in_chans, self.config.image_size)
        return super().construct(images.astype(self.cls_token.dtype), self.reduction.keep)
