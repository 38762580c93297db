"""Whole models: the encoder with token reduction, and the forward pass of pre-training.

Letters: B images, N patches, V visible, M masked, K targets, D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_conformance import golden, selections, strategies
from pcae_conformance.cases import GoldenName
from pcae_conformance.check import DOUBLE, ONCE, WIDE, check
from pcae_conformance.compare import require
from pcae_conformance.model_cases import ModelCase
from pcae_conformance.selections import Ids
from pcae_conformance.subject import AT_LEAST_FLOAT32, Subject
from pcae_conformance.tolerances import MODEL, SCORE_MARGIN
from pcae_core.contract import Array, EncoderOutput, PretrainingOutput

SHARP = [
    ModelCase(batch=2, grid=3, chans=3, patch=2, depth=5, stages=2, heads=2, decoder_depth=2, classes=3),
    ModelCase(batch=2, grid=4, depth=3, stages=3, keep=0.7, mask_ratio=0.75, center="raw"),
    ModelCase(batch=1, grid=2, depth=4, stages=2, keep=0.3, blank=True),
    ModelCase(batch=2, grid=4, width=16, heads=4, decoder_width=12, depth=2, stages=1, mask_ratio=0.25, keep=1.0),
    ModelCase(grid=3, depth=2, norm_eps=1e-2, activation="gelu_tanh"),
    ModelCase(batch=2, grid=3, depth=2, width=16, heads=2, activation="quick_gelu", pre_norm=True, patch_bias=False),
]
BATCHES = [dataclasses.replace(SHARP[1], batch=3, keep=0.9), SHARP[3]]


def encode(subject: Subject, case: ModelCase, images: NDArray[Any]) -> EncoderOutput:
    """Output of the backend's encoder for the case's model."""
    parameters = subject.own_all(case.student(subject.dtype))
    return subject.backend.encode(case.encoder_config(), parameters, subject.own(images), case.keep)


def _pretrain(subject: Subject, case: ModelCase, images: NDArray[Any], noise: NDArray[Any]) -> PretrainingOutput:
    student, teacher = (subject.own_all(p) for p in (case.student(subject.dtype), case.teacher(subject.dtype)))
    return subject.training_backend.pretraining_forward(case.config(), student, teacher, subject.own(images), noise)


def _every_patch(case: ModelCase) -> Ids:
    return np.broadcast_to(np.arange(case.grid**2), (case.batch, case.grid**2))


def _masked(case: ModelCase, noise: NDArray[Any]) -> Ids:
    return np.sort(np.argsort(noise, axis=1, kind="stable")[:, case.config().num_visible :], axis=1)


@check(
    "model-encoder",
    statement="the encoder with reduction equals the reference: features, kept ids, logits",
    strategy=strategies.models(),
    examples=SHARP,
)
def encoder(subject: Subject, case: ModelCase) -> None:
    """Images for which the reference's scores nearly tie are not compared, because rounding decides."""
    tolerance = MODEL[subject.dtype]
    config, images, student = case.config(), case.images(subject.dtype), case.student(subject.dtype)
    got = encode(subject, case, images)
    expected = subject.reference.encode(config, student, images, case.keep)
    found = selections.stages(config, student, images, _every_patch(case), case.keep, with_prefix=True)
    ids = subject.ids("kept ids", got.kept_ids, expected.kept_ids.shape, case.grid**2)
    clear = selections.comparable_rows("kept ids", ids, found, SCORE_MARGIN[subject.dtype])
    hidden = subject.host("last hidden state", got.last_hidden_state, subject.dtype)
    require(hidden.shape == expected.last_hidden_state.shape, f"last hidden state: got the shape {hidden.shape}")
    subject.near("last hidden state", hidden[clear], expected.last_hidden_state[clear], tolerance)
    if expected.logits is not None:
        logits = subject.host("logits", got.logits, subject.dtype)
        require(logits.shape == expected.logits.shape, f"logits: got the shape {logits.shape}")
        subject.near("logits", logits[clear], expected.logits[clear], tolerance)
    else:
        require(got.logits is None, "logits: the model has no head, expected None")


