"""`OnnxBackend`: inference. Every function is an ONNX graph on ONNX Runtime; arrays are NumPy's.

`encode` runs the graph that `pcae export` writes. So the conformance suite compares exported models with the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pcae_core.config import ModelConfig
from pcae_core.contract import Array, Backend, Center, EncoderOutput, EncoderTrace
from pcae_core.errors import BackendError
from pcae_core.parameters import encoder_shapes
from pcae_core.reduction import check_keep
from pcae_core.shapes import check_images, check_restore_grid
from pcae_onnx import CAPABILITIES, model, ops, runtime, stages, writer
from pcae_onnx.graph import Graph
from pcae_onnx.info import arrays_sha256

Build = Callable[..., list[str]]
"""Function that takes a graph and the names of its inputs, adds nodes, and returns the names of the results."""
_CACHED_MODELS = 4  # sessions with weights


def _wide(dtype: str) -> str:
    """Dtype of scores."""
    return "float64" if dtype == "float64" else "float32"


class OnnxBackend(Backend):
    """Its methods are documented in `pcae_core.contract.Backend`."""

    name = "onnx"
    capabilities = CAPABILITIES

    def __init__(self, device: str = "cpu") -> None:
        if device == "auto":
            device = "cuda" if runtime.is_available("cuda") else "cpu"
        if device not in CAPABILITIES.devices:
            raise BackendError(
                f"the onnx backend runs on the devices {', '.join(CAPABILITIES.devices)}, not {device!r}; choose one "
                "with --device, or --device auto"
            )
        self.device = device
        self._functions: dict[tuple[Any, ...], onnxruntime.InferenceSession] = {}
        self._models: dict[tuple[Any, ...], onnxruntime.InferenceSession] = {}
        self._call(("probe",), lambda g, x: [g.add("Abs", x)], np.zeros(1, np.float32))  # raises without the device

    def asarray(self, x: Array, dtype: str | None = None) -> NDArray[Any]:
        return np.array(x, dtype=dtype)

    def to_numpy(self, x: Array) -> NDArray[Any]:
        return np.array(x)

    def patchify(self, images: Array, patch_size: int) -> NDArray[Any]:
        images, p = np.asarray(images), patch_size
        _, chans, height, width = images.shape
        rows, columns = height // p, width // p

        def build(g: Graph, x: str) -> list[str]:
            grid = g.add("Reshape", x, g.ints(0, chans, rows, p, columns, p))
            grid = g.add("Transpose", grid, perm=[0, 2, 4, 1, 3, 5])
            return [g.add("Reshape", grid, g.ints(0, rows * columns, chans * p * p))]

        return self._call(("patchify", p, *images.shape[1:]), build, images)[0]

    def similarity_scores(self, tokens: Array, center: Center = "unit") -> NDArray[Any]:
        tokens = np.asarray(tokens)
        wide = _wide(tokens.dtype.name)

        def build(g: Graph, x: str) -> list[str]:
            return [ops.similarity_scores(g, g.cast(x, wide), wide, center)]

        return self._call(("scores", center), build, tokens)[0]

    def select_tokens(self, scores: Array, k: int) -> NDArray[Any]:
        scores = _sortable(scores)

        def build(g: Graph, x: str) -> list[str]:
            return [ops.ascending(g, ops.slice_tokens(g, ops.order(g, x, scores.dtype.name), 0, k), k)]

        return self._call(("select", k), build, scores)[0]

    def gather_tokens(self, tokens: Array, ids: Array) -> NDArray[Any]:
        return self._call(
            ("gather",), lambda g, x, i: [ops.gather(g, x, i)], np.asarray(tokens), np.asarray(ids, dtype=np.int64)
        )[0]

    def reduce_tokens(
        self, tokens: Array, k: int, num_prefix_tokens: int = 0, center: Center = "unit"
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        tokens = np.asarray(tokens)

        def build(g: Graph, x: str) -> list[str]:
            return list(ops.reduce_tokens(g, x, k, num_prefix_tokens, center, tokens.dtype.name)[:2])

        kept, ids = self._call(("reduce", k, num_prefix_tokens, center), build, tokens)
        return kept, ids

    def restore_grid(
        self, tokens: Array, kept_ids: Array, num_patches: int, features: Array | None = None
    ) -> NDArray[Any]:
        tokens, ids = np.asarray(tokens), np.asarray(kept_ids, dtype=np.int64)
        others = [] if features is None else [np.asarray(features)]
        check_restore_grid(tokens.shape, ids.shape, num_patches, others[0].shape if others else None)
        wide = _wide(others[0].dtype.name) if others else "float32"

        def build(g: Graph, x: str, i: str, *known: str) -> list[str]:
            return [ops.restore_grid(g, x, i, num_patches, g.cast(known[0], wide) if known else None, wide)]

        return self._call(("grid", num_patches), build, tokens, ids, *others)[0]

    def encode(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderOutput:
        output, _ = self._encode(config, parameters, images, keep, [])
        return output

    def encode_stages(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderTrace:
        check_keep(keep)
        every = [stages.scores_name(i) for i in range(config.reduction.num_stages)]
        watched = sorted({*every, *stages.names(config, keep)})
        output, values = self._encode(config, parameters, images, keep, watched)
        return EncoderTrace(output, stages.read(config, values, len(output.kept_ids)))

    def _encode(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float, watched: list[str]
    ) -> tuple[EncoderOutput, dict[str, NDArray[Any]]]:
        """The output of `encode`, and the values of the graph with the given names."""
        check_keep(keep)
        check_images(np.shape(images), config.in_chans, config.image_size)
        own = _arrays(parameters, encoder_shapes(config))
        dtype = _model_dtype(own)

        def build(g: Graph) -> None:
            model.encoder(g, config, own, float(keep), bool(config.num_classes), every_score=bool(watched))
            for name in watched:
                g.output(name, f"{name}.watched")

        session = self._model(("encoder", config, keep, bool(watched), arrays_sha256(own)), build, dtype)
        feeds = {"pixel_values": np.asarray(images, dtype=np.float32, order="C")}
        found = session.run(None, feeds)
        hidden, ids, *logits = found[: len(found) - len(watched)]
        head = logits[0].astype(dtype, copy=False) if logits else None
        values = dict(zip(watched, found[len(found) - len(watched) :], strict=True))
        return EncoderOutput(hidden.astype(dtype, copy=False), ids, head), values

    def _call(self, key: tuple[Any, ...], build: Build, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """Run the graph that `build` makes. It is made once for each key and the inputs' dtypes and ranks."""
        arrays = tuple(np.asarray(x, order="C") for x in arrays)
        key = (*key, *((x.dtype.name, x.ndim) for x in arrays))
        names = [f"input_{i}" for i in range(len(arrays))]
        if key not in self._functions:
            g = Graph()
            for name, x in zip(names, arrays, strict=True):
                g.input(name, x.dtype.name, [f"{name}_{axis}" for axis in range(x.ndim)])
            for i, value in enumerate(build(g, *names)):
                g.output(value, f"output_{i}")
            self._functions[key] = self._load(g)
        outputs: list[NDArray[Any]] = self._functions[key].run(None, dict(zip(names, arrays, strict=True)))
        return outputs

    def _model(self, key: tuple[Any, ...], build: Callable[[Graph], None], dtype: str) -> onnxruntime.InferenceSession:
        """The session of a model with weights. The last few sessions are kept."""
        key = (*key, dtype)
        if key not in self._models:
            g = Graph(dtype=dtype)
            build(g)
            while len(self._models) >= _CACHED_MODELS:
                self._models.pop(next(iter(self._models)))
            self._models[key] = self._load(g)
        return self._models[key]

    def _load(self, g: Graph) -> onnxruntime.InferenceSession:
        return runtime.session(writer.to_bytes(g.proto("pcae", {}), g.weights), self.device)


def _sortable(x: Array) -> NDArray[Any]:
    """An array that runtimes can sort: float16 becomes float32."""
    array = np.asarray(x, order="C")
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def _arrays(parameters: Mapping[str, Array], names: Mapping[str, object]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(parameters[name]) for name in names}


def _model_dtype(parameters: Mapping[str, NDArray[Any]]) -> str:
    dtype = parameters["cls_token"].dtype.name
    if dtype not in CAPABILITIES.dtypes:
        raise BackendError(f"the onnx backend computes models in {' or '.join(CAPABILITIES.dtypes)}, not in {dtype}")
    return dtype
