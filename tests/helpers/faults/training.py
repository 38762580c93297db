"""Faults of a pre-training step."""

from __future__ import annotations

from faults.fault import numpy_edit, torch_edit

CORRECTION = "1.0 - beta1**state.step, 1.0 - beta2**state.step"
ADAMW = "norm, finite = update(self._state, total, loss, config, learning_rate)"
EMA = "self._state.teacher = ops.ema_update(self._state.teacher, self._state.student, momentum)"
COPIED = "self._state = copy_state(state or pretraining_state(config.model, config.seed))"

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
    numpy_edit(
        "norm after clipping",
        "train-adamw",
        ("pretraining", "return np.asarray(norm)", "return np.asarray(min(norm, config.grad_clip or norm))"),
    ),
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
    numpy_edit(
        "drop path not honoured", "train-adamw", ("pretraining", "if drop_path is None else np.float64(drop_path)", "")
    ),
    numpy_edit(
        "drop path without its 1 / (1 - rate)",
        "train-adamw",
        ("pretraining", "else np.float64(drop_path)", "else np.float64(drop_path > 0)"),
    ),
    numpy_edit(
        "the loader's mean not heeded",
        "train-step",
        (
            "pretraining",
            "config.loader.normalization(config.model.in_chans)",
            "type(config.loader)().normalization(config.model.in_chans)",
        ),
    ),
    numpy_edit("betas not heeded", "train-adamw", ("pretraining", "= config.betas", "= 0.9, 0.95")),
    numpy_edit(
        "noise in half precision",
        "train-step",
        ("pretraining", "images[part], noise[part], scales", "images[part], np.float16(noise[part]), scales"),
    ),
    numpy_edit(
        "CLS in the mean features",
        "train-step",
        ("pretraining", "trace.latent[:, 1:].mean(axis=1)", "trace.latent.mean(axis=1)"),
    ),
    numpy_edit("a NaN gets in", "train-skips-nonfinite", ("pretraining", "    if finite:", "    if True:")),
    numpy_edit(
        "a skipped step is not counted",
        "train-skips-nonfinite",
        ("pretraining", "    state.step += 1\n    if finite:", "    state.step += int(finite)\n    if finite:"),
    ),
    numpy_edit(
        "a skipped step is kept quiet",
        "train-skips-nonfinite",
        ("pretraining", "np.asarray(norm), np.asarray(finite)", "np.asarray(norm), np.asarray(True)"),
    ),
    numpy_edit(
        "a good step is called bad",
        "train-step",
        ("pretraining", "np.asarray(norm), np.asarray(finite)", "np.asarray(norm), np.asarray(norm < 0.0)"),
    ),
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
    numpy_edit(
        "teacher starts from other numbers",
        "train-start",
        (
            "pretraining",
            COPIED,
            f"{COPIED}\n        self._state.teacher['norm.weight'] *= 0.999 if state is None else 1.0",
        ),
    ),
    numpy_edit(
        "starts from another seed",
        "train-start",
        ("pretraining", "config.model, config.seed))", "config.model, config.seed + 1))"),
    ),
    torch_edit(
        "EMA's momentum in float32",
        "train-step",
        "float64",
        (
            "trainer",
            "ops.ema_update_(*self._ema_pairs, momentum)",
            "ops.ema_update_(*self._ema_pairs, float(np.float32(momentum)))",
        ),
    ),
)
