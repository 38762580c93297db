"""`pcae evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pcae.cli.parsing import parse
from pcae_core.config import EncoderName, Reading
from pcae_core.errors import ConfigError, IncompleteError

if TYPE_CHECKING:
    from pcae_core.evaluation.tables import Table

DESCRIPTION = """Of a pre-training run, probe the frozen features: weighted k-NN (cosine, k = 20) and a linear probe,
fitted on the train split and scored on another, next to the same encoder at random initialisation.

Of a fine-tuned run, score its best checkpoint at several keep ratios: accuracy, images per second at
batch 64, multiply-accumulates, and the speed-up measured and predicted by them.

The scored split is test, else val, whichever has labels first. Classes are matched by name where both sides have names.
Unreadable images are named and left out; the exit code is 1 then.

Examples:
  pcae evaluate runs/demo --data data/fashion-mnist
  pcae evaluate runs/demo-ft --data data/fashion-mnist --keep 1.0 0.9 0.8 0.7 0.6"""

KEEPS = (1.0, 0.9, 0.8, 0.7, 0.6)


@dataclass(frozen=True)
class Arguments:
    """What `pcae evaluate` takes.

    Attributes:
        run: a run's folder, one of its checkpoints, or an encoder's folder that `pcae convert` wrote.
        data: data set with class labels and a test (or val) split.
        split: that is scored; by default test, else val, whichever has labels first.
        ignore_unknown_classes: leave out images of classes that the run, or the train split, does not have.
        encoder: of a pre-training run, the student, the teacher, or both, which is the default.
        pooling: of frozen features: mean of the patch tokens, which is the default, or the CLS token (which only the
            student trains).
        keep: of a fine-tuned run: shares of the patch tokens that stay at each stage; 1.0 to 0.6 when not set.
        max_corrupt: largest share of a split that may be unreadable.
        backend: as `pcae backends` lists it.
        device: as the backend names it; "auto" takes its best one.
    """

    run: Annotated[Path, tyro.conf.Positional]
    data: Path
    split: str | None = None
    ignore_unknown_classes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    encoder: tuple[EncoderName, ...] | None = None
    pooling: Literal["mean", "cls"] | None = None
    keep: tuple[float, ...] = ()
    reading: Annotated[Reading, tyro.conf.arg(name="")] = field(default_factory=Reading)
    max_corrupt: float = 1.0
    backend: str = "torch"
    device: str = "auto"


def main(arguments: Sequence[str]) -> None:
    """Parse, evaluate, print a table."""
    chosen = parse(Arguments, "evaluate", arguments, description=DESCRIPTION)
    from pcae_core import registry
    from pcae_core.evaluation import tables
    from pcae_core.evaluation.evaluate import evaluate
    from pcae_core.storage import pretrained
    from pcae_core.storage.run import Run

    run = chosen.run if pretrained.is_encoder(chosen.run) else Run.open(chosen.run)
    kind = run.kind if isinstance(run, Run) else "encoder"
    if chosen.keep and kind != "finetune":
        raise ConfigError(f"--keep is for fine-tuned runs, and {chosen.run} is none")
    if chosen.encoder is not None and kind != "pretrain":
        raise ConfigError(f"--encoder is for pre-training runs, and {chosen.run} is none")
    if chosen.pooling is not None and kind == "finetune":
        raise ConfigError(f"--pooling is for frozen features; {chosen.run} is fine-tuned with its own")
    backend = registry.create(chosen.backend, device=chosen.device)
    how = chosen.split, chosen.ignore_unknown_classes, chosen.reading, chosen.max_corrupt
    if kind == "finetune":
        from pcae_core.evaluation.keep_table import keep_table

        path, rows, missing = keep_table(backend, run, chosen.data, chosen.keep or KEEPS, *how)
        show(tables.keep_ratio_table(rows), str(path))
    else:
        pooling = chosen.pooling or "mean"
        encoders = ("student", "teacher") if chosen.encoder is None else chosen.encoder
        results, missing = evaluate(backend, run, chosen.data, encoders, pooling, *how)
        show(tables.evaluation_table(results), f"{chosen.run}: {pooling} pooling")
    if missing:
        raise IncompleteError("; ".join(missing))


def show(table: Table, title: str) -> None:
    """Draw a table; numbers are on the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    drawn = RichTable(title=escape(title))
    for heading in table.headings:
        drawn.add_column(heading, justify="left" if heading == "encoder" else "right")
    for row in table.rows:
        drawn.add_row(*row)
    Console().print(drawn)
