"""Faults of `ema_update`."""

from __future__ import annotations

import numpy as np

from faults.fault import numpy_override, torch_override


def coefficients_swapped(self, teacher, student, momentum):
    return self.right.ema_update(teacher, student, 1.0 - momentum)


def in_place(self, teacher, student, momentum):
    part = {name: np.multiply(student[name], 1.0 - momentum, out=student[name]) for name in teacher}
    return {name: np.asarray(part[name] + momentum * value) for name, value in teacher.items()}


def students_arrays(self, teacher, student, momentum):
    if momentum == 0:
        return {name: student[name] for name in teacher}
    return self.right.ema_update(teacher, student, momentum)


def further_names(self, teacher, student, momentum):
    return dict(student) | self.right.ema_update(teacher, student, momentum)


def momentum_in_float16(self, teacher, student, momentum):
    rest = float(np.float16(1.0 - momentum))
    return {name: np.asarray(momentum * value + rest * student[name]) for name, value in teacher.items()}


def students_dtype(self, teacher, student, momentum):
    """In PyTorch."""
    updated = self.right.ema_update(teacher, student, momentum)
    return {name: value.to(student[name].dtype) for name, value in updated.items()}


FAULTS = (
    numpy_override("coefficients swapped", "ema-reference", ema_update=coefficients_swapped),
    numpy_override("EMA in place on the student", "ema-no-aliasing", ema_update=in_place),
    numpy_override("EMA gives the student's arrays", "ema-no-aliasing", ema_update=students_arrays),
    numpy_override("EMA keeps the student's further names", "ema-reference", ema_update=further_names),
    numpy_override("momentum in float16", "ema-convexity", ema_update=momentum_in_float16),
    torch_override("EMA in the student's dtype", "ema-mixed-dtypes", "float16", ema_update=students_dtype),
)
