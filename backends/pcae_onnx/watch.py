"""Watch an exported model drop tokens: the scores and kept ids that its own graph computes at each stage.

Letters: B images, C channels, H = W pixels, n patches that enter a stage, k patches that stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from pcae_core.contract import StageOutput
from pcae_core.errors import ModelFileError
from pcae_core.reduction import misfit
from pcae_onnx import MEMORY_MIB, runtime, stages
from pcae_onnx.info import ModelInfo
from pcae_onnx.session import images_together


class StageSession:
    """An exported model whose outputs are its stages."""

    def __init__(self, path: Path, info: ModelInfo) -> None:
        """Load the ONNX file `path`, whose metadata is `info` (`InferenceSession.info`).

        Raises:
            ModelFileError: the graph does not name its stages, as in models that former versions exported.
        """
        self._info, self._names = info, stages.names(info.model, info.schedule.keep)
        self._session = _observed(path, self._names) if self._names else None

    def run(self, pixels: NDArray[Any], keep: float | None = None) -> tuple[StageOutput, ...]:
        """The stages of one batch (B, C, H, W). With a fixed ratio, stages that keep all patches are left out.

        Args:
            keep: share of the patch tokens that each stage keeps, for a model with the input `keep`.

        Raises:
            ModelFileError: the graph's stages do not fit the images.
        """
        if self._session is None:
            return ()
        feeds = {} if keep is None else {"keep": np.array(keep, dtype=np.float32)}
        step = images_together(self._info, "cpu") or len(pixels)
        found = dict(zip(self._names, runtime.run_in_parts(self._session, pixels, feeds, step), strict=True))
        read = stages.read(self._info.model, found, len(pixels))
        odd = any((stage.scores.dtype.kind, stage.kept_ids.dtype) != ("f", np.int64) for stage in read)
        if odd or misfit(read, len(pixels), self._info.model.num_patches) is not None:
            raise ModelFileError("the stages in the model's graph do not fit its images; export the model again")
        return read


def _observed(path: Path, names: list[str]) -> onnxruntime.InferenceSession:
    """A session of the model with these values as its only outputs."""
    proto = onnx.load(path, load_external_data=False)
    if not set(names) <= {name for node in proto.graph.node for name in node.output}:
        raise ModelFileError(f"the stages of {path} are not found in its graph; export the model again")
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return runtime.session(proto.SerializeToString(), external_data=path.parent, memory_mib=MEMORY_MIB)
