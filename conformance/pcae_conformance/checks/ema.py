"""The teacher's update: `momentum * teacher + (1 - momentum) * student`, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pcae_conformance import strategies, tolerances
from pcae_conformance.cases import ParametersCase
from pcae_conformance.check import WIDE, check
from pcae_conformance.checks.arrays import overwrite
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats
from pcae_conformance.subject import Subject
from pcae_core.contract import Array

SHARP = [
    ParametersCase(count=7, momentum=0.996),
    ParametersCase(count=7, momentum=0.0),
    ParametersCase(count=7, momentum=1.0),
    ParametersCase(count=0),
    ParametersCase(count=2, momentum=0.9999),
]


def _update(subject: Subject, case: ParametersCase) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, Floats]]:
    teacher, student = case.parameters(subject.dtype)
    got = subject.training_backend.ema_update(subject.own_all(teacher), subject.own_all(student), case.momentum)
    require(list(got) == list(teacher), f"names of the new teacher: got {list(got)}, expected {list(teacher)}")
    return teacher, student, {name: subject.host(name, value, subject.dtype) for name, value in got.items()}


@check(
    "ema-reference",
    statement="equal to the reference's; the teacher's names and dtypes kept, the student's further arrays ignored",
    strategy=strategies.parameters(),
    examples=SHARP,
    training=True,
)
def reference(subject: Subject, case: ParametersCase) -> None:
    """Arrays have every shape; some are scalars or empty."""
    teacher, student, got = _update(subject, case)
    expected = subject.reference.ema_update(teacher, student, case.momentum)
    for name, value in got.items():
        tolerance = tolerances.ema(teacher[name], student[name], subject.dtype)
        subject.near(name, value, expected[name], tolerance)


@check(
    "ema-fixed-points",
    statement="momentum 1 keeps the teacher, 0 takes the student, and equal parameters stay as they are",
    strategy=strategies.parameters(),
    examples=SHARP,
    training=True,
)
def fixed_points(subject: Subject, case: ParametersCase) -> None:
    """Momentum 0 and 1 are compared exactly, equal parameters to within rounding."""
    teacher, student = case.parameters(subject.dtype)
    for momentum, expected in ((1.0, teacher), (0.0, student)):
        got = subject.training_backend.ema_update(subject.own_all(teacher), subject.own_all(student), momentum)
        for name, value in got.items():
            subject.close(f"{name}, momentum {momentum}", value, expected[name], 0.0, subject.dtype)
    got = subject.training_backend.ema_update(subject.own_all(teacher), subject.own_all(teacher), case.momentum)
    for name, value in got.items():
        tolerance = tolerances.ema(teacher[name], teacher[name], subject.dtype)
        subject.close(f"{name}, student equal to teacher", value, teacher[name], tolerance, subject.dtype)


@check(
    "ema-convexity",
    statement="between teacher and student, and nearer to the teacher the higher the momentum",
    strategy=strategies.parameters(),
    examples=SHARP,
    training=True,
)
def convexity(subject: Subject, case: ParametersCase) -> None:
    """The distance to the teacher is `1 - momentum` of that between teacher and student."""
    teacher, student, got = _update(subject, case)
    for name, value in got.items():
        low, high = np.minimum(teacher[name], student[name]), np.maximum(teacher[name], student[name])
        tolerance = tolerances.ema(teacher[name], student[name], subject.dtype)
        subject.near(f"{name}, between teacher and student", value, np.clip(value, low, high), tolerance)
        moved, whole = np.abs(value - teacher[name]), np.abs(student[name] - teacher[name])
        subject.near(f"{name}, way to the student", moved, (1.0 - case.momentum) * whole, 2.0 * tolerance)


def _read_only(subject: Subject, values: Mapping[str, Floats], dtype: str) -> dict[str, Array]:
    arrays = {name: value.astype(dtype) for name, value in values.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return dict(arrays)


@check(
    "ema-no-aliasing",
    statement="changing student or old teacher afterwards leaves the new teacher, and neither is changed by the update",
    strategy=strategies.parameters(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def no_aliasing(subject: Subject, case: ParametersCase) -> None:
    """Inputs are the backend's arrays, NumPy's, and read-only ones."""
    teacher, student = case.parameters(subject.dtype)
    dtype = subject.dtype
    kinds: list[Callable[[Mapping[str, Floats]], dict[str, Array]]] = [
        subject.own_all,
        lambda values: {name: value.astype(dtype) for name, value in values.items()},
        lambda values: _read_only(subject, values, dtype),
    ]
    for kind in kinds:
        old, source = kind(teacher), kind(student)
        new = subject.training_backend.ema_update(old, source, case.momentum)
        before = {name: subject.backend.to_numpy(value) for name, value in new.items()}
        for arrays, values in ((old, teacher), (source, student)):
            for name, array in arrays.items():
                subject.near(f"{name} after the update", subject.backend.to_numpy(array), values[name], 0.0)
                overwrite(array)
        for name, value in new.items():
            host = subject.backend.to_numpy(value)
            subject.near(f"new {name}, its sources overwritten", host, before[name], 0.0)


@check(
    "ema-mixed-dtypes",
    statement="the teacher's dtype is kept when the student's is another",
    strategy=strategies.parameters(),
    examples=[ParametersCase(count=3, momentum=0.9)],
    dtypes=("float32", "bfloat16", "float16"),
    training=True,
)
def mixed_dtypes(subject: Subject, case: ParametersCase) -> None:
    """The student is float32, the teacher has the subject's dtype."""
    teacher, student = case.parameters(subject.dtype)
    student32 = {name: subject.own(value, "float32") for name, value in student.items()}
    got = subject.training_backend.ema_update(subject.own_all(teacher), student32, case.momentum)
    expected = subject.reference.ema_update(teacher, student, case.momentum)
    for name, value in got.items():
        tolerance = tolerances.ema(teacher[name], student[name], subject.dtype)
        subject.close(name, value, expected[name], tolerance, subject.dtype)
