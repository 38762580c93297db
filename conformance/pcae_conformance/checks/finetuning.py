"""Fine-tuning: gradients through the reduced encoder, and a step. Letters: B images, L blocks.

What a step must do is stated here once more, from the reference's gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pcae_conformance import selections, steps, strategies
from pcae_conformance.check import DOUBLE, WIDE, check
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats
from pcae_conformance.finetune_cases import FinetuneCase
from pcae_conformance.subject import AT_LEAST_FLOAT32, Subject
from pcae_conformance.tolerances import CENTRAL_DIFFERENCE, DIFFERENCE_STEP, GRADIENT, MODEL, SCORE_MARGIN
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.parameters import finetuned_shapes, finetuning_state
from pcae_core.protocol import ADAM_EPS, Backend, TrainState

SHARP = [
    FinetuneCase(
        batch=2, grid=4, chans=3, patch=2, depth=3, stages=2, heads=2, pooling="mean", drop_path=0.5, clip=0.1
    ),
    FinetuneCase(batch=2, grid=3, depth=2, stages=2, keep=0.7, accumulation=2, pixels=True, clip=0.1),
    FinetuneCase(batch=1, grid=3, depth=2, keep=1.0, pooling="mean", ema=False, weight_decay=0.5, start_step=0),
]


def _near_ties(case: FinetuneCase, images: Floats, parameters: dict[str, Floats], margin: float) -> bool:
    """Whether the choice of tokens hangs on rounding, in which case nothing can be compared."""
    ids = np.broadcast_to(np.arange(case.grid**2), (case.batch, case.grid**2))
    wide = {name: value.astype(np.float64) for name, value in parameters.items()}
    found = selections.stages(case.config(), wide, images, ids, case.keep, True, case.step_drop_path(0))
    return selections.near_ties(found, margin)


def _gradients(backend: Backend, case: FinetuneCase, parameters: Any, images: Any, rows: Any = None) -> Any:
    """Loss and gradients of the images `rows`, all by default; the images are those rows'."""
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
    """With and without drop path; each parameter's as a share of the largest gradient of the model."""
    parameters, images = case.classifier(subject.dtype), case.images(subject.dtype)
    if _near_ties(case, images, parameters, SCORE_MARGIN[subject.dtype]):
        return
    loss, got = _gradients(subject.backend, case, subject.own_all(parameters), subject.own(images))
    expected_loss, expected = _gradients(subject.reference, case, parameters, images)
    wrong = sorted(set(got) ^ set(finetuned_shapes(case.config())))
    require(not wrong, f"gradients: names that are wrong or missing: {wrong}")
    largest, tolerance = max(float(np.abs(value).max()) for value in expected.values()), GRADIENT[subject.dtype]
    subject.close("loss", loss, expected_loss, tolerance * max(1.0, float(expected_loss)))
    for name, value in got.items():
        subject.close(f"gradient of {name}", value, expected[name], tolerance * largest, subject.dtype)


@check(
    "finetune-differences",
    statement="the backend's and the reference's gradients equal central differences of the logits' cross-entropy",
    strategy=strategies.finetunings(drop_path=False),
    examples=[FinetuneCase(batch=2, grid=4, depth=3, stages=2), FinetuneCase(grid=3, depth=2, pooling="mean")],
    dtypes=DOUBLE,
    training=True,
)
def differences(subject: Subject, case: FinetuneCase) -> None:
    """In a random direction of all parameters, and of one; the tokens that stay are the same on either side."""
    parameters, images, targets = case.classifier("float64"), case.images("float64"), case.targets(0)
    if _near_ties(case, images, parameters, 1e-3):
        return
    _, got = _gradients(subject.backend, case, subject.own_all(parameters), subject.own(images))
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


