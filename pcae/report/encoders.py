"""Encoders to draw, with the tokens that they keep at each stage.

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
        title: title on a page.
        model: architecture.
        normalization: mean and std, one number per channel each.
        loader: settings of image reading.
    """

    title: str
    model: ModelConfig
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    loader: DataConfig

    @abc.abstractmethod
    def stages(self, images: Floats) -> tuple[list[StageOutput], list[str]]:
        """The stages for normalised images (B, C, H, W), and warnings of one line each."""

    @abc.abstractmethod
    def splits(self, images: Floats, first: int) -> list[PretrainingSplit] | str:
        """The split of each image in a pre-training step, or the reason why there is none.

        Args:
            first: number of the first image among all images to draw; the noise depends on it.
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
            encoder: as in `pretrained.load`.
            keep: share of the patch tokens that each stage keeps. Default: as in training.
            seed: seed of the noise that splits the patches. Default: the run's.

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
        """As in `DrawnEncoder`. Warns if the backend's choice contradicts its scores."""
        found = encoder_stages(self._backend, self.model, self._encoder, images, self._keep)
        warnings = []
        for stage in found:
            worst = float(excess(stage).max())
            if not worst <= SCORE_TOLERANCE:
                warnings.append(
                    f"after block {stage.block + 1} the backend {self._backend.name!r} kept a token whose score is "
                    f"{worst:.2g} above that of one it dropped; check the backend with pcae conformance"
                )
        return found, warnings

    @override
    def splits(self, images: Floats, first: int) -> list[PretrainingSplit] | str:
        """As in `DrawnEncoder`, from the backend's `pretraining_forward`."""
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
