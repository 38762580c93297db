"""Number of tokens at each block (paper, section 3).

After the blocks `depth // S * i` a share `keep` stays, rounded down.
"""

from __future__ import annotations

import itertools

import numpy as np

from pcae_conformance import strategies
from pcae_conformance.cases import ScheduleCase
from pcae_conformance.check import ONCE, WIDE, check
from pcae_conformance.compare import require
from pcae_conformance.definitions import patch_counts
from pcae_conformance.model_cases import ModelCase
from pcae_conformance.subject import Subject
from pcae_core import schedule

SHARP = [ModelCase(grid=3, depth=5, stages=2, keep=0.7), ModelCase(grid=2, depth=3, stages=3, keep=0.3)]


@check(
    "schedule-counts",
    statement="after blocks 0, d, 2d, .. (d = depth // stages) floor(n * keep) tokens stay: never more, never none",
    strategy=strategies.schedules(),
    examples=[
        ScheduleCase(depth=12, stages=3, keep=0.5, tokens=147),  # the paper's 147, 73, 36, 18
        ScheduleCase(depth=7, stages=3, keep=0.7, tokens=10),
        ScheduleCase(depth=3, stages=3, keep=0.05, tokens=1),
        ScheduleCase(depth=5, stages=2, keep=1.0, tokens=9),
    ],
    dtypes=ONCE,
)
def counts(subject: Subject, case: ScheduleCase) -> None:
    """Check the schedule of `pcae_core`, which every backend uses."""
    leaving = patch_counts(case.depth, case.stages, case.keep, case.tokens)
    for prefix in (0, 1):
        got = schedule.tokens_per_block(case.depth, case.stages, case.keep, case.tokens, prefix)
        subject.near("tokens per block", got, [prefix + n for n in [case.tokens, *leaving[:-1]]], 0)
    kept = schedule.kept_after_block(case.depth, case.stages, case.keep, case.tokens)
    subject.near("tokens after the reducing blocks", list(kept.values()), [leaving[block] for block in kept], 0)
    falling = [case.tokens, *kept.values()]
    require(all(b <= a for a, b in itertools.pairwise(falling)), f"counts must not rise: {falling}")
    require(min(falling) >= 1, f"some token must stay: {falling}")


@check(
    "schedule-models",
    statement="the encoder keeps as many tokens as the schedule says",
    strategy=strategies.models(),
    examples=SHARP,
    dtypes=WIDE,
)
def models(subject: Subject, case: ModelCase) -> None:
    """The encoder starts from all N patches."""
    config, student, images = case.config(), case.student(subject.dtype), subject.own(case.images(subject.dtype))
    encoded = subject.backend.encode(config, subject.own_all(student), images, case.keep)
    left = patch_counts(case.depth, case.stages, case.keep, case.grid**2)[-1]
    subject.ids("kept ids", encoded.kept_ids, (case.batch, left), case.grid**2)


@check(
    "schedule-pretraining",
    statement="the teacher keeps as many tokens as the schedule says",
    strategy=strategies.models(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def pretraining(subject: Subject, case: ModelCase) -> None:
    """The teacher starts from the M masked patches."""
    config, student, images = case.config(), case.student(subject.dtype), subject.own(case.images(subject.dtype))
    visible = int(case.grid**2 * (1 - case.mask_ratio))
    left = patch_counts(case.depth, case.stages, case.keep, case.grid**2 - visible)[-1]
    teacher = subject.own_all(case.teacher(subject.dtype))
    out = subject.training_backend.pretraining_forward(config, subject.own_all(student), teacher, images, case.noise())
    targets = subject.ids("target ids", out.target_ids, (case.batch, left), case.grid**2)
    seen = subject.ids("visible ids", out.visible_ids, (case.batch, visible), case.grid**2)
    both = [np.intersect1d(a, b).size for a, b in zip(targets, seen, strict=True)]
    require(not any(both), "a patch is both visible and a target")
