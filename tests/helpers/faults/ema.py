"""Faults of `ema_update`."""

from __future__ import annotations

from faults.mutation import numpy_fault, torch_fault

EMA = "{name: momentum * value + (1.0 - momentum) * student[name] for name, value in teacher.items()}"
UPDATED = "ops.ema_update(_all_floats(teacher), _all_floats(student), momentum)"

FAULTS = (
    numpy_fault(
        "coefficients swapped",
        "ema-reference",
        ("ops", EMA, EMA.replace("momentum * value + (1.0 - momentum)", "(1.0 - momentum) * value + momentum")),
    ),
    numpy_fault(
        "EMA in place on the student",
        "ema-no-aliasing",
        (
            "backend",
            UPDATED,
            "{n: np.multiply(student[n], 1.0 - momentum, out=student[n]) + momentum * teacher[n] for n in teacher}",
        ),
    ),
    numpy_fault(
        "EMA gives the student's arrays",
        "ema-no-aliasing",
        ("backend", UPDATED, "{n: student[n] for n in teacher} if momentum == 0 else " + UPDATED),
    ),
    numpy_fault(
        "EMA keeps the student's further names",
        "ema-reference",
        ("ops", EMA, "dict(student) | " + EMA),
        ("backend", "dtype=np.asarray(teacher[name]).dtype", "dtype=np.asarray(student[name]).dtype"),
    ),
    numpy_fault(
        "momentum in float16",
        "ema-convexity",
        ("ops", EMA, EMA.replace("(1.0 - momentum)", "float(np.float16(1.0 - momentum))")),
    ),
    torch_fault(
        "EMA in the student's dtype",
        "ema-mixed-dtypes",
        "float16",
        (
            "backend",
            "return dict(zip(teacher, updated, strict=True))",
            "return {n: u.to(student[n].dtype) for n, u in zip(teacher, updated, strict=True)}",
        ),
    ),
)
