"""Faults of pre-training's gradients."""

from __future__ import annotations

import numpy as np

from faults.fault import numpy_edit, numpy_override, torch_edit


def not_averaged(self, config, student, teacher, images, noise, drop_path=None):
    loss, gradients = self.right.pretraining_loss_and_gradients(config, student, teacher, images, noise, drop_path)
    return loss, {name: value * len(images) * config.num_targets for name, value in gradients.items()}


def no_drop_path(self, config, student, teacher, images, noise, drop_path=None):
    return self.right.pretraining_loss_and_gradients(config, student, teacher, images, noise)


def of_every_parameter(self, config, student, teacher, images, noise, drop_path=None):
    loss, gradients = self.right.pretraining_loss_and_gradients(config, student, teacher, images, noise, drop_path)
    return loss, {name: np.zeros_like(value) for name, value in student.items()} | gradients


FAULTS = (
    torch_edit(
        "target gradient not stopped",
        "gradients-reference",
        "float64",
        (
            "backend",
            """        with torch.no_grad():
            target, target_ids = _call(model.Teacher, config, self._tensors(teacher), patches, masked)
""",
            """        own = {n: t + student[n] - student[n].detach() for n, t in self._tensors(teacher).items()}
        target, target_ids = _call(model.Teacher, config, own, patches, masked)
""",
        ),
    ),
    numpy_edit(
        "GELU's gradient without its density",
        "gradients-differences",
        ("backward", "(distribution + x * density)", "distribution"),
    ),
    numpy_edit(
        "softmax's gradient without its projection",
        "gradients-differences",
        ("backward", "(d_weights - (d_weights * weights).sum(axis=-1, keepdims=True))", "d_weights"),
    ),
    numpy_edit(
        "LayerNorm's deviation held constant",
        "gradients-golden",
        ("backward", "- n * projection) * inverse_std", ") * inverse_std"),
    ),
    numpy_override("loss gradient not averaged", "gradients-loss", pretraining_loss_and_gradients=not_averaged),
    numpy_edit(
        "loss gradient not orthogonal",
        "gradients-loss",
        ("backward", "(unit * cosine - unit_target)", "(-unit_target)"),
    ),
    numpy_edit(
        "drop path left out of the backward pass",
        "gradients-reference",
        ("backward", "heads, drop_path, grad)", "heads, np.ones_like(drop_path), grad)"),
    ),
    numpy_override("drop path ignored", "gradients-drop-path", pretraining_loss_and_gradients=no_drop_path),
    numpy_override(
        "gradient of the fixed positions", "gradients-reference", pretraining_loss_and_gradients=of_every_parameter
    ),
)
