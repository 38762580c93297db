"""Faults of pre-training's gradients."""

from __future__ import annotations

from faults.fault import numpy_edit, torch_edit

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
    numpy_edit(
        "loss gradient not averaged",
        "gradients-loss",
        ("backward", "np.where(length > 0, length, 1.0) / tokens", "np.where(length > 0, length, 1.0)"),
    ),
    numpy_edit(
        "loss gradient not orthogonal",
        "gradients-loss",
        ("backward", "(unit * cosine - unit_target)", "(-unit_target)"),
    ),
    numpy_edit(
        "drop path left out of the backward pass",
        "gradients-reference",
        ("backward", "heads, drop_path, eps, grad)", "heads, np.ones_like(drop_path), eps, grad)"),
    ),
    numpy_edit(
        "drop path ignored",
        "gradients-drop-path",
        (
            "backend",
            "np.ones((config.depth, 2, batch)) if drop_path is None else _floats(drop_path)",
            "np.ones((config.depth, 2, batch))",
        ),
    ),
    numpy_edit(
        "gradient of the fixed positions",
        "gradients-reference",
        (
            "backward",
            "for name, value in parameters.items() if is_trainable(name)}",
            "for name, value in parameters.items()}",
        ),
    ),
)
