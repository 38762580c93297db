"""`pcae report`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pcae.cli.parsing import parse
from pcae_core.errors import ConfigError
from pcae_core.reduction import check_keep

DESCRIPTION = """Write an HTML page about a run, finished or not: its measurements, the tokens that the encoder keeps of
the same images at several steps, cost, settings and versions. The page works offline.

Examples:
  pcae report runs/demo
  pcae report runs/demo --data data/fashion-mnist --out demo.html"""


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae report`.

    Attributes:
        run: run folder.
        out: HTML file to write. Default: report.html in the run folder.
        data: labelled data set to evaluate on and to draw images of. Default: draw images of the run's own data set,
            and do not evaluate.
        split: split of --data to evaluate on. Default: the first of test and val that has labels.
        ignore_unknown_classes: leave out images whose class the fine-tuned run, or else the train split, does not have.
        max_corrupt: largest share of a split that may be unreadable.
        images: number of images to draw.
        keep: share of the patch tokens that each stage keeps in the pictures. Default: as in training.
        backend: name of the backend; `pcae backends` lists them.
        device: device name of the backend; "auto" picks the best one.
    """

    run: Annotated[Path, tyro.conf.Positional]
    out: Path | None = None
    data: Path | None = None
    split: str | None = None
    ignore_unknown_classes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    max_corrupt: float = 1.0
    images: int = 4
    keep: float | None = None
    backend: str = "torch"
    device: str = "auto"


def main(arguments: Sequence[str]) -> None:
    """Parse, collect the measurements, write the page."""
    chosen = parse(Arguments, "report", arguments, description=DESCRIPTION)
    if chosen.keep is not None:
        check_keep(chosen.keep)
    if chosen.images < 1:
        raise ConfigError(f"images must be at least 1, not {chosen.images}")
    from pcae.report import page
    from pcae.report.run_report import Options, report
    from pcae_core import registry
    from pcae_core.storage.run import Run

    backend = registry.create(chosen.backend, device=chosen.device)
    how = chosen.split, chosen.ignore_unknown_classes, chosen.max_corrupt
    options = Options(chosen.data, chosen.images, chosen.keep, *how)
    text, warnings = report(Run(chosen.run), backend, options)
    for line in warnings:
        print(f"WARNING: {line}", file=sys.stderr)
    out = chosen.out or chosen.run / "report.html"
    page.write(out, text)
    print(f"wrote {out} ({out.stat().st_size / 1000:.0f} kB)")