def _layer(name: str, depth: int) -> int:
    """Below the blocks 0, block i is i + 1, above them depth + 1."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return 0 if name.startswith(("cls_token", "patch_embed.")) else depth + 1


def _after_step(
    config: FinetuneConfig, state: TrainState, found: dict[str, Floats], rate: float, m: float
) -> TrainState:
    """Clipping, AdamW whose rate and decay shrink from layer to layer, and the moving average."""
    norm = np.sqrt(sum((g**2).sum() for g in found.values()))
    shrink = 1.0 if config.grad_clip is None else min(1.0, config.grad_clip / norm)
    (beta1, beta2), t, depth = config.betas, state.step + 1, config.model.depth
    new = TrainState(dict(state.student), {}, {}, {}, t)
    for name, gradient in found.items():
        p, g, lr = (
            state.student[name],
            shrink * gradient,
            rate * config.layer_decay ** (depth + 1 - _layer(name, depth)),
        )
        new.exp_avg[name] = beta1 * state.exp_avg[name] + (1.0 - beta1) * g
        new.exp_avg_sq[name] = beta2 * state.exp_avg_sq[name] + (1.0 - beta2) * g**2
        first, second = new.exp_avg[name] / (1.0 - beta1**t), new.exp_avg_sq[name] / (1.0 - beta2**t)
        decay = config.weight_decay * p if name.endswith(".weight") and p.ndim > 1 else 0.0
        new.student[name] = p - lr * (first / (np.sqrt(second) + ADAM_EPS) + decay)
    new.teacher = {name: m * value + (1.0 - m) * new.student[name] for name, value in state.teacher.items()}
    return new


@check(
    "finetune-step",
    statement="a step: mean gradient of the micro-batches, clipping, AdamW at each layer's rate, the moving average",
    strategy=strategies.finetunings(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def step(subject: Subject, case: FinetuneCase) -> None:
    """Stated here from the reference's gradients; with soft targets, uint8 images and drop path among the cases."""
    dtype, state, config = subject.dtype, case.state(subject.dtype), case.finetune_config(subject.dtype)
    if _near_ties(case, steps.normalized(case, case.step_images(0)), state.student, SCORE_MARGIN[dtype]):
        return
    rates = case.hyper_parameters(0)
    finetuner = subject.backend.create_finetuner(config, state)
    out = finetuner.step(case.step_images(0), case.targets(0), drop_path=case.step_drop_path(0), **rates)
    groups = ({n: v.astype(np.float64) for n, v in getattr(state, group).items()} for group in steps.GROUPS)
    student, teacher, first, second = groups
    before = TrainState(student, teacher, first, second, state.step)
    loss, found = _micro_batches(subject, case, before)
    subject.close("loss", out.loss, loss, MODEL[dtype] * max(1.0, float(loss)))
    norm = steps.check_norm(subject, out, np.sqrt(sum((g**2).sum() for g in found.values())))
    largest = max(norm, *(float(np.abs(g).max()) for g in found.values()))
    expected = _after_step(config, before, found, rates["learning_rate"], rates["momentum"])
    steps.compare_states(subject, finetuner.state(), expected, steps.state_tolerances(case, dtype, largest))


@check(
    "finetune-state",
    statement="fine-tuning starts from the seed's parameters, and a state put in comes out the same, whatever follows",
    strategy=strategies.finetunings(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def state_round_trip(subject: Subject, case: FinetuneCase) -> None:
    """Exactly, with and without a moving average."""
    config, exact = case.finetune_config(subject.dtype), dict.fromkeys(steps.GROUPS, 0.0)
    first = subject.backend.create_finetuner(config).state()
    steps.compare_states(subject, first, finetuning_state(config.model, case.seed, None, case.ema), exact)
    state = case.state(subject.dtype)
    finetuner = subject.backend.create_finetuner(config, state)
    taken = finetuner.state()
    finetuner.step(case.step_images(0), case.targets(0), **case.hyper_parameters(0))
    steps.compare_states(subject, taken, case.state(subject.dtype), exact)
    steps.compare_states(subject, state, case.state(subject.dtype), exact)


@check(
    "finetune-skips-nonfinite",
    statement="a step of fine-tuning whose loss or gradient is not finite says so; it counts, and only the moving "
    "average moves",
    strategy=strategies.finetunings(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def skips_nonfinite(subject: Subject, case: FinetuneCase) -> None:
    """A NaN in one pixel of the first image."""
    state, rates = case.state(subject.dtype), case.hyper_parameters(0)
    finetuner = subject.backend.create_finetuner(case.finetune_config(subject.dtype), state)
    images = steps.normalized(case, case.step_images(0))
    images[0, 0, 0, 0] = np.nan
    out = finetuner.step(images, case.targets(0), **rates)
    steps.compare_skipped(subject, finetuner.state(), case.state(subject.dtype), rates["momentum"], out)
