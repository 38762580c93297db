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

DESCRIPTION = """Write one page about a run, also while it goes on: what was measured, the tokens that the encoder keeps
of the same images at several steps, cost, settings and versions. The page needs no network.

Examples:
  pcae report runs/demo
  pcae report runs/demo --data data/fashion-mnist --out demo.html"""


@dataclass(frozen=True)
class Arguments:
    """What `pcae report` takes.

    Attributes:
        run: a run's folder.
        out: the page; by default report.html in the run's folder.
        data: labelled data set to evaluate on and to take pictures from; by default pictures of the run's own data set,
            and no evaluation.
        split: of that data set to evaluate on; by default test, else val, whichever has labels first.
        ignore_unknown_classes: leave out images of classes that the run, or the train split, does not have.
        max_corrupt: largest share of a split that may be unreadable.
        images: pictures to draw.
        keep: share of the patch tokens that each stage keeps in the pictures; by default that of training.
        backend: as `pcae backends` lists it.
        device: as the backend names it; "auto" takes its best one.
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
    """Parse, gather, write the page."""
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
