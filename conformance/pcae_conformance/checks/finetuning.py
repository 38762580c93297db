"""Fine-tuning: gradients through the reduced encoder, and a step. Letters: B images, L blocks.

What a step must do is stated here once more, from the reference's gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_conformance import selections, steps, strategies, updates
from pcae_conformance.check import DOUBLE, ONCE, WIDE, check
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats
from pcae_conformance.finetune_cases import FinetuneCase
from pcae_conformance.subject import AT_LEAST_FLOAT32, Subject
from pcae_conformance.tolerances import (
    CENTRAL_DIFFERENCE,
    DIFFERENCE_STEP,
    GRADIENT,
    MODEL,
    SCORE_MARGIN,
    TEN_STEPS,
)
from pcae_core.contract import TrainingBackend, TrainState
from pcae_core.parameters import finetuned_shapes, finetuning_state

SHARP = [
    FinetuneCase(
        batch=2, grid=4, chans=3, patch=2, depth=3, stages=2, heads=2, pooling="mean", drop_path=0.5, clip=0.1
    ),
    FinetuneCase(
        batch=2,
        grid=3,
        chans=2,
        depth=2,
        stages=2,
        keep=0.7,
        accumulation=2,
        clip=0.1,
        pixels=True,
        own_mean=True,
        beta1=0.8,
        beta2=0.99,
    ),
    FinetuneCase(
        batch=1,
        grid=3,
        depth=2,
        keep=1.0,
        pooling="mean",
        activation="quick_gelu",
        pre_norm=True,
        patch_bias=False,
        ema=False,
        weight_decay=0.5,
        start_step=0,
    ),
]


def _near_ties(case: FinetuneCase, images: Floats, parameters: Mapping[str, NDArray[Any]], margin: float) -> bool:
    """Whether rounding decides the choice of tokens. Nothing can be compared then."""
    ids = np.broadcast_to(np.arange(case.grid**2), (case.batch, case.grid**2))
    wide = {name: value.astype(np.float64) for name, value in parameters.items()}
    found = selections.stages(case.config(), wide, images, ids, case.keep, True, case.step_drop_path(0))
    return selections.near_ties(found, margin)


def _gradients(backend: TrainingBackend, case: FinetuneCase, parameters: Any, images: Any, rows: Any = None) -> Any:
    """Loss and gradients for the samples `rows` of the case, all by default. `images` are those of these samples."""
    scales, rows = case.step_drop_path(0), np.arange(case.batch) if rows is None else rows
    part = None if scales is None else scales[:, :, rows]
    return backend.finetuning_loss_and_gradients(
        case.config(), parameters, images, case.targets(0)[rows], case.keep, part
    )


@check(
    "finetune-gradients",
    statement="cross-entropy with soft targets and its gradients through the reduced encoder equal the reference's",
    strategy=strategies.finetunings(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def gradients(subject: Subject, case: FinetuneCase) -> None:
    """Compare with and without drop path. Errors are relative to the largest gradient of the model."""
    parameters, images = case.classifier(subject.dtype), case.images(subject.dtype)
    if _near_ties(case, images, parameters, SCORE_MARGIN[subject.dtype]):
        return
    loss, got = _gradients(subject.training_backend, case, subject.own_all(parameters), subject.own(images))
    expected_loss, expected = _gradients(subject.reference, case, parameters, images)
    wrong = sorted(set(got) ^ set(finetuned_shapes(case.config())))
    require(not wrong, f"gradients: names that are wrong or missing: {wrong}")
    largest, tolerance = max(float(np.abs(value).max()) for value in expected.values()), GRADIENT[subject.dtype]
    subject.close("loss", loss, expected_loss, tolerance * max(1.0, float(expected_loss)))
    for name, value in got.items():
        subject.close(f"gradient of {name}", value, expected[name], tolerance * largest, subject.dtype)


@check(
    "finetune-large-logits",
    statement="logits in the thousands, whose exponentials overflow, give the reference's loss and finite gradients",
    examples=SHARP,
    dtypes=ONCE,
    training=True,
)
def large_logits(subject: Subject, case: FinetuneCase) -> None:
    """The head's weights are 1000 times as large as in the other checks."""
    parameters, images = case.classifier(subject.dtype), case.images(subject.dtype)
    parameters["head.weight"] *= 1000.0
    loss, got = _gradients(subject.training_backend, case, subject.own_all(parameters), subject.own(images))
    expected, _ = _gradients(subject.reference, case, parameters, images)
    subject.close("loss", loss, expected, MODEL[subject.dtype] * float(expected))
    for name, value in got.items():
        finite = bool(np.isfinite(subject.backend.to_numpy(value)).all())
        require(finite, f"gradient of {name}: not finite")


