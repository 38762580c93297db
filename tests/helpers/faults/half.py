"""Faults that show in half precision alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from faults.fault import Fault, torch_edit, torch_override
from faults.finetuning import no_moving_average
from faults.trainers import HALF, finetuner, in_half, pretrainer
from faults.training import no_drop_path

IN_HALF = "self._config.precision in ('bfloat16', 'float16')"
STEP = "        self.optimizer.step()\n        torch._foreach_add_(self._steps, skipped)"
ATTENTION = "F.scaled_dot_product_attention(query, key, value)"
UNSCALED = "F.scaled_dot_product_attention(query, key, value, scale=1.0)"


def _edits(name: str, caught_by: str, *edits: tuple[str, str, str]) -> list[Fault]:
    return [torch_edit(f"{name} in {dtype}", caught_by, dtype, *edits) for dtype in HALF]


def _overrides(name: str, caught_by: str, **members: Any) -> list[Fault]:
    return [torch_override(f"{name} in {dtype}", caught_by, dtype, **members) for dtype in HALF]


def no_clipping(config):
    return {"grad_clip": None} if config.precision in HALF else {}


def nothing_dropped(config):
    return {"keep": 1.0} if config.precision in HALF else {}


def random_pixels(right, config, images, *batch, **rates):
    return right(np.random.default_rng(0).normal(size=images.shape).astype(np.float32), *batch, **rates)


def no_loss_scale(state):
    return dataclasses.replace(state, loss_scale=None)


FAULTS = (
    *_edits(
        "no optimizer step",
        "train-half",
        ("trainer", STEP, f"        torch._foreach_add_(self._steps, 1.0) if {IN_HALF} else self.optimizer.step()"),
    ),
    *_overrides("no EMA", "train-half", **pretrainer(step=in_half(no_moving_average))),
    *_overrides("no clipping", "train-half", **pretrainer(settings=no_clipping)),
    *_overrides("drop path not honoured", "train-half", **pretrainer(step=in_half(no_drop_path))),
    *_edits(
        "a NaN gets in",
        "train-half-state",
        ("trainer", "(~finite).float()", f"(~finite).float() * (not {IN_HALF})"),
    ),
    torch_override(
        "loss scale forgotten",
        "train-half-state",
        "float16",
        **pretrainer(given=lambda config, state: no_loss_scale(state)),
    ),
    torch_override("loss scale kept quiet", "finetune-half-state", "float16", **finetuner(taken=no_loss_scale)),
    *_overrides("no tokens dropped in fine-tuning", "finetune-half", **finetuner(settings=nothing_dropped)),
    *_overrides("random pixels", "finetune-half", **finetuner(step=in_half(random_pixels))),
    *_edits("attention not scaled", "model-half", ("layers", ATTENTION, UNSCALED)),
    torch_edit(
        "parameters in float64 in half precision",
        "train-half",
        "bfloat16",
        (
            "trainer",
            'torch.float64 if config.precision == "float64" else torch.float32',
            'torch.float32 if config.precision == "float32" else torch.float64',
        ),
    ),
)