@check(
    "model-pretraining",
    statement="the forward pass of pre-training equals the reference: loss, predictions, targets, ids",
    strategy=strategies.models(),
    examples=SHARP,
    training=True,
)
def pretraining(subject: Subject, case: ModelCase) -> None:
    """As `encoder`; the loss is compared when every image is."""
    tolerance = MODEL[subject.dtype]
    config, images, noise = case.config(), case.images(subject.dtype), case.noise()
    student, teacher = case.student(subject.dtype), case.teacher(subject.dtype)
    got = _pretrain(subject, case, images, noise)
    expected = subject.reference.pretraining_forward(config, student, teacher, images, noise)
    visible = subject.ids("visible ids", got.visible_ids, expected.visible_ids.shape, case.grid**2)
    subject.near("visible ids", visible, expected.visible_ids, 0)
    found = selections.stages(config, teacher, images, _masked(case, noise), case.keep, with_prefix=False)
    targets = subject.ids("target ids", got.target_ids, expected.target_ids.shape, case.grid**2)
    clear = selections.comparable_rows("target ids", targets, found, SCORE_MARGIN[subject.dtype])
    for name, value, dtype in (("target", got.target, AT_LEAST_FLOAT32), ("prediction", got.prediction, subject.dtype)):
        host, reference = subject.host(name, value, dtype), getattr(expected, name)
        require(host.shape == reference.shape, f"{name}: got the shape {host.shape}, expected {reference.shape}")
        subject.near(name, host[clear], reference[clear], 2.0 * tolerance)
    loss = subject.host("loss", got.loss, AT_LEAST_FLOAT32)
    require(loss.shape == (), f"loss: got the shape {loss.shape}, expected a scalar")
    if clear.all():
        subject.near("loss", loss, expected.loss, tolerance)


@check(
    "model-golden",
    statement="the golden cases, recorded from the paper's release: ids, targets, predictions, loss, EMA",
    examples=[GoldenName(name=name) for name in golden.NAMES],
    dtypes=WIDE,
    training=True,
)
def recorded(subject: Subject, case: GoldenName) -> None:
    """Their smallest gap between scores is far above float32's rounding, so ids must be equal."""
    recorded_case, tolerance = golden.load(case.name), MODEL[subject.dtype]
    arrays, student, teacher = recorded_case.arrays, recorded_case.group("student"), recorded_case.group("teacher")
    out = subject.training_backend.pretraining_forward(
        recorded_case.config,
        subject.own_all(student),
        subject.own_all(teacher),
        subject.own(arrays["images"]),
        arrays["noise"],
    )
    for name in ("visible_ids", "target_ids"):
        ids = subject.ids(name, getattr(out, name), arrays[name].shape, recorded_case.config.num_patches)
        subject.near(name, ids, arrays[name], 0)
    for name in ("target", "prediction", "loss"):
        subject.close(name, getattr(out, name), arrays[name], tolerance)
    updated = subject.training_backend.ema_update(
        subject.own_all(teacher), subject.own_all(student), recorded_case.momentum
    )
    for name, value in recorded_case.group("ema").items():
        subject.close(f"EMA of {name}", updated[name], value, tolerance, subject.dtype)


@check(
    "model-batch",
    statement="permuting the images of a batch permutes the encoder's output, and each image is encoded alone",
    strategy=strategies.models(ties=False),
    examples=BATCHES,
    dtypes=DOUBLE,
)
def batch(subject: Subject, case: ModelCase) -> None:
    """Compare a permuted batch, and one image alone, with the whole batch."""
    images, order = case.images(subject.dtype), case.rng().permutation(case.batch)
    whole = encode(subject, case, images)
    for rows in (order, order[:1]):
        part = encode(subject, case, images[rows])
        for name in ("kept_ids", "last_hidden_state"):
            _compare_rows(subject, name, getattr(part, name), getattr(whole, name), rows)


@check(
    "model-pretraining-batch",
    statement="permuting the images of a batch permutes predictions and targets, and each image is treated alone",
    strategy=strategies.models(ties=False),
    examples=BATCHES,
    dtypes=DOUBLE,
    training=True,
)
def pretraining_batch(subject: Subject, case: ModelCase) -> None:
    """Permute each image together with its noise."""
    images, noise, order = case.images(subject.dtype), case.noise(), case.rng().permutation(case.batch)
    whole = _pretrain(subject, case, images, noise)
    for rows in (order, order[:1]):
        part = _pretrain(subject, case, images[rows], noise[rows])
        for name in ("target_ids", "prediction", "target"):
            _compare_rows(subject, name, getattr(part, name), getattr(whole, name), rows)


def _compare_rows(subject: Subject, name: str, part: Array, whole: Array, rows: Ids) -> None:
    got, expected = subject.backend.to_numpy(part), subject.backend.to_numpy(whole)[rows]
    subject.near(f"{name} of images {rows.tolist()}", got, expected, 2.0 * MODEL[subject.dtype])


