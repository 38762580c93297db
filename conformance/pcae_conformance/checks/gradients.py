"""Gradients of the pre-training loss for the student's parameters. Letters: B images, L blocks, K targets, D width."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_conformance import golden, selections, strategies
from pcae_conformance.cases import GoldenName
from pcae_conformance.check import DOUBLE, WIDE, check
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats
from pcae_conformance.model_cases import ModelCase, TrainCase
from pcae_conformance.subject import AT_LEAST_FLOAT32, Subject
from pcae_conformance.tolerances import CENTRAL_DIFFERENCE, DIFFERENCE_STEP, GRADIENT, SCORE_MARGIN
from pcae_core.parameters import is_trainable

SHARP = [
    TrainCase(batch=2, grid=4, chans=3, patch=2, depth=3, stages=2, heads=2, decoder_depth=2, drop_path=0.5),
    TrainCase(batch=1, grid=2, depth=2, stages=1, mask_ratio=0.75, keep=0.7, activation="quick_gelu"),
    TrainCase(batch=2, grid=4, depth=1, width=16, decoder_heads=2, keep=0.3, classes=3),
    TrainCase(
        batch=1, grid=3, depth=2, keep=0.7, norm_eps=1e-2, activation="gelu_tanh", pre_norm=True, patch_bias=False
    ),
]


def _gradients(
    subject: Subject, case: ModelCase, drop_path: NDArray[Any] | None = None
) -> tuple[Floats, dict[str, Floats]]:
    student, teacher = case.student(subject.dtype), case.teacher(subject.dtype)
    loss, gradients = subject.training_backend.pretraining_loss_and_gradients(
        case.config(),
        subject.own_all(student),
        subject.own_all(teacher),
        subject.own(case.images(subject.dtype)),
        case.noise(),
        drop_path,
    )
    names, trainable = set(gradients), {name for name in student if is_trainable(name)}
    require(names == trainable, f"gradients: names that are wrong or missing: {sorted(names ^ trainable)}")
    host = {name: subject.host(f"gradient of {name}", value, subject.dtype) for name, value in gradients.items()}
    return subject.host("loss", loss, AT_LEAST_FLOAT32), host


def _near_ties(subject: Subject, case: ModelCase) -> bool:
    """Whether rounding decides the teacher's choice of targets. Gradients cannot be compared then."""
    masked = np.sort(np.argsort(case.noise(), axis=1, kind="stable")[:, case.config().num_visible :], axis=1)
    images, teacher = case.images(subject.dtype), case.teacher(subject.dtype)
    found = selections.stages(case.config(), teacher, images, masked, case.keep, with_prefix=False)
    return selections.near_ties(found, SCORE_MARGIN[subject.dtype])


