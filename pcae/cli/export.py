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

DESCRIPTION = """Write an encoder as an ONNX model that needs nothing of PCAE, and show that it computes the same.

Examples:
  pcae export runs/demo models/demo --dynamic-keep
  pcae export runs/demo models/demo-int8 --keep 0.7 --dtype int8 --data data/fashion-mnist"""

MEASURED_IMAGES = 128


@dataclass(frozen=True)
class Arguments:
    """What `pcae export` takes.

    Attributes:
        checkpoint: a run's folder, one of its checkpoints, or an encoder's folder that `pcae convert` wrote.
        outdir: folder for model.onnx, config.json and preprocessor_config.json.
        task: by default image-classification where there is a label head.
        encoder: the student's, or the teacher's (whose CLS token is not trained; of a fine-tuned run, the moving
            average). By default the student's, and of a fine-tuned run the weights that were scored.
        opset: 23 needs ONNX Runtime 1.23; 20 runs on 1.18 too.
        dtype: fp16 and int8 are measured against fp32, and warn when they are worth little.
        keep: share of the patch tokens that each stage keeps; 1 by default.
        dynamic_keep: make that share an input of the model.
        keep_default: let that input be 1 in runs that do not give it; most tools then fix it at 1 (docs/onnx.md).
        atol: largest difference from the reference that is accepted.
        data: images on which fp16 and int8, and only they, are measured, as pcae pretrain takes them.
        triton: write a model repository for Triton there too.
        name: of the model, by default that of outdir.
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
    """Parse, export, verify, print what was found."""
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
    """Up to `MEASURED_IMAGES` normalised images (n, C, H, W), spread over the test split, or over the whole.

    Those that cannot be read are named and left out.
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
    """What was written, how far it is from the reference, and what a narrower model is worth."""
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
        warnings.append("random pixels say little of what it is worth; name real images with --data")
    for line in warnings:
        print(f"WARNING: {info.dtype}: {line}")


def _megabytes(path: Path) -> float:
    from pcae_onnx.staging import data_files

    return sum(file.stat().st_size for file in (path, *data_files(path))) / 1e6
