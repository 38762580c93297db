"""Encode whole images with fixed weights.

Letters: n images, B images of a batch, C channels, H = W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import DataConfig, ModelConfig
from pcae_core.contract import Array, Backend, EncoderOutput, Floats
from pcae_core.data import CorruptLog, Source, eval_batches, normalize
from pcae_core.parameters import encoder_shapes


class LoadedEncoder:
    """An encoder whose weights are on the device of a backend."""

    def __init__(
        self, backend: Backend, model: ModelConfig, loader: DataConfig, parameters: Mapping[str, Array]
    ) -> None:
        """Move the weights to the device.

        Args:
            loader: settings of image reading and normalisation.
            parameters: parameters by canonical name. Names that the encoder does not have are ignored.
        """
        self.backend, self.model, self._loader = backend, model, loader
        self._parameters = {name: backend.asarray(parameters[name]) for name in encoder_shapes(model)}

    def encode(self, images: Array, keep: float = 1.0) -> EncoderOutput:
        """Encode normalised images (B, C, H, W). Each stage keeps a share `keep` of the patch tokens."""
        return self.backend.encode(self.model, self._parameters, images, keep)

    def collect(
        self,
        source: Source,
        take: Callable[[EncoderOutput], Array],
        keep: float = 1.0,
        batch_size: int = 128,
        log: CorruptLog | None = None,
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Encode all readable images of a source.

        Args:
            take: function from the output of a batch to the rows (B, ...) to collect.
            log: record of unreadable images, as in `eval_batches`.

        Returns:
            The rows (n, ...) of the readable images, and their numbers (n,) in the source.

        Raises:
            DataError, TrainingError: as `eval_batches`.
        """
        mean, std = self._loader.normalization(self.model.in_chans)
        rows, ids = [], []
        for batch in eval_batches(source, self.model, self._loader, batch_size, log):
            rows.append(self.backend.to_numpy(take(self.encode(normalize(batch.images, mean, std), keep))))
            ids.append(batch.ids)
        return np.concatenate(rows), np.concatenate(ids)
