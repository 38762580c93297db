"""Verify that an exported model computes the same as the reference.

The file runs on ONNX Runtime at batch 1, 2 and 7, and the graph on ONNX's own evaluator. Both are compared with the
NumPy reference in float64. Large models are verified with fewer distinct images, repeated to fill the batches, and
fewer pairs of batch and ratio. The evaluator is slow, so it runs a narrow model with the same graph instead.
Letters: B images, D width, k patches kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from pcae_core import cost, parameters, registry
from pcae_core.config import ModelConfig
from pcae_core.errors import ConformanceError
from pcae_core.reduction import excess
from pcae_onnx import model, runtime, writer
from pcae_onnx.graph import Graph

BATCHES = (1, 2, 7)
KEEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
FEW_KEEPS = (1.0, 0.7, 0.5)
LARGE_MACS = 1_000_000_000
"""Multiply-accumulates of one image above which a model counts as large."""
REFERENCE_MACS = 20_000_000_000
"""Multiply-accumulates of the reference for the images of a large model: some seconds."""
TIE_MARGIN = 1e-5
"""Scores that are closer than this may change places in float32."""
_TWIN_HEAD_DIM = 8


@dataclass(frozen=True)
class Expected:
    """Outputs of the reference for images (B, C, H, W), float64.

    Attributes:
        margins: smallest distance (B,) between the scores of a token that stays and a token that is dropped.
    """

    last_hidden_state: NDArray[Any]
    kept_ids: NDArray[Any]
    logits: NDArray[Any] | None
    margins: NDArray[Any]


@dataclass
class Report:
    """Report of a verification.

    Attributes:
        atol: largest accepted difference.
        runs: runtime, batch size and keep ratio of each run.
        compared: number of compared images.
        tied: number of images that were left out, because scores nearly tie and rounding decides.
        worst: largest difference of a feature or logit.
    """

    atol: float
    runs: list[tuple[str, int, float]] = field(default_factory=list)
    compared: int = 0
    tied: int = 0
    worst: float = 0.0


def expected(config: ModelConfig, weights: Mapping[str, NDArray[Any]], images: NDArray[Any], keep: float) -> Expected:
    """Run the reference's encoder on images (B, C, H, W). It reads and widens one parameter at a time."""
    trace = registry.create("numpy").encode_stages(config, weights, images, keep)
    margins = -np.max([excess(stage) for stage in trace.stages], axis=0)
    output = trace.output
    return Expected(output.last_hidden_state, output.kept_ids, output.logits, margins)


def verify(
    path: Path, config: ModelConfig, weights: Mapping[str, NDArray[Any]], keep: float | None, atol: float, opset: int
) -> Report:
    """Compare the float32 model at `path` with the reference.

    Args:
        weights: parameters of the encoder by canonical name.
        keep: ratio of the model; None if it is an input.

    Raises:
        ConformanceError: the outputs differ by more than `atol`, or the model keeps other tokens.
        ModelFileError: a runtime refuses the file.
    """
    report = Report(atol)
    _check_format(path)
    large = cost.encoder_macs(config) > LARGE_MACS
    _verify_runtime(report, path, config, weights, keep, large)
    if large:
        config = _twin(config)
        weights = parameters.initial_parameters(config, seed=0)
        graph = Graph(opset)
        model.encoder(graph, config, weights, keep, logits=bool(config.num_classes))
        proto = onnx.load_from_string(writer.to_bytes(graph.proto("twin", {}), graph.weights))
    else:
        proto = onnx.load(path)
    _verify_evaluator(report, proto, config, weights, keep)
    return report


