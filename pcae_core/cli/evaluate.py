"""`pcae evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pcae_core.cli.parsing import parse

if TYPE_CHECKING:
    from pcae_core.training.evaluate import Evaluation

DESCRIPTION = """Probe the frozen features of a run: weighted k-NN (cosine, k = 20) and a linear probe, fitted on the
train split and scored on the test split, next to the same encoder at random initialisation.

Example:
  pcae evaluate runs/demo --data data/fashion-mnist"""


@dataclass(frozen=True)
class Arguments:
    """What `pcae evaluate` takes.

    Attributes:
        run: a run's folder, one of its checkpoints, or an encoder's folder that `pcae convert` wrote.
        data: data set with class labels and a test (or val) split.
        features: of a run, from the student, the teacher, or both.
        pooling: mean of the patch tokens, or the CLS token (which only the student trains).
        backend: as `pcae backends` lists it.
        device: as the backend names it; "auto" takes its best one.
    """

    run: Annotated[Path, tyro.conf.Positional]
    data: Path
    features: tuple[Literal["student", "teacher"], ...] = ("student", "teacher")
    pooling: Literal["mean", "cls"] = "mean"
    backend: str = "torch"
    device: str = "auto"


def main(arguments: Sequence[str]) -> None:
    """Parse, evaluate, print a table."""
    chosen = parse(Arguments, "evaluate", arguments, description=DESCRIPTION)
    from pcae_core import registry
    from pcae_core.training.evaluate import evaluate

    backend = registry.create(chosen.backend, device=chosen.device)
    results = evaluate(backend, chosen.run, chosen.data, chosen.features, chosen.pooling)
    show(results, f"{chosen.run}: {chosen.pooling} pooling")


def show(results: dict[str, Evaluation], title: str) -> None:
    """One row an encoder."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for heading in ("encoder", "k-NN top-1", "top-5", "linear top-1", "top-5", "effective rank"):
        table.add_column(heading, justify="left" if heading == "encoder" else "right")
    for name, result in results.items():
        percent = (result.knn.top1, result.knn.top5, result.linear.top1, result.linear.top5)
        table.add_row(name, *(f"{value:.2f}" for value in percent), f"{result.effective_rank:.2f}")
    Console().print(table)
