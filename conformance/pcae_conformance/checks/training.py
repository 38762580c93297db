"""Training: AdamW and EMA. Letters: B images, K targets, L blocks.

What a step must do is stated twice: the reference does it, and `updates.after` says it from the backend's gradients.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pcae_conformance import steps, strategies, updates
from pcae_conformance.check import DOUBLE, WIDE, check
from pcae_conformance.dtypes import Floats
from pcae_conformance.model_cases import TrainCase
from pcae_conformance.steps import SHARP
from pcae_conformance.subject import AT_LEAST_FLOAT32, Subject
from pcae_conformance.tolerances import MODEL, TEN_STEPS
from pcae_core.contract import TrainState
from pcae_core.parameters import initial_parameters, is_trainable

SHARP_RUNS = [dataclasses.replace(case, steps=10) for case in SHARP]


@check(
    "train-step",
    statement="one step from a given state equals the reference: loss, norm, targets, features, the state after it",
    strategy=strategies.runs(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def step(subject: Subject, case: TrainCase) -> None:
    """Some cases have accumulation, clipping, drop path and uint8 images."""
    if steps.near_ties(subject, case):
        return
    dtype, state = subject.dtype, case.state(subject.dtype)
    ours, theirs = (
        steps.pretrainer(subject.training_backend, case, dtype, state),
        steps.pretrainer(subject.reference, case, "float64", state),
    )
    got, expected = steps.step(ours, case), steps.step(theirs, case)
    subject.close("loss", got.loss, expected.loss, MODEL[dtype])
    norm = steps.check_norm(subject, got, np.asarray(expected.grad_norm))
    subject.close("target", got.target, expected.target, 2.0 * MODEL[dtype])
    subject.close("features", got.features, expected.features, MODEL[dtype])
    steps.compare_states(subject, ours.state(), theirs.state(), steps.state_tolerances(case, dtype, norm))


@check(
    "train-ten-steps",
    statement="ten steps from the seed equal the reference's",
    strategy=strategies.runs(steps=10, max_depth=2),
    examples=SHARP_RUNS,
    dtypes=DOUBLE,
    training=True,
)
def ten_steps(subject: Subject, case: TrainCase) -> None:
    """Student and teacher, without the key's part of each attention bias.

    Softmax does not see a number added to all scores of a query, so that part's gradient is zero but for rounding, and
    AdamW, which divides a gradient by its own size, would blow the rounding up to full steps.
    """
    ours, theirs = (
        steps.pretrainer(backend, case, "float64", None) for backend in (subject.training_backend, subject.reference)
    )
    for i in range(case.steps):
        steps.step(ours, case, i)
        steps.step(theirs, case, i)
    got, expected = ours.state(), theirs.state()
    for group in ("student", "teacher"):
        for name, value in getattr(expected, group).items():
            tolerance = np.full(value.shape, TEN_STEPS * case.learning_rate + 1e-15)
            if name.endswith("attn.qkv.bias"):
                tolerance[len(value) // 3 : 2 * len(value) // 3] = np.inf
            subject.near(f"{group} {name} after {case.steps} steps", getattr(got, group)[name], value, tolerance)


@check(
    "train-start",
    statement="training starts from the seed's parameters, the teacher as an exact copy, moments zero",
    strategy=strategies.runs(),
    examples=SHARP[:1],
    dtypes=WIDE,
    training=True,
)
def start(subject: Subject, case: TrainCase) -> None:
    """Initial numbers are the same float32 numbers in every framework."""
    state = steps.pretrainer(subject.training_backend, case, subject.dtype, None).state()
    student = initial_parameters(case.config(), case.seed)
    zeros = {name: np.zeros_like(value) for name, value in student.items() if is_trainable(name)}
    teacher = {name: student[name] for name in case.teacher("float32")}
    steps.compare_states(
        subject, state, TrainState(dict(student), teacher, zeros, zeros), dict.fromkeys(steps.GROUPS, 0.0)
    )


def _micro_batches(subject: Subject, case: TrainCase, state: TrainState) -> tuple[Floats, dict[str, Floats]]:
    """Loss and gradients, each averaged over the micro-batches."""
    images, noise, scales = steps.normalized(case, case.step_images(0)), case.step_noise(0), case.step_drop_path(0)
    losses, total = [], {name: np.zeros(value.shape) for name, value in state.exp_avg.items()}
    for rows in np.split(np.arange(case.batch), case.accumulation):
        part = None if scales is None else scales[:, :, rows]
        loss, gradients = subject.training_backend.pretraining_loss_and_gradients(
            case.config(), state.student, state.teacher, images[rows], noise[rows], part
        )
        losses.append(subject.host("loss", loss, AT_LEAST_FLOAT32))
        for name, value in gradients.items():
            total[name] = total[name] + subject.backend.to_numpy(value) / case.accumulation
    return np.mean(losses), total


@check(
    "train-adamw",
    statement="a step: mean gradient of the micro-batches, clipping, AdamW with bias correction and decay of matrices "
    "only, then one EMA of the new student",
    strategy=strategies.runs(),
    examples=SHARP,
    dtypes=DOUBLE,
    training=True,
)
def adamw(subject: Subject, case: TrainCase) -> None:
    """Compute the step here from the gradients of `pretraining_loss_and_gradients`."""
    state = case.state("float64")
    loss, gradients = _micro_batches(subject, case, state)
    pretrainer = steps.pretrainer(subject.training_backend, case, "float64", state)
    out = steps.step(pretrainer, case)
    subject.close("loss", out.loss, loss, MODEL["float64"])
    norm = steps.check_norm(subject, out, np.asarray(updates.norm(gradients)))
    expected = updates.after(case.pretrain_config("float64"), state, gradients, **case.hyper_parameters(0))
    steps.compare_states(subject, pretrainer.state(), expected, steps.state_tolerances(case, "float64", norm))


@check(
    "train-skips-nonfinite",
    statement="a step whose loss or gradient is not finite reports it and changes no parameters and moments; it "
    "counts, the EMA goes on, and the next step is not affected",
    strategy=strategies.runs(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def skips_nonfinite(subject: Subject, case: TrainCase) -> None:
    """One pixel of the first image is NaN, so the first of several micro-batches is not finite."""
    dtype, state, rates = subject.dtype, case.state(subject.dtype), case.hyper_parameters(0)
    pretrainer = steps.pretrainer(subject.training_backend, case, dtype, state)
    images = steps.normalized(case, case.step_images(0))
    images[0, 0, 0, 0] = np.nan
    out = pretrainer.step(images, case.step_noise(0), **rates)
    steps.compare_skipped(subject, pretrainer.state(), case.state(dtype), rates["momentum"], out)
    fresh = steps.pretrainer(subject.training_backend, case, dtype, pretrainer.state())
    for trainer in (pretrainer, fresh):
        steps.check_finite(subject, steps.step(trainer, case), True)
    steps.compare_untouched(subject, pretrainer.state(), fresh.state())
