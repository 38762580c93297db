"""Watching an exported model drop tokens: its own scores and kept ids of each stage, read from within its graph.

Letters: B images, C channels, H = W pixels, n patches that enter a stage, k patches that stay.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from pcae.report.figure import Split
from pcae.report.stages import Ids, Stage
from pcae.report.subjects import Subject
from pcae_core.config import DataConfig, ModelConfig
from pcae_core.contract import Floats
from pcae_core.errors import ConfigError, ModelFileError
from pcae_onnx import MEMORY_MIB, runtime
from pcae_onnx.session import InferenceSession


class OnnxSubject(Subject):
    """An exported model to draw."""

    def __init__(self, path: Path, keep: float | None = None) -> None:
        """Load `path`, an ONNX file or its folder.

        Args:
            keep: share of the patch tokens that each stage keeps, for a model that takes it as an input; by default
                as in pre-training.

        Raises:
            ModelFileError: as `InferenceSession`; also a graph whose stages are not found.
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
        self._blocks = _dropping_blocks(info.model, used or 1.0, self._session.dynamic_keep)
        self._observed = _observed(path, len(self._blocks)) if self._blocks else None
        self.title = f"{info.name} ({path.name}), {info.dtype}, keep {used:g}, ONNX Runtime"

    def stages(self, images: Floats) -> tuple[list[Stage], list[str]]:
        """See `Subject`; warns when the model as it is keeps other tokens than while it is watched."""
        pixels = np.asarray(images, dtype=np.float32)
        feeds = {} if self._keep is None else {"keep": np.array(self._keep, dtype=np.float32)}
        step = self._session.part or len(pixels)
        values = runtime.run_in_parts(self._observed, pixels, feeds, step) if self._observed else []
        ids: Ids = np.tile(np.arange(self.model.num_patches), (len(images), 1))
        found = []
        for i, block in enumerate(self._blocks):
            scores, chosen = values[2 * i], values[2 * i + 1]
            _check_stage(scores, chosen, ids)
            kept = np.take_along_axis(ids, chosen, axis=1)
            found.append(Stage(block, ids, kept, scores))
            ids = kept
        same = np.array_equal(ids, self._session.run(pixels, self._keep).kept_ids)
        return found, [] if same else ["the model keeps other tokens than those drawn after the last stage"]

    def splits(self, images: Floats, first: int) -> list[Split] | str:
        """See `Subject`."""
        return "an exported model is an encoder without teacher and decoder; draw its checkpoint to see pre-training"


def _check_stage(scores: Floats, chosen: Ids, ids: Ids) -> None:
    fits = scores.shape == ids.shape and chosen.shape[:1] == ids.shape[:1] and chosen.ndim == 2
    if not fits or chosen.dtype != np.int64 or (chosen < 0).any() or (chosen >= ids.shape[1]).any():
        raise ModelFileError("the stages in the model's graph do not fit its images; export the model again")


def _dropping_blocks(model: ModelConfig, keep: float, dynamic: bool) -> list[int]:
    """Blocks after which the graph drops tokens: a graph of a fixed ratio leaves out the stages at which all stay."""
    found, count = [], model.num_patches
    for block, kept in model.kept_after_block(model.num_patches, keep).items():
        if dynamic or kept != count:
            found.append(block)
        count = kept
    return found


def _observed(path: Path, num_stages: int) -> onnxruntime.InferenceSession:
    """The model with each stage's scores (B, n) and the places (B, k) of those that stay as its only outputs.

    Each stage sorts twice: by score, then what it chose by position (`ops.lowest`).
    """
    proto = onnx.load(path, load_external_data=False)
    sorts = [node for node in proto.graph.node if node.op_type == "TopK"]
    if len(sorts) != 2 * num_stages:
        raise ModelFileError(f"the stages of {path} are not found in its graph; export the model again")
    values = [name for by_score, by_place in zip(sorts[::2], sorts[1::2], strict=True)
              for name in (by_score.input[0], by_place.output[0])]  # fmt: skip
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    return runtime.session(proto.SerializeToString(), external_data=path.parent, memory_mib=MEMORY_MIB)
