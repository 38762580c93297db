"""An exported model to draw, with the scores and kept ids of its own stages.

Letters: B images, C channels, H = W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typing_extensions import override

from pcae.report.encoders import DrawnEncoder
from pcae.report.figure import PretrainingSplit
from pcae_core.config import DataConfig
from pcae_core.contract import Floats, StageOutput
from pcae_core.errors import ConfigError
from pcae_onnx.session import InferenceSession
from pcae_onnx.watch import StageSession


class DrawnExport(DrawnEncoder):
    """An exported model to draw."""

    def __init__(self, path: Path, keep: float | None = None) -> None:
        """Load `path`, an ONNX file or its folder.

        Args:
            keep: share of the patch tokens that each stage keeps, for a model with a keep input. Default: as in
                pre-training.

        Raises:
            ModelFileError: as `InferenceSession`, or the graph does not name its stages.
            ConfigError: `keep` is out of range, or fixed in the model.
        """
        path = path / "model.onnx" if path.is_dir() else path
        self._session = InferenceSession(path)
        info = self._session.info
        if keep is not None and not self._session.dynamic_keep:
            raise ConfigError(
                f"the keep ratio of {path} is fixed at {info.schedule.keep:g}; export with --dynamic-keep to choose it"
            )
        self.model, self.normalization = info.model, (info.preprocessing.mean, info.preprocessing.std)
        self.loader = DataConfig(grey_bits=info.preprocessing.grey_bits)
        self._keep = (info.model.reduction.keep if keep is None else keep) if self._session.dynamic_keep else None
        used = info.schedule.keep if self._keep is None else self._keep
        self._stages = StageSession(path, info)
        self.title = f"{info.name} ({path.name}), {info.dtype}, keep {used:g}, ONNX Runtime"

    @override
    def stages(self, images: Floats) -> tuple[list[StageOutput], list[str]]:
        """As in `DrawnEncoder`. Warns if the model keeps other tokens than the graph with stages as outputs."""
        found = self._stages.run(images, self._keep)
        every = np.tile(np.arange(self.model.num_patches), (len(images), 1))
        drawn = found[-1].kept_ids if found else every
        same = np.array_equal(drawn, self._session.run(images, self._keep).kept_ids)
        return list(found), [] if same else ["the model keeps other tokens than those drawn after the last stage"]

    @override
    def splits(self, images: Floats, first: int) -> list[PretrainingSplit] | str:
        return "an exported model is an encoder without teacher and decoder; draw its checkpoint to see pre-training"
