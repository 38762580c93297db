"""Numbers of a model and of its evaluation as tables of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcae.report import page
from pcae_core import cost
from pcae_core.config import ModelConfig

if TYPE_CHECKING:
    from pcae_core.evaluation.evaluate import Evaluation
    from pcae_core.evaluation.keep_table import KeepRow

KEEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


def cost_tables(model: ModelConfig) -> list[str]:
    """Multiply-accumulates of one image: of a pre-training step, if it has one, and of inference at several ratios."""
    cards = [page.card("Inference", page.table(("keep", "MMACs", "speed-up", "tokens left"), _inference(model)))]
    if not model.num_classes:
        cards.insert(0, page.card("Pre-training", page.table(("part", "forward", "passes", "a step"), _step(model))))
    note = "Millions of multiply-accumulates for one image, by arithmetic on the shapes."
    return [page.paragraph(note, "faint"), page.cards(cards)]


def _step(model: ModelConfig) -> list[tuple[str, str, str, str]]:
    parts = cost.pretraining_forward_macs(model)
    passes = {name: 1 if name == "teacher" else 3 for name in parts}
    rows = [(name, _mega(macs), str(passes[name]), _mega(passes[name] * macs)) for name, macs in parts.items()]
    total, mae = cost.pretraining_macs(model), cost.mae_macs(model)
    rows += [("PCAE step", "", "", _mega(total)), ("MAE step, same encoder and decoder", "", "", _mega(mae))]
    return [*rows, ("PCAE / MAE", "", "", f"{total / mae:.3f}")]


def _inference(model: ModelConfig) -> list[tuple[str, str, str, str]]:
    full = cost.encoder_macs(model)
    rows = []
    for keep in KEEPS:
        macs = cost.encoder_macs(model, keep)
        left = list(model.kept_after_block(model.num_patches, keep).values())[-1]
        rows.append((f"{keep:.1f}", _mega(macs), f"{full / macs:.2f}", f"{1 + left} of {1 + model.num_patches}"))
    return rows


def _mega(macs: int) -> str:
    return f"{macs / 1e6:,.2f}" if macs < 1e8 else f"{macs / 1e6:,.0f}"


def keep_table(rows: list[KeepRow]) -> str:
    """A row a keep ratio, accuracies in percent."""
    cells = []
    for row in rows:
        accuracy = (f"{row.accuracy.top1:.2f}", f"{row.accuracy.top5:.2f}")
        speed = (f"{row.images_per_second:.0f}", f"{row.speedup:.2f}", f"{row.predicted:.2f}")
        cells.append((f"{row.keep:.1f}", *accuracy, *speed))
    return page.table(("keep", "top-1", "top-5", "img/s", "faster", "by MACs"), cells)


def evaluation_table(results: dict[str, Evaluation]) -> str:
    """A row an encoder, accuracies in percent."""
    rows = []
    for name, found in results.items():
        percent = (found.knn.top1, found.knn.top5, found.linear.top1, found.linear.top5)
        rows.append((name, *(f"{value:.2f}" for value in percent), f"{found.effective_rank:.2f}"))
    return page.table(("encoder", "k-NN top-1", "top-5", "linear top-1", "top-5", "rank"), rows)
