"""Helpers of the training checks: make a step, and compare the state after it. Letters: B images, L blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_conformance import selections
from pcae_conformance.compare import require
from pcae_conformance.dtypes import EPS, Floats, parameter_dtype
from pcae_conformance.finetune_cases import FinetuneCase
from pcae_conformance.model_cases import TrainCase
from pcae_conformance.subject import Subject
from pcae_conformance.tolerances import GRADIENT, MODEL, SCORE_MARGIN, TRAINED
from pcae_core.contract import FinetuneOutput, Finetuner, Pretrainer, PretrainOutput, TrainingBackend, TrainState

SHARP = [
    TrainCase(
        batch=2, grid=4, chans=3, patch=2, depth=3, stages=2, heads=2, decoder_depth=2, drop_path=0.5, pixels=True
    ),
    TrainCase(batch=2, grid=3, depth=2, accumulation=2, clip=0.05, weight_decay=0.5, start_step=0, pre_norm=True),
    TrainCase(
        grid=3,
        chans=2,
        depth=2,
        stages=2,
        keep=0.7,
        momentum=0.0,
        center="raw",
        pixels=True,
        own_mean=True,
        beta1=0.8,
        beta2=0.99,
    ),
]
GROUPS = ("student", "teacher", "exp_avg", "exp_avg_sq")
"""The dictionaries of a `TrainState`."""


def pretrainer(backend: TrainingBackend, case: TrainCase, dtype: str, state: TrainState | None) -> Pretrainer:
    """A pre-trainer with `dtype` as its precision, from `state` or from the case's seed."""
    return backend.create_pretrainer(case.pretrain_config(dtype), state)


def step(trainer: Pretrainer, case: TrainCase, number: int = 0) -> PretrainOutput:
    """Make step `number` of the case's run."""
    return trainer.step(
        case.step_images(number),
        case.step_noise(number),
        drop_path=case.step_drop_path(number),
        **case.hyper_parameters(number),
    )


def finetune_step(trainer: Finetuner, case: FinetuneCase, number: int = 0) -> FinetuneOutput:
    """Make step `number` of the case's fine-tuning run."""
    return trainer.step(
        case.step_images(number),
        case.targets(number),
        drop_path=case.step_drop_path(number),
        **case.hyper_parameters(number),
    )


def near_ties(subject: Subject, case: TrainCase) -> bool:
    """Whether rounding decides the teacher's choice of targets. A step cannot be compared then."""
    masked = np.sort(np.argsort(case.step_noise(0), axis=1, kind="stable")[:, case.config().num_visible :], axis=1)
    images, teacher = normalized(case, case.step_images(0)), case.state(subject.dtype).teacher
    parameters = {name: value.astype(np.float64) for name, value in teacher.items()}
    found = selections.stages(case.config(), parameters, images, masked, case.keep, with_prefix=False)
    return selections.near_ties(found, SCORE_MARGIN[subject.dtype])


def normalized(case: TrainCase, images: NDArray[Any]) -> Floats:
    """Images as the student sees them: pixels scaled to 0..1, then normalised with the loader's mean and std."""
    if images.dtype != np.uint8:
        return images.astype(np.float64)
    mean, std = case.loader().normalization(case.chans)
    channels = [(images[:, c] / 255.0 - mean[c]) / std[c] for c in range(case.chans)]
    return np.stack(channels, axis=1)


def compare_states(subject: Subject, got: TrainState, expected: TrainState, tolerances: Mapping[str, float]) -> None:
    """Compare every array, to within the tolerance of its group plus a rounding in the parameters' dtype."""
    require(got.step == expected.step, f"step of the state: got {got.step}, expected {expected.step}")
    expected_dtype = parameter_dtype(subject.dtype)
    for group in GROUPS:
        ours, theirs = getattr(got, group), getattr(expected, group)
        require(set(ours) == set(theirs), f"{group}: wrong or missing names {sorted(set(ours) ^ set(theirs))}")
        for name, value in theirs.items():
            dtype = ours[name].dtype.name
            require(dtype == expected_dtype, f"{group} {name}: got the dtype {dtype}, expected {expected_dtype}")
            rounding = 4.0 * EPS[dtype] * np.abs(value) if tolerances[group] else 0.0
            subject.near(f"{group} {name}", ours[name], value, tolerances[group] + rounding)


def compare_untouched(subject: Subject, got: TrainState, expected: TrainState) -> None:
    """Compare everything in two states, bit for bit."""
    scales = got.loss_scale, expected.loss_scale
    require(scales[0] == scales[1], f"loss scale of the state: got {scales[0]}, expected {scales[1]}")
    compare_states(subject, got, expected, dict.fromkeys(GROUPS, 0.0))


def check_finite(subject: Subject, out: PretrainOutput | FinetuneOutput, expected: bool) -> None:
    """Check that the output's `finite` is `expected`."""
    got = subject.backend.to_numpy(out.finite)
    require(got.shape == (), f"finite: got the shape {got.shape}, expected a scalar")
    require(bool(got) == expected, f"finite: got {bool(got)}, expected {expected}")


def compare_skipped(
    subject: Subject, got: TrainState, before: TrainState, momentum: float, out: PretrainOutput | FinetuneOutput
) -> None:
    """Check the state after a step that is not finite: the step counts, and only the moving average has changed."""
    check_finite(subject, out, False)
    averages: dict[str, NDArray[Any]] = {
        name: momentum * value.astype(np.float64) + (1.0 - momentum) * before.student[name].astype(np.float64)
        for name, value in before.teacher.items()
    }
    expected = TrainState(before.student, averages, before.exp_avg, before.exp_avg_sq, before.step + 1)
    rounding = dict.fromkeys(GROUPS, 0.0) | {"teacher": MODEL[parameter_dtype(subject.dtype)]}
    compare_states(subject, got, expected, rounding)


def state_tolerances(case: TrainCase, dtype: str, largest_gradient: float) -> dict[str, float]:
    """Tolerance of each group after one step whose largest gradient is at most `largest_gradient`."""
    dtype = parameter_dtype(dtype)
    step, gradient = TRAINED[dtype] * case.learning_rate, GRADIENT[dtype] * largest_gradient
    return {"student": step, "teacher": step, "exp_avg": gradient, "exp_avg_sq": 2.0 * gradient * largest_gradient}


def check_norm(subject: Subject, out: PretrainOutput | FinetuneOutput, expected: Floats) -> float:
    """Check the gradient norm before clipping, and that the step was finite. Returns the norm, but at least 1."""
    check_finite(subject, out, True)
    largest = max(1.0, float(expected))
    subject.close("gradient norm before clipping", out.grad_norm, expected, GRADIENT[subject.dtype] * largest)
    return largest
