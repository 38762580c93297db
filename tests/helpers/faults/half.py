"""Faults that show in half precision alone."""

from __future__ import annotations

from faults.fault import Fault, torch_edit

HALF = "self._config.precision in ('bfloat16', 'float16')"
STEP = "        self._optimizer.step()\n        torch._foreach_add_(self._steps, skipped)"
ATTENTION = "F.scaled_dot_product_attention(query, key, value)"
UNSCALED = "F.scaled_dot_product_attention(query, key, value, scale=1.0)"


def _edits(name: str, caught_by: str, *edits: tuple[str, str, str]) -> list[Fault]:
    return [torch_edit(f"{name} in {dtype}", caught_by, dtype, *edits) for dtype in ("bfloat16", "float16")]


FAULTS = (
    *_edits(
        "no optimizer step",
        "train-half",
        ("trainer", STEP, f"        torch._foreach_add_(self._steps, 1.0) if {HALF} else self._optimizer.step()"),
    ),
    *_edits(
        "no EMA",
        "train-half",
        (
            "trainer",
            "            ops.ema_update_(*self._ema_pairs, momentum)",
            f"            {HALF} or ops.ema_update_(*self._ema_pairs, momentum)",
        ),
    ),
    *_edits(
        "no clipping",
        "train-half",
        (
            "trainer",
            "if self._config.grad_clip is not None:",
            f"if self._config.grad_clip is not None and not {HALF}:",
        ),
    ),
    *_edits(
        "drop path not honoured",
        "train-half",
        (
            "pretraining",
            "scales = None if drop_path is None else",
            f"scales = None if drop_path is None or {HALF} else",
        ),
    ),
    *_edits(
        "a NaN gets in",
        "train-half-state",
        ("trainer", "(~finite).float()", f"(~finite).float() * (not {HALF})"),
    ),
    torch_edit(
        "loss scale forgotten",
        "train-half-state",
        "float16",
        ("trainer", "if scaler.is_enabled() and state.loss_scale is not None:", "if False:"),
    ),
    torch_edit(
        "loss scale kept quiet",
        "finetune-half-state",
        "float16",
        ("trainer", "        if not self._scaler.is_enabled():\n            return None", "        return None"),
    ),
    *_edits(
        "no tokens dropped in fine-tuning",
        "finetune-half",
        (
            "finetuning",
            "loss = self._parallel(images, targets, self._keep, scales)",
            f"loss = self._parallel(images, targets, 1.0 if {HALF} else self._keep, scales)",
        ),
    ),
    *_edits(
        "random pixels",
        "finetune-half",
        (
            "finetuning",
            "self._normalize(images).unflatten(0, (parts, -1)),",
            f"(torch.randn_like if {HALF} else torch.clone)(self._normalize(images)).unflatten(0, (parts, -1)),",
        ),
    ),
    *_edits("attention not scaled", "model-half", ("model", ATTENTION, UNSCALED)),
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
