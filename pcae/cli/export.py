"""`pcae export`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from pcae.cli.parsing import parse
from pcae_core.config import EncoderName
from pcae_core.errors import ConfigError, DataError
from pcae_core.storage.stored_encoder import StoredEncoder

if TYPE_CHECKING:
    from pcae_core.storage.pretrained import EncoderInfo
    from pcae_onnx.export import Exported

DESCRIPTION = """Export an encoder to an ONNX model that runs without PCAE, and verify it against the NumPy reference.

Examples:
  pcae export runs/demo models/demo --dynamic-keep
  pcae export runs/demo models/demo-int8 --keep 0.7 --dtype int8 --data data/fashion-mnist"""

MEASURED_IMAGES = 128


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae export`.

    Attributes:
        checkpoint: run folder, checkpoint, or encoder folder that `pcae convert` wrote.
        outdir: folder to write model.onnx, config.json and preprocessor_config.json to.
        task: task of the model. Default: image-classification if the encoder has a label head.
        encoder: student or teacher of a run. The teacher's CLS token is not trained. Of a fine-tuned run, the teacher
            is the moving average of the weights. Default: the student; of a fine-tuned run, the weights that were
            scored.
        opset: ONNX opset. 23 needs ONNX Runtime 1.23; 20 also runs on 1.18.
        dtype: dtype of the weights. fp16 and int8 are compared with fp32, with a warning if they gain little.
        keep: share of the patch tokens that each stage keeps. Default: 1.
        dynamic_keep: make the keep ratio an input of the model.
        keep_default: give the input of --dynamic-keep the default 1. Most tools then fix it at 1 (docs/onnx.md).
        atol: largest accepted difference from the reference.
        data: data set to compare fp16 and int8 with fp32 on; the kinds are those of pcae pretrain.
        triton: folder to write a Triton model repository to as well.
        name: name of the model. Default: the name of outdir.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    outdir: Annotated[Path, tyro.conf.Positional]
    task: Literal["feature-extraction", "image-classification"] | None = None
    encoder: EncoderName | None = None
    opset: Literal[20, 23] = 23
    dtype: Literal["fp32", "fp16", "int8"] = "fp32"
    keep: float | None = None
    dynamic_keep: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    keep_default: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    atol: float = 1e-4
    data: Path | None = None
    triton: Path | None = None
    name: str | None = None


def main(arguments: Sequence[str]) -> None:
    """Parse, export, verify, print the findings."""
    chosen = parse(Arguments, "export", arguments, description=DESCRIPTION)
    if chosen.dynamic_keep and chosen.keep is not None:
        raise ConfigError("--keep fixes the ratio and --dynamic-keep leaves it open; give one of them")
    if chosen.keep_default and not chosen.dynamic_keep:
        raise ConfigError("--keep-default gives a default to the input of --dynamic-keep; give both or neither")
    if chosen.data is not None and chosen.dtype == "fp32":
        raise ConfigError("--data gives images on which fp16 and int8 are measured; leave it out, or give --dtype")
    import pcae_onnx

    pcae_onnx.require("onnx", "onnxruntime")
    from pcae_onnx import export, triton

    stored = StoredEncoder(chosen.checkpoint, chosen.encoder)
    config = stored.config
    fixed = 1.0 if chosen.keep is None else chosen.keep
    options = export.Options(
        task=chosen.task,
        opset=chosen.opset,
        dtype=chosen.dtype,
        keep=None if chosen.dynamic_keep else fixed,
        keep_default=chosen.keep_default,
        atol=chosen.atol,
        name=chosen.name,
        class_names=config.class_names,
    )
    images = None if chosen.data is None else load_images(chosen.data, config)
    done = export.export(config.model, config.loader, stored, chosen.outdir, options, images)
    show(done, on_real_images=images is not None)
    if chosen.triton is not None:
        print(f"wrote {triton.write_repository(done.path, done.info, chosen.triton)} for Triton")


def load_images(path: Path, config: EncoderInfo) -> NDArray[np.float32]:
    """Up to `MEASURED_IMAGES` normalised images (n, C, H, W), spread over the test split, or over the whole data set.

    Images that cannot be read are logged and left out. Raises DataError when none can be read.
    """
    from pcae_core.data import CorruptLog, load_readable, normalize, open_source

    try:
        source = open_source(path, config.model.in_chans, "test", config.loader.reading)
    except DataError:
        source = open_source(path, config.model.in_chans, reading=config.loader.reading)
    count = min(MEASURED_IMAGES, len(source))
    places = np.linspace(0, len(source) - 1, count).astype(int)
    batch, reasons = load_readable(source, places.tolist(), config.model.image_size)
    CorruptLog(source).add(reasons)
    if batch is None:
        raise DataError(f"none of the images in {path} can be read")
    return normalize(batch.images, *config.loader.normalization(config.model.in_chans))


def show(done: Exported, on_real_images: bool) -> None:
    """Print the path, the difference from the reference, and how fp16 or int8 compares with fp32."""
    report, info = done.report, done.info
    keep = "an input" if info.schedule.keep is None else f"{info.schedule.keep:g}"
    print(f"wrote {done.path}: {info.task}, {info.dtype}, keep {keep}, {_megabytes(done.path):.1f} MB")
    by_name = itertools.groupby(report.runs, key=lambda run: run[0])
    runs = ", ".join(f"{len(list(group))} runs of {name}" for name, group in by_name)
    print(f"verified in fp32: {runs}; largest difference {report.worst:.2g}, limit {report.atol:g}; kept ids equal")
    if report.tied:
        left_out = f"{report.tied} of {report.compared + report.tied} images"
        print(f"WARNING: {left_out} were left out: their scores nearly tie, and rounding chose other patches")
    if done.agreement is None:
        return
    found = done.agreement
    top1 = "" if found.top1 is None else f", same best class {found.top1:.3f}"
    kind = "images of --data" if on_real_images else "images of random pixels"
    print(f"measured against fp32 on {found.images} {kind} at keep {found.keep:g}:")
    print(f"  kept patches {found.kept_ids:.3f}, cosine {found.cosine:.4f}{top1}")
    print("  speed " + ", ".join(f"{ratio:.2f} x at batch {batch}" for batch, ratio in found.speed) + " (CPU time)")
    warnings = found.warnings()
    if not on_real_images:
        warnings.append("random pixels say little about its accuracy; give real images with --data")
    for line in warnings:
        print(f"WARNING: {info.dtype}: {line}")


def _megabytes(path: Path) -> float:
    from pcae_onnx.staging import data_files

    return sum(file.stat().st_size for file in (path, *data_files(path))) / 1e6
