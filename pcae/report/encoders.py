"""Encoders to draw: each says which tokens it keeps at each stage.

Letters: B images, C channels, H = W pixels.
"""

from __future__ import annotations

import abc
import functools
from pathlib import Path

from typing_extensions import override

from pcae.report.figure import PretrainingSplit
from pcae.report.stages import SCORE_TOLERANCE, encoder_stages
from pcae_core import randomness
from pcae_core.config import DataConfig, EncoderName, ModelConfig
from pcae_core.contract import Backend, Floats, StageOutput, TrainingBackend, TrainState
from pcae_core.reduction import excess
from pcae_core.storage import pretrained
from pcae_core.storage.run import Run
from pcae_core.storage.stored_encoder import StoredEncoder


class DrawnEncoder(abc.ABC):
    """An encoder to draw.

    Attributes:
        title: what a page calls it.
        model: its architecture.
        normalization: mean and std, a number for each channel.
        loader: of the images.
    """

    title: str
    model: ModelConfig
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    loader: DataConfig

    @abc.abstractmethod
    def stages(self, images: Floats) -> tuple[list[StageOutput], list[str]]:
        """What happens at each stage to normalised images (B, C, H, W), and warnings, a line each."""

    @abc.abstractmethod
    def splits(self, images: Floats, first: int) -> list[PretrainingSplit] | str:
        """What a pre-training step would do with each image, or why that cannot be told.

        Args:
            first: number of the first of the images among all that are drawn: the noise depends on it.
        """


class DrawnCheckpoint(DrawnEncoder):
    """The encoder in a checkpoint, on any backend."""

    def __init__(
        self,
        path: Path,
        backend: Backend,
        encoder: EncoderName | None = None,
        keep: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Open `path`, a run's folder, a checkpoint's or an encoder's.

        Args:
            encoder: as `pretrained.load` takes it.
            keep: share of the patch tokens that each stage keeps, by default as in training.
            seed: of the noise that splits the patches, by default the run's.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        self._source = path if pretrained.is_encoder(path) else Run.open(path)
        stored = StoredEncoder(self._source, encoder)
        config = stored.config
        self.model, self.normalization = config.model, config.loader.normalization(config.model.in_chans)
        self.loader = config.loader
        self._backend, self._path, self._encoder = backend, stored.path, dict(stored)
        self._keep = config.model.reduction.keep if keep is None else keep
        self._pretrains = stored.step is not None and not config.model.num_classes
        self._seed = config.seed if seed is None else seed
        run = f"{stored.path.parent.parent.name or stored.path}, step {stored.step}, {stored.encoder}"
        self.title = stored.path.name if stored.step is None else run
        self.title += f", keep {self._keep:g}, {backend.name}"

    @override
    def stages(self, images: Floats) -> tuple[list[StageOutput], list[str]]:
        """Warns where the backend's choice and its scores contradict each other."""
        found = encoder_stages(self._backend, self.model, self._encoder, images, self._keep)
        warnings = []
        for stage in found:
            worst = float(excess(stage).max())
            if not worst <= SCORE_TOLERANCE:
                warnings.append(
                    f"after block {stage.block + 1} the backend {self._backend.name!r} kept a token whose score is "
                    f"{worst:.2g} above that of one it dropped; pcae conformance tells more"
                )
        return found, warnings

    @override
    def splits(self, images: Floats, first: int) -> list[PretrainingSplit] | str:
        """As the chosen backend's `pretraining_forward` splits and reduces."""
        if not self._pretrains:
            return "this checkpoint holds no teacher and decoder, so there is no pre-training to show"
        if not isinstance(self._backend, TrainingBackend):
            return f"the backend {self._backend.name!r} does not train; choose another --backend to see pre-training"
        noise = randomness.mask_noise(self._seed, 0, first, len(images), self.model.num_patches)
        state = self._state
        out = self._backend.pretraining_forward(self.model, state.student, state.teacher, images, noise)
        visible, targets = (self._backend.to_numpy(ids) for ids in (out.visible_ids, out.target_ids))
        return [PretrainingSplit(*ids) for ids in zip(visible, targets, strict=True)]

    @functools.cached_property
    def _state(self) -> TrainState:
        return Run.open(self._source).load(self._path).state
