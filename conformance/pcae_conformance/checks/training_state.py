"""Training: its state, fixed points, micro-batches and pixels. Letters: B images, K targets."""

from __future__ import annotations

import dataclasses

import numpy as np

from pcae_conformance import steps, strategies
from pcae_conformance.check import DOUBLE, WIDE, check
from pcae_conformance.checks.arrays import overwrite
from pcae_conformance.compare import require
from pcae_conformance.model_cases import TrainCase
from pcae_conformance.steps import SHARP
from pcae_conformance.subject import Subject
from pcae_conformance.tolerances import MODEL


@check(
    "train-state",
    statement="a state put in again comes out the same, and training goes on from it as if never stopped",
    strategy=strategies.runs(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def state_round_trip(subject: Subject, case: TrainCase) -> None:
    """Check a drawn state and the state after a step, with the loss scale of float16."""
    dtype, state = subject.dtype, case.state(subject.dtype)
    first = steps.pretrainer(subject.training_backend, case, dtype, state)
    steps.compare_untouched(subject, first.state(), state)
    steps.step(first, case)
    second = steps.pretrainer(subject.training_backend, case, dtype, first.state())
    steps.compare_untouched(subject, second.state(), first.state())
    steps.step(first, case, 1)
    steps.step(second, case, 1)
    steps.compare_states(subject, second.state(), first.state(), steps.state_tolerances(case, dtype, 1.0))


@check(
    "train-snapshot",
    statement="a state is a snapshot: later steps leave it alone, and changing it changes no training",
    strategy=strategies.runs(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def snapshot(subject: Subject, case: TrainCase) -> None:
    """Check the state that goes in and the state that comes out."""
    dtype, given = subject.dtype, case.state(subject.dtype)
    pretrainer = steps.pretrainer(subject.training_backend, case, dtype, given)
    taken = pretrainer.state()
    steps.step(pretrainer, case)
    for which, state in (("given", given), ("taken", taken)):
        for group in steps.GROUPS:
            for name, value in getattr(case.state(dtype), group).items():
                subject.near(f"{which} {group} {name} after a step", getattr(state, group)[name], value, 0.0)
    before = pretrainer.state()
    for state in (given, taken, pretrainer.state()):
        for group in steps.GROUPS:
            for array in getattr(state, group).values():
                overwrite(array)
    steps.compare_untouched(subject, pretrainer.state(), before)


@check(
    "train-accumulation",
    statement="micro-batches accumulate to the step of the whole batch, with one update and one EMA",
    strategy=strategies.runs(),
    examples=[SHARP[1], dataclasses.replace(SHARP[0], accumulation=2)],
    dtypes=WIDE,
    training=True,
)
def accumulation(subject: Subject, case: TrainCase) -> None:
    """Compare one image per micro-batch with all images at once."""
    if steps.near_ties(subject, case):
        return
    dtype, state = subject.dtype, case.state(subject.dtype)
    whole, parts = (
        steps.pretrainer(subject.training_backend, dataclasses.replace(case, accumulation=n), dtype, state)
        for n in (1, case.batch)
    )
    one, other = steps.step(whole, case), steps.step(parts, case)
    for name in ("loss", "target", "features"):
        got, expected = (subject.backend.to_numpy(getattr(out, name)) for out in (other, one))
        tolerance = 2.0 * MODEL[dtype] * max(1.0, float(np.abs(expected).max()))
        subject.near(f"{name} with micro-batches", got, expected, tolerance)
    steps.compare_states(subject, parts.state(), whole.state(), steps.state_tolerances(case, dtype, 1.0))


@check(
    "train-fixed-points",
    statement="rate 0 keeps the student; momentum 1 keeps the teacher, 0 makes it the new student's encoder",
    strategy=strategies.runs(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def fixed_points(subject: Subject, case: TrainCase) -> None:
    """Compare exactly. The moments and the number of steps still change."""
    dtype, state = subject.dtype, case.state(subject.dtype)
    for rate, momentum in ((0.0, 1.0), (case.learning_rate, 1.0), (case.learning_rate, 0.0)):
        pretrainer = steps.pretrainer(subject.training_backend, case, dtype, state)
        pretrainer.step(case.step_images(0), case.step_noise(0), learning_rate=rate, momentum=momentum, drop_path=None)
        after = pretrainer.state()
        require(after.step == state.step + 1, f"step of the state: got {after.step}, expected {state.step + 1}")
        if rate == 0.0:
            for name, value in state.student.items():
                subject.near(f"student {name} at rate 0", after.student[name], value, 0.0)
        source = state.teacher if momentum == 1.0 else after.student
        for name, value in after.teacher.items():
            subject.near(f"teacher {name} at momentum {momentum}", value, source[name], 0.0)


@check(
    "train-pixels",
    statement="uint8 images are scaled to 0..1 and normalised by the loader's mean and deviation of each channel",
    strategy=strategies.runs(),
    examples=SHARP[:1],
    dtypes=DOUBLE,
    training=True,
)
def pixels(subject: Subject, case: TrainCase) -> None:
    """Compare with the same images, normalised beforehand."""
    case = dataclasses.replace(case, pixels=True)
    raw, noise, rates = case.step_images(0), case.step_noise(0), case.hyper_parameters(0)
    targets = []
    for images in (raw, steps.normalized(case, raw)):
        pretrainer = steps.pretrainer(subject.training_backend, case, "float64", case.state("float64"))
        out = pretrainer.step(images, noise, **rates)
        targets.append([subject.backend.to_numpy(x) for x in (out.loss, out.target, out.features)])
    for name, got, expected in zip(("loss", "target", "features"), *targets, strict=True):
        subject.near(f"{name} of uint8 images", got, expected, 2.0 * MODEL["float64"])
