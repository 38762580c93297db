"""Results as headings and rows of text, for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pcae_core.evaluation.evaluate import Evaluation
from pcae_core.evaluation.keep_table import KeepRow


class Table(NamedTuple):
    """A table of text: headings, and rows of cells."""

    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def evaluation_table(results: Mapping[str, Evaluation]) -> Table:
    """One row for each encoder; accuracies in percent."""
    rows = []
    for name, found in results.items():
        percent = (found.knn.top1, found.knn.top5, found.linear.top1, found.linear.top5)
        rows.append((name, *(f"{value:.2f}" for value in percent), f"{found.effective_rank:.2f}"))
    return Table(("encoder", "k-NN top-1", "top-5", "linear top-1", "top-5", "effective rank"), rows)


def keep_ratio_table(found: Sequence[KeepRow]) -> Table:
    """One row for each keep ratio; accuracies in percent."""
    rows = []
    for row in found:
        accuracy = (f"{row.accuracy.top1:.2f}", f"{row.accuracy.top5:.2f}")
        speed = (f"{row.images_per_second:.0f}", f"{row.gmacs:.4g}", f"{row.speedup:.2f}", f"{row.predicted:.2f}")
        rows.append((f"{row.keep:.2f}", *accuracy, *speed))
    return Table(("keep", "top-1", "top-5", "images/s", "GMACs", "speed-up", "by MACs"), rows)