@check(
    "gradients-reference",
    statement="equal to the reference's, derived by hand, with and without drop path",
    strategy=strategies.runs(heads=True),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def reference(subject: Subject, case: TrainCase) -> None:
    """Errors are relative to the largest gradient of the model."""
    if _near_ties(subject, case):
        return
    drop_path = case.step_drop_path(0)
    loss, got = _gradients(subject, case, drop_path)
    student, teacher = case.student(subject.dtype), case.teacher(subject.dtype)
    expected_loss, expected = subject.reference.pretraining_loss_and_gradients(
        case.config(), student, teacher, case.images(subject.dtype), case.noise(), drop_path
    )
    largest = max(float(np.abs(value).max()) for value in expected.values())
    tolerance = GRADIENT[subject.dtype]
    subject.near("loss", loss, expected_loss, tolerance)
    for name, value in got.items():
        subject.near(f"gradient of {name}", value, expected[name], tolerance * largest)


@check(
    "gradients-differences",
    statement="the backend's and the reference's gradients equal central differences of the loss in random directions",
    strategy=strategies.runs(heads=True),
    examples=SHARP,
    dtypes=DOUBLE,
    training=True,
)
def differences(subject: Subject, case: TrainCase) -> None:
    """Targets are constants: the teacher does not change. Directions: one matrix, one bias, all parameters."""
    config, images, noise = case.config(), case.images(subject.dtype), case.noise()
    student, teacher, rng = case.student(subject.dtype), case.teacher(subject.dtype), case.rng()
    _, gradients = _gradients(subject, case)
    _, expected = subject.reference.pretraining_loss_and_gradients(config, student, teacher, images, noise)
    own_teacher, own_images = subject.own_all(teacher), subject.own(images)

    def loss(parameters: dict[str, Floats]) -> Floats:
        out = subject.training_backend.pretraining_forward(
            config, subject.own_all(parameters), own_teacher, own_images, noise
        )
        return subject.host("loss", out.loss, AT_LEAST_FLOAT32)

    for names in (list(gradients), [str(rng.choice(list(gradients)))]):
        direction = {name: rng.normal(size=student[name].shape) for name in names}
        length = np.sqrt(sum((value**2).sum() for value in direction.values()))
        step = {name: DIFFERENCE_STEP * value / length for name, value in direction.items()}
        ahead, behind = (student | {n: student[n] + sign * s for n, s in step.items()} for sign in (1.0, -1.0))
        slope = (loss(ahead) - loss(behind)) / (2.0 * DIFFERENCE_STEP)
        for whose, values in (("backend", gradients), ("reference", expected)):
            along = sum((values[name] * step[name]).sum() for name in names) / DIFFERENCE_STEP
            what = "all parameters" if len(names) > 1 else names[0]
            subject.near(f"slope along {what} by the {whose}'s gradient", along, slope, CENTRAL_DIFFERENCE)


@check(
    "gradients-loss",
    statement="the gradient of the cosine loss equals central differences of cosine_loss",
    strategy=strategies.runs(heads=True),
    examples=SHARP,
    dtypes=DOUBLE,
    training=True,
)
def loss_gradient(subject: Subject, case: TrainCase) -> None:
    """Observe the bias of the last layer, which shifts all predictions alike."""
    student, teacher = subject.own_all(case.student(subject.dtype)), subject.own_all(case.teacher(subject.dtype))
    images = subject.own(case.images(subject.dtype))
    out = subject.training_backend.pretraining_forward(case.config(), student, teacher, images, case.noise())
    prediction, target = subject.backend.to_numpy(out.prediction), subject.backend.to_numpy(out.target)
    _, gradients = _gradients(subject, case)
    slopes = []
    for feature in np.eye(case.width) * DIFFERENCE_STEP:
        ahead, behind = (subject.own(prediction + shift) for shift in (feature, -feature))
        losses = [subject.training_backend.cosine_loss(moved, subject.own(target)) for moved in (ahead, behind)]
        ahead_loss, behind_loss = (subject.host("loss", value, AT_LEAST_FLOAT32) for value in losses)
        slopes.append((ahead_loss - behind_loss) / (2.0 * DIFFERENCE_STEP))
    # A short prediction bends the loss: its third derivative grows with the inverse length cubed.
    shortest = float(np.linalg.norm(prediction, axis=-1).min())
    subject.near("slopes", gradients["decoder_pred.bias"], slopes, CENTRAL_DIFFERENCE * (1.0 + shortest**-3))


@check(
    "gradients-golden",
    statement="the gradients of the golden cases, recorded from the paper's release",
    examples=[GoldenName(name=name) for name in golden.NAMES],
    dtypes=WIDE,
    training=True,
)
def recorded(subject: Subject, case: GoldenName) -> None:
    """Compare the gradient of every trainable parameter."""
    recorded_case = golden.load(case.name)
    loss, gradients = subject.training_backend.pretraining_loss_and_gradients(
        recorded_case.config,
        subject.own_all(recorded_case.group("student")),
        subject.own_all(recorded_case.group("teacher")),
        subject.own(recorded_case.arrays["images"]),
        recorded_case.arrays["noise"],
    )
    expected = recorded_case.group("grad")
    largest = max(float(np.abs(value).max()) for value in expected.values())
    tolerance = GRADIENT[subject.dtype]
    subject.close("loss", loss, recorded_case.arrays["loss"], tolerance)
    require(set(gradients) == set(expected), f"gradients: wrong or missing {sorted(set(gradients) ^ set(expected))}")
    for name, value in expected.items():
        subject.close(f"gradient of {name}", gradients[name], value, tolerance * largest, subject.dtype)


@check(
    "gradients-drop-path",
    statement="a branch that drop path switches off for every image gets no gradient, one of factor 1 its own",
    strategy=strategies.runs(heads=True),
    examples=SHARP,
    dtypes=DOUBLE,
    training=True,
)
def drop_path(subject: Subject, case: TrainCase) -> None:
    """Factors of 1 mean no drop path. Factors of 0 switch the branch off."""
    if _near_ties(subject, case):
        return
    case = dataclasses.replace(case, drop_path=0.0)
    plain_loss, plain = _gradients(subject, case)
    largest = max(float(np.abs(value).max()) for value in plain.values())
    scales = np.ones((case.depth, 2, case.batch), dtype=np.float32)
    loss, got = _gradients(subject, case, scales)
    subject.near("loss with factors of 1", loss, plain_loss, GRADIENT[subject.dtype])
    for name, value in got.items():
        subject.near(f"gradient of {name}, factors of 1", value, plain[name], GRADIENT[subject.dtype] * largest)
    block, branch = int(case.rng().integers(case.depth)), int(case.rng().integers(2))
    scales[block, branch] = 0.0
    _, got = _gradients(subject, case, scales)
    for part in (("norm1", "attn"), ("norm2", "mlp"))[branch]:
        for name in (n for n in got if n.startswith(f"blocks.{block}.{part}.")):
            subject.near(f"gradient of {name}, switched off", got[name], np.zeros_like(got[name]), 0.0)