@check(
    "finetune-differences",
    statement="the backend's and the reference's gradients equal central differences of the logits' cross-entropy",
    strategy=strategies.finetunings(drop_path=False),
    examples=[FinetuneCase(batch=2, grid=4, depth=3, stages=2), FinetuneCase(grid=3, depth=2, pooling="mean")],
    dtypes=DOUBLE,
    training=True,
)
def differences(subject: Subject, case: FinetuneCase) -> None:
    """Differentiate in a random direction of all parameters, and of one. The same tokens stay on both sides."""
    parameters, images, targets = case.classifier("float64"), case.images("float64"), case.targets(0)
    if _near_ties(case, images, parameters, 1e-3):
        return
    _, got = _gradients(subject.training_backend, case, subject.own_all(parameters), subject.own(images))
    _, expected = _gradients(subject.reference, case, parameters, images)
    sides = {"backend": {n: subject.host(n, g, "float64") for n, g in got.items()}, "reference": expected}

    def loss(moved: dict[str, Floats]) -> float:
        out = subject.backend.encode(case.config(), subject.own_all(moved), subject.own(images), case.keep)
        logits = subject.host("logits", out.logits, AT_LEAST_FLOAT32)
        log_sum = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float((targets * (log_sum - logits)).sum() / case.batch)

    rng = case.rng()
    for names in (list(expected), [str(rng.choice(list(expected)))]):
        direction = {name: rng.normal(size=parameters[name].shape) for name in names}
        length = np.sqrt(sum((value**2).sum() for value in direction.values()))
        step = {name: DIFFERENCE_STEP * value / length for name, value in direction.items()}
        ahead, behind = (parameters | {n: parameters[n] + sign * s for n, s in step.items()} for sign in (1.0, -1.0))
        slope = (loss(ahead) - loss(behind)) / (2.0 * DIFFERENCE_STEP)
        for whose, values in sides.items():
            along = sum((values[name] * step[name]).sum() for name in names) / DIFFERENCE_STEP
            what = "all parameters" if len(names) > 1 else names[0]
            subject.near(f"slope along {what} by the {whose}'s gradient", along, slope, CENTRAL_DIFFERENCE)


def _micro_batches(subject: Subject, case: FinetuneCase, state: TrainState) -> tuple[Floats, dict[str, Floats]]:
    """The reference's loss and gradients, each averaged over the micro-batches."""
    images = steps.normalized(case, case.step_images(0))
    losses, total = [], {name: np.zeros(value.shape) for name, value in state.exp_avg.items()}
    for rows in np.split(np.arange(case.batch), case.accumulation):
        loss, found = _gradients(subject.reference, case, state.student, images[rows], rows)
        losses.append(loss)
        for name, value in found.items():
            total[name] = total[name] + value / case.accumulation
    return np.mean(losses), total