def _check_format(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise ConformanceError(f"{path} is not valid ONNX: {error}") from None


def _verify_runtime(
    report: Report,
    path: Path,
    config: ModelConfig,
    weights: Mapping[str, NDArray[Any]],
    keep: float | None,
    large: bool,
) -> None:
    if keep is not None:
        pairs = [(batch, keep) for batch in BATCHES]
    elif large:
        pairs = list(zip(BATCHES, FEW_KEEPS, strict=True))
    else:
        pairs = [(batch, ratio) for ratio in KEEPS for batch in BATCHES]
    ratios = {ratio for _, ratio in pairs}
    macs = sum(cost.encoder_macs(config, ratio) for ratio in ratios)
    distinct = min(max(BATCHES), max(1, REFERENCE_MACS // macs)) if large else max(BATCHES)
    images = random_images(config, distinct)
    answers = {ratio: expected(config, weights, images, ratio) for ratio in ratios}  # before the runtime needs memory
    session = runtime.session(path)
    names = [output.name for output in session.get_outputs()]
    for batch, ratio in pairs:
        rows = np.arange(batch) % distinct
        outputs = session.run(None, _feeds(images[rows], keep, ratio))
        _compare(report, "ONNX Runtime", dict(zip(names, outputs, strict=True)), _rows(answers[ratio], rows), ratio)


def _verify_evaluator(
    report: Report, proto: onnx.ModelProto, config: ModelConfig, weights: Mapping[str, NDArray[Any]], keep: float | None
) -> None:
    evaluator = ReferenceEvaluator(proto)
    names = [output.name for output in proto.graph.output]
    images = random_images(config, 2)
    for ratio in FEW_KEEPS if keep is None else (keep,):
        outputs = list(evaluator.run(None, _feeds(images, keep, ratio)))
        answer = expected(config, weights, images, ratio)
        _compare(report, "ONNX's evaluator", dict(zip(names, outputs, strict=True)), answer, ratio)


def _rows(answer: Expected, rows: NDArray[Any]) -> Expected:
    logits = None if answer.logits is None else answer.logits[rows]
    return Expected(answer.last_hidden_state[rows], answer.kept_ids[rows], logits, answer.margins[rows])


def _feeds(images: NDArray[Any], keep: float | None, ratio: float) -> dict[str, NDArray[Any]]:
    dynamic = {"keep": np.array(ratio, dtype=np.float32)} if keep is None else {}
    return {"pixel_values": images} | dynamic


def random_images(config: ModelConfig, count: int) -> NDArray[Any]:
    """Random normalised images, float32 (count, C, H, W)."""
    shape = (count, config.in_chans, config.image_size, config.image_size)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _twin(config: ModelConfig) -> ModelConfig:
    """A narrow model with the same tokens, blocks and stages."""
    dim = _TWIN_HEAD_DIM * config.num_heads
    update = {"embed_dim": dim, "patch_size": 2, "image_size": 2 * config.grid_size}
    return config.model_copy(update=update | {"num_classes": min(config.num_classes, 10)})


def _compare(report: Report, who: str, got: Mapping[str, NDArray[Any]], want: Expected, keep: float) -> None:
    """Compare one run and add it to the report. Raises ConformanceError."""
    batch = len(want.kept_ids)
    where = f"{who} at batch {batch}, keep {keep:g}"
    report.runs.append((who, batch, keep))
    if got["kept_ids"].shape != want.kept_ids.shape:
        raise ConformanceError(f"{where} keeps {got['kept_ids'].shape} patches, the reference {want.kept_ids.shape}")
    same = (got["kept_ids"] == want.kept_ids).all(axis=1)
    clear = want.margins > TIE_MARGIN
    if (clear & ~same).any():
        row = int(np.flatnonzero(clear & ~same)[0])
        raise ConformanceError(
            f"{where} keeps other patches of image {row} than the reference: {got['kept_ids'][row].tolist()}, not "
            f"{want.kept_ids[row].tolist()}, although no scores tie"
        )
    report.compared += int(same.sum())
    report.tied += int((~same).sum())
    for name in ("last_hidden_state", "logits"):
        if name in got and same.any():
            difference = float(np.abs(got[name][same] - getattr(want, name)[same]).max())
            report.worst = max(report.worst, difference)
            if not difference <= report.atol:
                raise ConformanceError(
                    f"{where}: {name} differs from the reference by {difference:.3g}, more than {report.atol:g}"
                )
