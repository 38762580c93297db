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

DESCRIPTION = """Measure how good the features of a run are.

Pre-training run: weighted k-NN (cosine, k = 20) and a linear probe on the frozen features. Both are fitted on the train
split and scored on another split. The same encoder at random initialisation is measured for comparison.

Fine-tuned run: the best checkpoint at several keep ratios. The table shows accuracy, images per second at batch 64,
multiply-accumulates (MACs), the measured speed-up, and the speed-up that the MACs predict.

The scored split is the first of test and val that has labels. Classes are matched by name where the model and the data
both have class names. Unreadable images are listed and left out, and the exit code is then 1.

Examples:
  pcae evaluate runs/demo --data data/fashion-mnist
  pcae evaluate runs/demo-ft --data data/fashion-mnist --keep 1.0 0.9 0.8 0.7 0.6"""

KEEPS = (1.0, 0.9, 0.8, 0.7, 0.6)


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae evaluate`.

    Attributes:
        run: run folder, checkpoint, or encoder folder that `pcae convert` wrote.
        data: data set with class labels and a test or val split.
        split: split to score. Default: the first of test and val that has labels.
        ignore_unknown_classes: leave out images whose class the fine-tuned run, or else the train split, does not have.
        encoder: encoders of a pre-training run to measure. Default: student and teacher.
        pooling: features of a pre-trained encoder: mean of the patch tokens (default), or the CLS token, which is
            trained in the student only.
        keep: keep ratios to score a fine-tuned run at. Each stage keeps this share of the patch tokens. Default: 1.0,
            0.9, 0.8, 0.7 and 0.6.
        max_corrupt: largest share of a split that may be unreadable.
        backend: name of the backend; `pcae backends` lists them.
        device: device name of the backend; "auto" picks the best one.
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
    """Print a table; numbers are aligned to the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    drawn = RichTable(title=escape(title))
    for heading in table.headings:
        drawn.add_column(heading, justify="left" if heading == "encoder" else "right")
    for row in table.rows:
        drawn.add_row(*row)
    Console().print(drawn)
