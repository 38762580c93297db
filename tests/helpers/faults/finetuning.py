"""Faults of fine-tuning."""

from __future__ import annotations

from faults.fault import numpy_edit, numpy_override, torch_edit, torch_override
from faults.trainers import finetuner
from pcae_core.parameters import finetuning_state

SCATTER = "np.put_along_axis(scattered, num_prefix + kept[:, :, None], grad[:, num_prefix:], axis=1)"
COPIED = "self._state = copy_state(state or finetuning_state(config.model, config.seed, None, ema))"


def hardened(self, config, parameters, images, targets, keep=1.0, drop_path=None):
    hard = 1.0 * (targets == targets.max(axis=1, keepdims=True))
    return self.right.finetuning_loss_and_gradients(config, parameters, images, hard, keep, drop_path)


def summed(self, config, parameters, images, targets, keep=1.0, drop_path=None):
    loss, found = self.right.finetuning_loss_and_gradients(config, parameters, images, targets, keep, drop_path)
    return loss, {name: value * len(images) for name, value in found.items()}


def no_drop_path(self, config, parameters, images, targets, keep=1.0, drop_path=None):
    return self.right.finetuning_loss_and_gradients(config, parameters, images, targets, keep)


def nothing_dropped(self, config, parameters, images, targets, keep=1.0, drop_path=None):
    return self.right.finetuning_loss_and_gradients(config, parameters, images, targets, 1.0, drop_path)


def off_by_one(right, config, *batch, learning_rate, **rates):
    return right(*batch, learning_rate=learning_rate * config.layer_decay, **rates)


def no_moving_average(right, config, *batch, momentum, **rates):
    return right(*batch, momentum=1.0, **rates)


def moving_average(config, state):
    return state or finetuning_state(config.model, config.seed, None, True)


FAULTS = (
    numpy_edit(
        "a NaN gets into fine-tuning", "finetune-skips-nonfinite", ("pretraining", "    if finite:", "    if True:")
    ),
    numpy_edit(
        "gradients not scattered to where tokens were",
        "finetune-gradients",
        ("backward", SCATTER, "scattered[:, num_prefix : grad.shape[1]] = grad[:, num_prefix:]"),
    ),
    numpy_edit(
        "CLS loses its gradient at a stage",
        "finetune-differences",
        ("backward", "scattered[:, :num_prefix] = grad[:, :num_prefix]", "scattered[:, :num_prefix] = 0.0"),
    ),
    numpy_edit(
        "the mean's gradient divided by all patches",
        "finetune-differences",
        ("backward", "d_mean[:, None] / patches.shape[1]", "d_mean[:, None] / config.num_patches"),
    ),
    numpy_override("targets hardened", "finetune-gradients", finetuning_loss_and_gradients=hardened),
    numpy_override("sum of the images' losses", "finetune-differences", finetuning_loss_and_gradients=summed),
    numpy_override(
        "drop path not honoured in fine-tuning", "finetune-gradients", finetuning_loss_and_gradients=no_drop_path
    ),
    torch_override(
        "no tokens dropped in fine-tuning",
        "finetune-gradients",
        "float64",
        finetuning_loss_and_gradients=nothing_dropped,
    ),
    numpy_override(
        "one rate for all layers", "finetune-step", **finetuner(settings=lambda config: {"layer_decay": 1.0})
    ),
    numpy_override("layers' rates off by one", "finetune-step", **finetuner(step=off_by_one)),
    numpy_edit(
        "decay at the head's rate",
        "finetune-step",
        ("pretraining", "(1.0 - rate * decay)", "(1.0 - learning_rate * decay)"),
    ),
    numpy_override(
        "keeps what it should drop",
        "finetune-step",
        **finetuner(settings=lambda config: {"keep": max(0.3, 1.0 - config.keep)}),
    ),
    numpy_override("no moving average", "finetune-step", **finetuner(step=no_moving_average)),
    numpy_edit(
        "sum of the micro-batches in fine-tuning", "finetune-step", ("finetuning", "+= grad / parts", "+= grad")
    ),
    numpy_override(
        "keeps the share that pre-training kept",
        "finetune-step",
        **finetuner(settings=lambda config: {"keep": config.model.reduction.keep}),
    ),
    torch_edit(
        "gradients of all steps",
        "finetune-four-steps",
        "float64",
        ("finetuning", "        self.optimizer.zero_grad(set_to_none=True)\n", ""),
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
    torch_override(
        "layers' rates forgotten", "finetune-step", "float64", **finetuner(settings=lambda config: {"layer_decay": 1.0})
    ),
    numpy_edit(
        "given classifier shared",
        "finetune-state",
        ("finetuning", COPIED, "self._state = state or finetuning_state(config.model, config.seed, None, ema)"),
    ),
    numpy_override("a moving average that nobody asked for", "finetune-state", **finetuner(given=moving_average)),
    numpy_override(
        "the head starts from another seed",
        "finetune-state",
        **finetuner(settings=lambda config: {"seed": config.seed + 1}),
    ),
)
