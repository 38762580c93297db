"""Stages of `encode_stages`: the patches that enter, their scores, and the patches that stay.

Letters: B images, N patches, n patches that enter a stage, k patches that stay.
"""

from __future__ import annotations

import numpy as np

from pcae_conformance import selections, strategies, tolerances
from pcae_conformance.check import ONCE, WIDE, check
from pcae_conformance.checks import model
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats
from pcae_conformance.model_cases import ModelCase
from pcae_conformance.selections import Ids
from pcae_conformance.subject import AT_LEAST_FLOAT32, Subject
from pcae_conformance.tolerances import MODEL, SCORE_MARGIN
from pcae_core.contract import EncoderOutput, StageOutput
from pcae_numpy.model import Stage


def _trace(subject: Subject, case: ModelCase, images: Floats) -> tuple[EncoderOutput, list[StageOutput]]:
    """The backend's output, with the stages as NumPy arrays of checked shapes."""
    parameters, total = subject.own_all(case.student(subject.dtype)), case.grid**2
    trace = subject.backend.encode_stages(case.encoder_config(), parameters, subject.own(images), case.keep)
    counts = case.config().kept_after_block(total, case.keep)
    blocks = [stage.block for stage in trace.stages]
    require(blocks == list(counts), f"blocks of the stages: got {blocks}, expected {list(counts)}")
    found, entered = [], total
    for stage, k in zip(trace.stages, counts.values(), strict=True):
        name = f"stage after block {stage.block}"
        ids = subject.ids(f"{name}, ids that entered", stage.ids, (case.batch, entered), total)
        kept = subject.ids(f"{name}, kept ids", stage.kept_ids, (case.batch, k), total)
        scores = subject.host(f"{name}, scores", stage.scores, AT_LEAST_FLOAT32)
        require(scores.shape == ids.shape, f"{name}, scores: got the shape {scores.shape}, expected {ids.shape}")
        found.append(StageOutput(stage.block, ids, scores, kept))
        entered = k
    return trace.output, found


def _reference(subject: Subject, case: ModelCase) -> list[Stage]:
    every: Ids = np.broadcast_to(np.arange(case.grid**2), (case.batch, case.grid**2))
    images, student = case.images(subject.dtype), case.student(subject.dtype)
    return selections.stages(case.config(), student, images, every, case.keep, with_prefix=True)


def _places(ids: Ids, among: Ids) -> Ids:
    """Positions of ids (B, k) in the ascending ids `among` (B, n)."""
    found: Ids = np.stack([np.searchsorted(row, wanted) for row, wanted in zip(among, ids, strict=True)])
    return found


@check(
    "stages-output",
    statement="encode_stages gives the output of encode; a stage starts from the patches that the one before kept, and "
    "keeps the lowest scores",
    strategy=strategies.models(),
    examples=model.SHARP,
)
def output(subject: Subject, case: ModelCase) -> None:
    """Compare scores and choices for all images, and outputs for images whose choice does not depend on rounding."""
    images, tolerance = case.images(subject.dtype), MODEL[subject.dtype]
    got, stages = _trace(subject, case, images)
    entered = np.broadcast_to(np.arange(case.grid**2), (case.batch, case.grid**2))
    for stage in stages:
        name = f"stage after block {stage.block}"
        subject.near(f"{name}, ids that entered", stage.ids, entered, 0)
        known = [np.isin(kept, ids).all() for kept, ids in zip(stage.kept_ids, stage.ids, strict=True)]
        require(all(known), f"{name}: kept {stage.kept_ids.tolist()}, not all of which entered {stage.ids.tolist()}")
        kept = _places(stage.kept_ids, stage.ids)
        selections.check_near_ties(name, kept, stage.scores, tolerances.cosine(case.width, subject.dtype))
        entered = stage.kept_ids
    subject.near("kept ids and those of the last stage", subject.backend.to_numpy(got.kept_ids), entered, 0)

    expected = model.encode(subject, case, images)
    ids = subject.ids("kept ids of encode", expected.kept_ids, entered.shape, case.grid**2)
    margin = SCORE_MARGIN[subject.dtype]
    clear = selections.comparable_rows("kept ids", ids, _reference(subject, case), margin)
    subject.near("kept ids and those of encode", entered[clear], ids[clear], 0)
    for what in ("last_hidden_state", "logits"):
        ours, theirs = getattr(got, what), getattr(expected, what)
        if theirs is None:
            require(ours is None, f"{what}: encode gives None, encode_stages does not")
            continue
        host, of_encode = subject.host(what, ours, subject.dtype), subject.host(what, theirs, subject.dtype)
        require(host.shape == of_encode.shape, f"{what}: got the shape {host.shape}, encode's is {of_encode.shape}")
        subject.near(f"{what} and that of encode", host[clear], of_encode[clear], tolerance)


@check(
    "stages-reference",
    statement="scores, ids and kept ids of each stage equal the reference's",
    strategy=strategies.models(),
    examples=model.SHARP,
    dtypes=WIDE,
)
def reference(subject: Subject, case: ModelCase) -> None:
    """Compare each image up to the first stage at which scores nearly tie, including the scores of that stage."""
    margin, clear = SCORE_MARGIN[subject.dtype], np.ones(case.batch, dtype=bool)
    _, found = _trace(subject, case, case.images(subject.dtype))
    for stage, expected in zip(found, _reference(subject, case), strict=True):
        name = f"stage after block {stage.block}"
        subject.near(f"{name}, ids that entered", stage.ids[clear], expected.ids[clear], 0)
        subject.near(f"{name}, scores", stage.scores[clear], expected.scores[clear], margin)
        clear &= expected.gaps() > margin
        subject.near(f"{name}, kept ids", stage.kept_ids[clear], expected.kept_ids[clear], 0)


@check(
    "stages-nan",
    statement="an image with a NaN has NaN scores at every stage and keeps its first patches; the others do not change",
    examples=[ModelCase(batch=2, grid=3, depth=4, stages=2)],
    dtypes=ONCE,
)
def nan(subject: Subject, case: ModelCase) -> None:
    """Attention carries the NaN to all tokens of its image."""
    images = case.images(subject.dtype)
    _, before = _trace(subject, case, images)
    images[0, 0, 0, 0] = np.nan
    for stage, same in zip(_trace(subject, case, images)[1], before, strict=True):
        name = f"stage after block {stage.block}"
        subject.near(f"{name}, scores of the image", stage.scores[0], np.full(stage.scores.shape[1], np.nan), 0)
        subject.near(f"{name}, kept ids of the image", stage.kept_ids[0], np.arange(stage.kept_ids.shape[1]), 0)
        subject.near(f"{name}, scores of the other", stage.scores[1], same.scores[1], SCORE_MARGIN[subject.dtype])
        subject.near(f"{name}, kept ids of the other", stage.kept_ids[1], same.kept_ids[1], 0)
