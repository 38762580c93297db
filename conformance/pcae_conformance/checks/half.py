"""Half precision, in which only matrix products are rounded. Letters: B images.

Rounding errors are too large to compare elements closely. The update is checked as in float32, with the backend's own
gradients. The gradients are compared with the reference's as one vector.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pcae_conformance import steps, strategies, updates
from pcae_conformance.check import check
from pcae_conformance.checks import finetuning, model, training, training_state
from pcae_conformance.compare import require
from pcae_conformance.finetune_cases import FinetuneCase
from pcae_conformance.model_cases import ModelCase, TrainCase
from pcae_conformance.subject import Subject
from pcae_conformance.tolerances import HALF_COSINE, HALF_RMS, MODEL
from pcae_core.config import RunConfig
from pcae_core.contract import FinetuneOutput, PretrainOutput, TrainState

HALF = ("bfloat16", "float16")
SEEDS = range(6)


def _check_update(
    subject: Subject, case: TrainCase, config: RunConfig, got: TrainState, out: PretrainOutput | FinetuneOutput
) -> updates.Gradients:
    """Check that AdamW and the moving average give this state. Returns the gradients, computed from the state."""
    before = case.state(subject.dtype)
    for group in steps.GROUPS:
        for name, value in getattr(got, group).items():
            require(bool(np.isfinite(value).all()), f"{group} {name}: not finite after a step")
    steps.check_finite(subject, out, True)
    gradients = updates.gradients_between(config, before, got)
    norm = updates.norm(gradients)
    reported = float(subject.backend.to_numpy(out.grad_norm))
    subject.near("norm of the gradient that AdamW takes", norm, min(reported, config.grad_clip or np.inf), 1e-3 * norm)
    expected = updates.after(config, updates.wide(before), gradients, **case.hyper_parameters(0))
    steps.compare_states(subject, got, expected, steps.state_tolerances(case, subject.dtype, max(1.0, norm)))
    return gradients


def _compare_gradients(got: updates.Gradients, expected: updates.Gradients) -> None:
    cosine = updates.cosine(got, expected)
    require(cosine >= HALF_COSINE, f"cosine of the gradient and the reference's: got {cosine:.3f}")
    ratio = updates.norm(got) / updates.norm(expected)
    require(0.8 <= ratio <= 1.25, f"norm of the gradient over the reference's: got {ratio:.3f}")


@check(
    "train-half",
    statement="in half precision a step makes float32 AdamW and EMA of gradients near the reference's",
    strategy=strategies.runs(),
    examples=steps.SHARP,
    dtypes=HALF,
    training=True,
)
def train(subject: Subject, case: TrainCase) -> None:
    """The teacher keeps all tokens: otherwise rounding would decide which tokens stay."""
    case = dataclasses.replace(case, keep=1.0)
    state, config = case.state(subject.dtype), case.pretrain_config(subject.dtype)
    ours = steps.pretrainer(subject.training_backend, case, subject.dtype, state)
    theirs = steps.pretrainer(subject.reference, case, "float64", state)
    out, expected = steps.step(ours, case), steps.step(theirs, case)
    subject.close("loss", out.loss, expected.loss, MODEL[subject.dtype])
    subject.close("target", out.target, expected.target, 2.0 * MODEL[subject.dtype])
    gradients = _check_update(subject, case, config, ours.state(), out)
    _compare_gradients(gradients, updates.gradients_between(config, state, theirs.state()))


@check(
    "finetune-half",
    statement="in half precision a step of fine-tuning makes float32 AdamW and moving average of gradients near the "
    "reference's, and drops tokens",
    strategy=strategies.finetunings(),
    examples=finetuning.SHARP,
    dtypes=HALF,
    training=True,
)
def finetune(subject: Subject, case: FinetuneCase) -> None:
    """All tokens stay when gradients are compared. A step that drops tokens must differ where the reference's does."""
    some, every = (_finetune_step(subject, dataclasses.replace(case, keep=keep)) for keep in (case.keep, 1.0))
    _compare_gradients(every[0], every[1])
    if updates.cosine(some[1], every[1]) < 0.99:
        same = updates.cosine(some[0], every[0])
        require(same < 1.0 - 1e-6, f"cosine of the gradients with keep {case.keep} and 1: got {same}")


def _finetune_step(subject: Subject, case: FinetuneCase) -> tuple[updates.Gradients, updates.Gradients]:
    """The gradients of the backend's step, and the reference's."""
    state, config = case.state(subject.dtype), case.finetune_config(subject.dtype)
    ours = subject.training_backend.create_finetuner(config, state)
    theirs = subject.reference.create_finetuner(case.finetune_config("float64"), state)
    out, _ = (steps.finetune_step(trainer, case) for trainer in (ours, theirs))
    gradients = _check_update(subject, case, config, ours.state(), out)
    return gradients, updates.gradients_between(config, state, theirs.state())


@check(
    "train-half-state",
    statement="in half precision the state comes back with its loss scale, and a step that is not finite is skipped",
    examples=steps.SHARP[:1],
    dtypes=HALF,
    training=True,
)
def train_state(subject: Subject, case: TrainCase) -> None:
    """As the checks in wider dtypes."""
    training_state.state_round_trip(subject, case)
    training.skips_nonfinite(subject, case)


@check(
    "finetune-half-state",
    statement="in half precision fine-tuning gives its state back, and skips a step that is not finite",
    examples=finetuning.SHARP[:1],
    dtypes=HALF,
    training=True,
)
def finetune_state(subject: Subject, case: FinetuneCase) -> None:
    """As the checks in wider dtypes."""
    finetuning.state_round_trip(subject, case)
    finetuning.skips_nonfinite(subject, case)


@check(
    "model-half",
    statement="in half precision the encoder's features are off by rounding alone",
    examples=[case for case in model.SHARP if not case.blank],
    dtypes=HALF,
)
def features(subject: Subject, case: ModelCase) -> None:
    """Measure over several models and all features: the largest error of one says little. No token is dropped."""
    errors = []
    for seed in SEEDS:
        drawn = dataclasses.replace(case, keep=1.0, seed=seed)
        images, student = drawn.images(subject.dtype), drawn.student(subject.dtype)
        got = model.encode(subject, drawn, images)
        expected = subject.reference.encode(drawn.config(), student, images, 1.0)
        hidden = subject.host("last hidden state", got.last_hidden_state, subject.dtype)
        errors.append((hidden - expected.last_hidden_state).ravel())
    rms = float(np.sqrt((np.concatenate(errors) ** 2).mean()))
    subject.near("root mean square error of the features", rms, 0.0, HALF_RMS[subject.dtype])
