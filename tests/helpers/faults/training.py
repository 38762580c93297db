"""Faults of a pre-training step."""

from __future__ import annotations

import dataclasses

import numpy as np

from faults.fault import numpy_edit, numpy_override, torch_edit, torch_override
from faults.trainers import pretrainer
from pcae_core.parameters import pretraining_state

CORRECTION = "1.0 - beta1**state.step, 1.0 - beta2**state.step"
ADAMW = "norm, finite = update(self._state, total, loss, config, learning_rate)"
EMA = "self._state.teacher = ops.ema_update(self._state.teacher, self._state.student, momentum)"


def norm_after_clipping(right, config, *batch, **rates):
    out = right(*batch, **rates)
    return dataclasses.replace(out, grad_norm=np.asarray(min(out.grad_norm, config.grad_clip or np.inf)))


def no_drop_path(right, config, *batch, drop_path=None, **rates):
    return right(*batch, **rates)


def drop_path_of_ones(right, config, *batch, drop_path=None, **rates):
    return right(*batch, drop_path=None if drop_path is None else 1.0 * (drop_path > 0), **rates)


def half_noise(right, config, images, noise, **rates):
    return right(images, np.float16(noise), **rates)


def momentum_in_float32(right, config, *batch, momentum, **rates):
    return right(*batch, momentum=float(np.float32(momentum)), **rates)


def saying(finite):
    """A step that says so of every batch."""
    return lambda right, config, *batch, **rates: dataclasses.replace(right(*batch, **rates), finite=np.asarray(finite))


def another_teacher(config, state):
    fresh = pretraining_state(config.model, config.seed)
    fresh.teacher["norm.weight"] = 0.999 * fresh.teacher["norm.weight"]
    return state or fresh


FAULTS = (
    numpy_edit(
        "weight decay on biases", "train-adamw", ("pretraining", "if is_decayed(name, grad.shape) else 0.0", "")
    ),
    numpy_edit("no bias correction", "train-adamw", ("pretraining", CORRECTION, "1.0, 1.0")),
    numpy_edit("bias correction starts anew", "train-adamw", ("pretraining", CORRECTION, "1.0 - beta1, 1.0 - beta2")),
    numpy_edit(
        "Adam's eps under the root",
        "train-adamw",
        ("pretraining", "(np.sqrt(second / correction2) + ADAM_EPS)", "np.sqrt(second / correction2 + ADAM_EPS)"),
    ),
    numpy_edit(
        "decay in the gradient (L2)",
        "train-adamw",
        (
            "pretraining",
            "grads.items():\n        first",
            "grads.items():\n        grad = grad + config.weight_decay * state.student[name]\n        first",
        ),
    ),
    numpy_edit(
        "betas exchanged", "train-adamw", ("pretraining", "beta1, beta2 = config.betas", "beta2, beta1 = config.betas")
    ),
    numpy_edit(
        "EMA before AdamW", "train-adamw", ("pretraining", f"{ADAMW}\n        {EMA}", f"{EMA}\n        {ADAMW}")
    ),
    numpy_override("norm after clipping", "train-adamw", **pretrainer(step=norm_after_clipping)),
    numpy_edit(
        "always scales to the clipping norm",
        "train-adamw",
        ("pretraining", "min(1.0, largest_norm / norm)", "largest_norm / norm / 2.0"),
    ),
    numpy_edit(
        "clips each parameter alone",
        "train-adamw",
        (
            "pretraining",
            "grad *= min(1.0, largest_norm / norm)",
            "grad *= min(1.0, largest_norm / max(1e-30, np.sqrt((grad**2).sum())))",
        ),
    ),
    numpy_override("drop path not honoured", "train-adamw", **pretrainer(step=no_drop_path)),
    numpy_override("drop path without its 1 / (1 - rate)", "train-adamw", **pretrainer(step=drop_path_of_ones)),
    numpy_override(
        "the loader's mean not heeded",
        "train-step",
        **pretrainer(settings=lambda config: {"loader": type(config.loader)()}),
    ),
    numpy_override("betas not heeded", "train-adamw", **pretrainer(settings=lambda config: {"betas": (0.9, 0.95)})),
    numpy_override("noise in half precision", "train-step", **pretrainer(step=half_noise)),
    numpy_edit(
        "CLS in the mean features",
        "train-step",
        ("pretraining", "trace.latent[:, config.model.num_prefix_tokens :].mean(axis=1)", "trace.latent.mean(axis=1)"),
    ),
    numpy_edit("a NaN gets in", "train-skips-nonfinite", ("pretraining", "    if finite:", "    if True:")),
    numpy_edit(
        "a skipped step is not counted",
        "train-skips-nonfinite",
        ("pretraining", "    state.step += 1\n    if finite:", "    state.step += int(finite)\n    if finite:"),
    ),
    numpy_override("a skipped step is kept quiet", "train-skips-nonfinite", **pretrainer(step=saying(finite=True))),
    numpy_override("a good step is called bad", "train-step", **pretrainer(step=saying(finite=False))),
    torch_edit(
        "a skipped step forgets AdamW's",
        "train-skips-nonfinite",
        "float64",
        ("trainer", "torch._foreach_add_(self._steps, skipped)", "pass"),
    ),
    torch_edit(
        "a NaN gets into the torch model",
        "train-skips-nonfinite",
        "float64",
        ("trainer", "(~finite).float()", "torch.zeros(())"),
    ),
    numpy_override("teacher starts from other numbers", "train-start", **pretrainer(given=another_teacher)),
    numpy_override(
        "starts from another seed", "train-start", **pretrainer(settings=lambda config: {"seed": config.seed + 1})
    ),
    torch_override("EMA's momentum in float32", "train-step", "float64", **pretrainer(step=momentum_in_float32)),
)