@check(
    "finetune-step",
    statement="a step: mean gradient of the micro-batches, clipping, AdamW at each layer's rate, the moving average",
    strategy=strategies.finetunings(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def step(subject: Subject, case: FinetuneCase) -> None:
    """Compute the step here from the reference's gradients. Some cases have uint8 images and drop path."""
    dtype, state, config = subject.dtype, case.state(subject.dtype), case.finetune_config(subject.dtype)
    if _near_ties(case, steps.normalized(case, case.step_images(0)), state.student, SCORE_MARGIN[dtype]):
        return
    rates = case.hyper_parameters(0)
    finetuner = subject.training_backend.create_finetuner(config, state)
    out = steps.finetune_step(finetuner, case)
    before = updates.wide(state)
    loss, found = _micro_batches(subject, case, before)
    subject.close("loss", out.loss, loss, MODEL[dtype] * max(1.0, float(loss)))
    norm = steps.check_norm(subject, out, np.asarray(updates.norm(found)))
    largest = max(norm, *(float(np.abs(g).max()) for g in found.values()))
    expected = updates.after(config, before, found, **rates)
    steps.compare_states(subject, finetuner.state(), expected, steps.state_tolerances(case, dtype, largest))


@check(
    "finetune-four-steps",
    statement="four steps of fine-tuning from a given state equal the reference's",
    examples=SHARP,
    dtypes=DOUBLE,
    training=True,
)
def four_steps(subject: Subject, case: FinetuneCase) -> None:
    """Compare classifier and moving average after steps with different images and rates."""
    config, state = case.finetune_config("float64"), case.state("float64")
    ours, theirs = (
        backend.create_finetuner(config, state) for backend in (subject.training_backend, subject.reference)
    )
    for i in range(4):
        steps.finetune_step(ours, case, i)
        steps.finetune_step(theirs, case, i)
    tolerance = TEN_STEPS * case.learning_rate
    tolerances = {"student": tolerance, "teacher": tolerance, "exp_avg": np.inf, "exp_avg_sq": np.inf}
    steps.compare_states(subject, ours.state(), theirs.state(), tolerances)


@check(
    "finetune-state",
    statement="fine-tuning starts from the seed's parameters, and a state put in comes out the same, whatever follows",
    strategy=strategies.finetunings(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def state_round_trip(subject: Subject, case: FinetuneCase) -> None:
    """Compare exactly, with and without a moving average."""
    config = case.finetune_config(subject.dtype)
    first = subject.training_backend.create_finetuner(config).state()
    expected = finetuning_state(config.model, case.seed, None, case.ema)
    steps.compare_states(subject, first, expected, dict.fromkeys(steps.GROUPS, 0.0))
    state = case.state(subject.dtype)
    finetuner = subject.training_backend.create_finetuner(config, state)
    taken = finetuner.state()
    finetuner.step(case.step_images(0), case.targets(0), **case.hyper_parameters(0))
    for kept in (taken, state):
        steps.compare_untouched(subject, kept, case.state(subject.dtype))


@check(
    "finetune-skips-nonfinite",
    statement="a step of fine-tuning whose loss or gradient is not finite reports it; it counts, only the moving "
    "average changes, and the next step is not affected",
    strategy=strategies.finetunings(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def skips_nonfinite(subject: Subject, case: FinetuneCase) -> None:
    """One pixel of the first image is NaN."""
    config, state, rates = case.finetune_config(subject.dtype), case.state(subject.dtype), case.hyper_parameters(0)
    finetuner = subject.training_backend.create_finetuner(config, state)
    images = steps.normalized(case, case.step_images(0))
    images[0, 0, 0, 0] = np.nan
    out = finetuner.step(images, case.targets(0), **rates)
    steps.compare_skipped(subject, finetuner.state(), case.state(subject.dtype), rates["momentum"], out)
    fresh = subject.training_backend.create_finetuner(config, finetuner.state())
    for trainer in (finetuner, fresh):
        steps.check_finite(subject, steps.finetune_step(trainer, case), True)
    steps.compare_untouched(subject, finetuner.state(), fresh.state())
