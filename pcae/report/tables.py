"""The cost of a model as tables of a page."""

from __future__ import annotations

from pcae.report import page
from pcae_core import cost
from pcae_core.config import ModelConfig
from pcae_core.evaluation.costs import inference_costs, pretraining_costs


def cost_tables(model: ModelConfig) -> list[str]:
    """Multiply-accumulates of one image: in a pre-training step, if the model has one, and in inference."""
    cards = [page.card("Inference", page.table(("keep", "MMACs", "speed-up", "tokens left"), _inference(model)))]
    if not model.num_classes:
        cards.insert(0, page.card("Pre-training", page.table(("part", "forward", "passes", "a step"), _step(model))))
    note = "Millions of multiply-accumulates for one image, computed from shapes."
    return [page.paragraph(note, "faint"), page.cards(cards)]


def _step(model: ModelConfig) -> list[tuple[str, str, str, str]]:
    parts = pretraining_costs(model)
    rows = [(part.name, _mega(part.forward), str(part.passes), _mega(part.step)) for part in parts]
    total, mae = cost.pretraining_macs(model), cost.mae_macs(model)
    rows += [("PCAE step", "", "", _mega(total)), ("MAE step, same encoder and decoder", "", "", _mega(mae))]
    return [*rows, ("PCAE / MAE", "", "", f"{total / mae:.3f}")]


def _inference(model: ModelConfig) -> list[tuple[str, str, str, str]]:
    rows = []
    for found in inference_costs(model):
        left = f"{found.tokens} of {model.num_prefix_tokens + model.num_patches}"
        rows.append((f"{found.keep:.1f}", _mega(found.macs), f"{found.speedup:.2f}", left))
    return rows


def _mega(macs: int) -> str:
    return f"{macs / 1e6:,.2f}" if macs < 1e8 else f"{macs / 1e6:,.0f}"
