"""Faults of fine-tuning."""

from __future__ import annotations

from faults.fault import numpy_edit, torch_edit

SCATTER = "np.put_along_axis(scattered, 1 + kept[:, :, None], grad[:, 1:], axis=1)"
RATES = "lambda name: layer_scale(name, depth, decay)"
EMA = "self._state.teacher = ops.ema_update(self._state.teacher, self._state.student, momentum)"
COPIED = "self._state = copy_state(state or finetuning_state(config.model, config.seed, None, ema))"

FAULTS = (
    numpy_edit(
        "a NaN gets into fine-tuning", "finetune-skips-nonfinite", ("pretraining", "    if finite:", "    if True:")
    ),
    numpy_edit(
        "gradients not scattered to where tokens were",
        "finetune-gradients",
        ("backward", SCATTER, "scattered[:, 1 : grad.shape[1]] = grad[:, 1:]"),
    ),
    numpy_edit(
        "CLS loses its gradient at a stage",
        "finetune-differences",
        ("backward", "scattered[:, 0] = grad[:, 0]", "scattered[:, 0] = 0.0"),
    ),
    numpy_edit(
        "the mean's gradient divided by all patches",
        "finetune-differences",
        ("backward", "d_mean[:, None] / patches.shape[1]", "d_mean[:, None] / config.num_patches"),
    ),
    numpy_edit(
        "targets hardened",
        "finetune-gradients",
        (
            "ops",
            "-(targets * log_probabilities).sum(axis=1)",
            "-((targets == targets.max(axis=1, keepdims=True)) * log_probabilities).sum(axis=1)",
        ),
    ),
    numpy_edit(
        "sum of the images' losses",
        "finetune-differences",
        ("backward", "* total - targets) / len(logits)", "* total - targets)"),
    ),
    numpy_edit(
        "drop path not honoured in fine-tuning",
        "finetune-gradients",
        (
            "backend",
            "trace = model.encoder_trace(config, p, pixels, keep, scales)",
            "scales[:] = 1.0\n        trace = model.encoder_trace(config, p, pixels, keep, scales)",
        ),
    ),
    torch_edit(
        "no tokens dropped in fine-tuning",
        "finetune-gradients",
        "float64",
        (
            "model",
            "self.encoder.encode_all(images, keep, drop_path)",
            "self.encoder.encode_all(images, 1.0, drop_path)",
        ),
    ),
    numpy_edit("one rate for all layers", "finetune-step", ("finetuning", RATES, "lambda name: 1.0")),
    numpy_edit(
        "layers' rates off by one",
        "finetune-step",
        ("finetuning", RATES, "lambda name: layer_scale(name, depth, decay) * decay"),
    ),
    numpy_edit(
        "decay at the head's rate",
        "finetune-step",
        ("pretraining", "(1.0 - rate * decay)", "(1.0 - learning_rate * decay)"),
    ),
    numpy_edit(
        "keeps what it should drop",
        "finetune-step",
        ("finetuning", "images[part], config.keep, scales", "images[part], max(0.3, 1.0 - config.keep), scales"),
    ),
    numpy_edit("no moving average", "finetune-step", ("finetuning", EMA, "pass")),
    numpy_edit(
        "sum of the micro-batches in fine-tuning", "finetune-step", ("finetuning", "+= grad / parts", "+= grad")
    ),
    numpy_edit(
        "keeps the share that pre-training kept",
        "finetune-step",
        ("finetuning", "images[part], config.keep, scales", "images[part], config.model.reduction.keep, scales"),
    ),
    torch_edit(
        "gradients of all steps",
        "finetune-four-steps",
        "float64",
        ("finetuning", "        self._optimizer.zero_grad(set_to_none=True)\n", ""),
    ),
    torch_edit(
        "layers' rates shrink at each step",
        "finetune-four-steps",
        "float64",
        ("trainer", 'learning_rate * group["scale"]', 'learning_rate * group["scale"]; group["scale"] **= 2'),
    ),
    numpy_edit(
        "cross-entropy that overflows",
        "finetune-large-logits",
        ("ops", "shifted = logits - logits.max(axis=1, keepdims=True)", "shifted = logits"),
    ),
    torch_edit(
        "layers' rates forgotten",
        "finetune-step",
        "float64",
        ("trainer", 'learning_rate * group["scale"]', "learning_rate"),
    ),
    numpy_edit(
        "given classifier shared",
        "finetune-state",
        ("finetuning", COPIED, "self._state = state or finetuning_state(config.model, config.seed, None, ema)"),
    ),
    numpy_edit(
        "a moving average that nobody asked for",
        "finetune-state",
        ("finetuning", "config.seed, None, ema)", "config.seed, None, True)"),
    ),
    numpy_edit(
        "the head starts from another seed",
        "finetune-state",
        ("finetuning", "config.seed, None, ema)", "config.seed + 1, None, ema)"),
    ),
)