@check(
    "model-blind",
    statement="the student never sees masked patches, the teacher never sees visible ones",
    strategy=strategies.models(),
    examples=SHARP[:2],
    dtypes=WIDE,
    training=True,
)
def blind(subject: Subject, case: ModelCase) -> None:
    """Other masked pixels leave predictions unchanged, and other visible pixels leave targets unchanged, bit for bit.

    The teacher keeps all patches here: otherwise other masked pixels could change its choice.
    """
    case = dataclasses.replace(case, keep=1.0)
    images, noise = case.images(subject.dtype), case.noise()
    before = _pretrain(subject, case, images, noise)
    pixels = np.ones((case.batch, case.grid**2), dtype=bool)
    np.put_along_axis(pixels, subject.backend.to_numpy(before.visible_ids), False, axis=1)
    masked = pixels.reshape(case.batch, 1, case.grid, case.grid).repeat(case.patch, axis=2).repeat(case.patch, axis=3)
    for where, names in ((masked, ("prediction",)), (~masked, ("target", "target_ids"))):
        after = _pretrain(subject, case, np.where(where, -2.0 * images + 1.0, images), noise)
        for name in names:
            got, expected = (subject.backend.to_numpy(getattr(out, name)) for out in (after, before))
            subject.near(f"{name}, pixels of the other side changed", got, expected, 0.0)


@check(
    "model-dropped",
    statement="dropped tokens never influence later blocks",
    strategy=strategies.models(ties=False),
    examples=[ModelCase(batch=2, grid=4, depth=3, stages=2, heads=2), ModelCase(grid=4, depth=2, keep=0.3, classes=3)],
    dtypes=DOUBLE,
)
def dropped(subject: Subject, case: ModelCase) -> None:
    """Block 0 does not mix tokens here, so a patch that is dropped after it leaves no trace.

    The pixels of such a patch change a little. The reference's scores tell whether the same patches are still dropped.
    """
    config, images, student = case.config(), case.images(subject.dtype), case.student(subject.dtype)
    student["blocks.0.attn.proj.weight"] *= 0.0
    first = selections.stages(config, student, images, _every_patch(case), case.keep, with_prefix=True)[0]
    gone = [np.setdiff1d(all_ids, kept) for all_ids, kept in zip(first.ids, first.kept_ids, strict=True)]
    changed = images.copy()
    for i, ids in enumerate(gone):
        for row, column in zip(ids // case.grid * case.patch, ids % case.grid * case.patch, strict=True):
            changed[i, :, row : row + case.patch, column : column + case.patch] += 1e-4
    stage = selections.stages(config, student, changed, _every_patch(case), case.keep, with_prefix=True)[0]
    if selections.near_ties([stage], 1e-9) or not np.array_equal(stage.kept_ids, first.kept_ids):
        return
    own = subject.own_all(student)
    outputs = [subject.backend.encode(config, own, subject.own(pixels), case.keep) for pixels in (images, changed)]
    before, after = ([subject.backend.to_numpy(x) for x in (o.last_hidden_state, o.kept_ids)] for o in outputs)
    subject.near("kept ids, dropped pixels changed", after[1], before[1], 0)
    subject.near("last hidden state, dropped pixels changed", after[0], before[0], MODEL[subject.dtype])


@check(
    "model-sharp-attention",
    statement="attention scores in the thousands, whose exponentials overflow, give finite features",
    examples=[SHARP[0], SHARP[3]],
    dtypes=ONCE,
)
def sharp_attention(subject: Subject, case: ModelCase) -> None:
    """Query and key are 40 times as large as in the other cases."""
    student = case.student(subject.dtype)
    for name in (name for name in student if name.endswith("attn.qkv.weight")):
        student[name][: 2 * case.width] *= 40.0
    images = subject.own(case.images(subject.dtype))
    out = subject.backend.encode(case.encoder_config(), subject.own_all(student), images, case.keep)
    hidden = subject.host("last hidden state", out.last_hidden_state, subject.dtype)
    require(bool(np.isfinite(hidden).all()), "last hidden state: not finite")


@check(
    "model-decoder-ignored",
    statement="the encoder reads no parameter of a decoder, and its dtype is its parameters'",
    strategy=strategies.models(),
    examples=SHARP[:1],
    dtypes=WIDE,
)
def decoder_ignored(subject: Subject, case: ModelCase) -> None:
    """Encode with and without the decoder's parameters; images are float64."""
    images, student = case.images(subject.dtype), subject.own_all(case.student(subject.dtype))
    alone = {name: student[name] for name in case.teacher(subject.dtype)}
    results = []
    for parameters in (student, alone):
        out = subject.backend.encode(case.config(), parameters, images, case.keep)
        results.append(subject.host("last hidden state", out.last_hidden_state, subject.dtype))
    subject.near("last hidden state without the decoder", results[1], results[0], 0.0)
