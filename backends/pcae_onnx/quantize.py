"""Narrower models (fp16, int8), and their agreement and speed compared with the float32 model.

Letters: n images, B images of a batch.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pcae_core.errors import ModelFileError
from pcae_onnx.info import ModelInfo
from pcae_onnx.session import InferenceSession, Outputs

KEPT_IDS_LIMIT, COSINE_LIMIT, TOP1_LIMIT, SPEED_LIMIT = 0.95, 0.99, 0.98, 1.0
"""Limits of agreement and speed. Lower values cause a warning."""
MEASURED_KEEP = 0.7
_ROUNDS = 7
_ROUND_SECONDS = 0.05  # shorter rounds measure the clock and other programs
_BATCH = 8


@dataclass(frozen=True)
class Agreement:
    """Agreement of a narrower model with the float32 model.

    Attributes:
        images: number of compared images.
        keep: keep ratio of the comparison.
        kept_ids: mean share of the kept patches that both models keep.
        cosine: mean cosine of the features of tokens that both models keep, prefix tokens included.
        top1: share of the images with the same best class; None without a head.
        speed: pairs of batch size and ratio of CPU times, float32 to narrow: medians of interleaved rounds.
    """

    images: int
    keep: float
    kept_ids: float
    cosine: float
    top1: float | None
    speed: tuple[tuple[int, float], ...]

    def warnings(self) -> list[str]:
        """One line about each value below its limit."""
        found = [("kept patches", self.kept_ids, KEPT_IDS_LIMIT), ("cosine of features", self.cosine, COSINE_LIMIT)]
        if self.top1 is not None:
            found.append(("same best class", self.top1, TOP1_LIMIT))
        lines = [f"{name} {value:.3f} is below {limit}" for name, value, limit in found if value < limit]
        slow = [f"at batch {batch} it is slower than float32 ({x:.2f} x)" for batch, x in self.speed if x < SPEED_LIMIT]
        return lines + slow


def to_int8(source: Path, target: Path, info: ModelInfo) -> None:
    """Quantise the matrices of the model at `source`, dynamically and per channel. `info` becomes the metadata.

    Raises:
        OSError: the file cannot be written.
        ModelFileError: the quantiser fails, for example on a file that a full disk cut off.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = source.with_name(f"{source.name}.data").exists()
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantiser recommends a preprocessing that this graph does not need
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True},
        )
    except OSError:
        raise
    except Exception as error:  # the quantiser does not check whether its temporary file was written whole
        raise ModelFileError(f"ONNX Runtime cannot quantise the model; is the disk full? ({error})") from None
    finally:
        root.setLevel(level)
    model = onnx.load(target, load_external_data=False)
    onnx.helper.set_model_props(model, info.to_metadata())
    model.producer_name = "pcae"
    onnx.save(model, target)


def measure(exact: InferenceSession, narrow: InferenceSession, images: NDArray[Any]) -> Agreement:
    """Compare two models on normalised images, float32 (n, C, H, W); at `MEASURED_KEEP` if the ratio is an input."""
    ratio = exact.info.schedule.keep or MEASURED_KEEP
    keep, num_prefix = ratio if exact.dynamic_keep else None, exact.info.model.num_prefix_tokens
    shares, cosines, same = [], [], []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        one, other = exact.run(batch, keep), narrow.run(batch, keep)
        for i in range(len(batch)):
            share, cosine = _compare_row(one, other, i, num_prefix)
            shares.append(share)
            cosines.append(cosine)
        if one.logits is not None and other.logits is not None:
            same.append(one.logits.argmax(axis=1) == other.logits.argmax(axis=1))
    top1 = float(np.concatenate(same).mean()) if same else None
    speed = tuple(
        (size, _speed(exact, narrow, np.resize(images, (size, *images.shape[1:])), keep)) for size in (1, _BATCH)
    )
    return Agreement(len(images), ratio, float(np.mean(shares)), float(np.mean(cosines)), top1, speed)


def _compare_row(one: Outputs, other: Outputs, row: int, num_prefix: int) -> tuple[float, float]:
    ids, places, other_places = np.intersect1d(one.kept_ids[row], other.kept_ids[row], return_indices=True)
    prefix = np.arange(num_prefix)
    a = one.last_hidden_state[row][np.concatenate([prefix, num_prefix + places])]
    b = other.last_hidden_state[row][np.concatenate([prefix, num_prefix + other_places])]
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return len(ids) / one.kept_ids.shape[1], float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())


def _speed(exact: InferenceSession, narrow: InferenceSession, batch: NDArray[Any], keep: float | None) -> float:
    calls = [lambda session=session: session.run(batch, keep) for session in (exact, narrow)]
    repeats = [_repeats(call) for call in calls]
    ratios = []
    for _ in range(_ROUNDS):
        one, other = (_seconds(call, count) / count for call, count in zip(calls, repeats, strict=True))
        ratios.append(one / other)
    return statistics.median(ratios)


def _repeats(call: Callable[[], object]) -> int:
    """Number of calls in a round."""
    count = 1
    while (seconds := _seconds(call, count)) < _ROUND_SECONDS:
        count = math.ceil(count * min(10.0, 1.2 * _ROUND_SECONDS / max(seconds, 1e-9)))
    return count


def _seconds(call: Callable[[], object], count: int) -> float:
    """CPU time of `count` calls. It does not include the time of other programs."""
    begin = time.process_time()
    for _ in range(count):
        call()
    return time.process_time() - begin
