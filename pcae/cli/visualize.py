"""`pcae visualize`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pcae.cli.parsing import parse
from pcae_core.config import EncoderName, Reading
from pcae_core.errors import ConfigError, IncompleteError, listed
from pcae_core.reduction import check_keep

if TYPE_CHECKING:
    from pcae.report.encoders import DrawnEncoder

DESCRIPTION = """Draw which tokens of an image an encoder keeps: the tokens left after each stage, the similarity scores
that decide it, and the visible and target patches of pre-training. Writes PNG files and a page, index.html.
Unreadable images are listed and left out, and the exit code is then 1.

Examples:
  pcae visualize runs/demo cat.jpg dog.jpg --out pictures
  pcae visualize runs/demo data/fashion-mnist --limit 8 --keep 0.7 --out pictures
  pcae visualize models/demo/model.onnx cat.jpg --out pictures"""


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae visualize`.

    Attributes:
        source: run folder, checkpoint, or exported model.
        images: image files, folders of images, or data sets.
        out: folder to write to.
        keep: share of the patch tokens that each stage keeps. Default: as in training.
        encoder: student or teacher; only for runs. Default: the student; of a fine-tuned run, the weights that were
            scored.
        backend: name of the backend; only for runs. Default: torch.
        device: device name of the backend; "auto" picks the best one; only for runs.
        seed: seed of the noise that splits the patches; only for runs. Default: the run's.
        limit: largest number of images to draw.
    """

    source: Annotated[Path, tyro.conf.Positional]
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path
    keep: float | None = None
    encoder: EncoderName | None = None
    backend: str | None = None
    device: str = "auto"
    seed: int | None = None
    limit: int = 16
    reading: Annotated[Reading, tyro.conf.arg(name="")] = field(default_factory=Reading)


def main(arguments: Sequence[str]) -> None:
    """Parse, draw, print the path written."""
    chosen = parse(Arguments, "visualize", arguments, description=DESCRIPTION)
    if chosen.keep is not None:
        check_keep(chosen.keep)
    if chosen.seed is not None and not 0 <= chosen.seed < 2**63:
        raise ConfigError(f"seed must be from 0 to 2**63 - 1, not {chosen.seed}")
    if chosen.limit < 1:
        raise ConfigError(f"limit must be at least 1, not {chosen.limit}")
    from pcae.report import pictures

    encoder = open_encoder(chosen)
    reading = chosen.reading.over(encoder.loader).reading
    shown = pictures.read_images(chosen.images, encoder.model, chosen.limit, reading)
    drawn, warnings = pictures.figures(encoder, shown)
    for line in warnings:
        print(f"WARNING: {line}", file=sys.stderr)
    written = pictures.write(chosen.out, encoder.title, drawn, warnings)
    print(f"wrote {written[-1]} and {len(written) - 1} PNG files: {len(drawn)} images, {encoder.title}")
    if shown.unreadable:
        raise IncompleteError(f"left out what cannot be read: {listed(shown.unreadable)}")


def open_encoder(chosen: Arguments) -> DrawnEncoder:
    """The encoder to draw. Raises ConfigError for options that do not apply to it; else as the constructors."""
    if chosen.source.suffix == ".onnx" or (chosen.source / "model.onnx").is_file():
        if (chosen.encoder, chosen.backend, chosen.device, chosen.seed) != (None, None, "auto", None):
            raise ConfigError(
                "--encoder, --backend, --device and --seed are for runs and checkpoints; an exported model has neither"
            )
        import pcae_onnx

        pcae_onnx.require("onnx", "onnxruntime")
        from pcae.report.exported import DrawnExport

        return DrawnExport(chosen.source, chosen.keep)
    from pcae.report.encoders import DrawnCheckpoint
    from pcae_core import registry

    backend = registry.create(chosen.backend or "torch", device=chosen.device)
    return DrawnCheckpoint(chosen.source, backend, chosen.encoder, chosen.keep, chosen.seed)
