"""Which tokens stay: the k lowest scores by (score, index), in ascending position order. Letters: B, N tokens."""

from __future__ import annotations

import numpy as np

from pcae_conformance import definitions, strategies
from pcae_conformance.check import check
from pcae_conformance.subject import Subject
from pcae_conformance.token_cases import ScoresCase

SHARP = [
    ScoresCase(batch=2, length=8, k=3),
    ScoresCase(length=5, k=2, kind="all_equal"),
    ScoresCase(batch=2, length=13, k=6, kind="few"),
    ScoresCase(length=8, k=4, kind="signed_zeros"),
    ScoresCase(length=8, k=5, kind="infinities"),
    ScoresCase(batch=2, length=8, k=6, kind="nan"),
    ScoresCase(length=13, k=6, kind="near_ties"),
    ScoresCase(length=1, k=1),
    ScoresCase(batch=2, length=196, k=98, kind="few"),  # many sorts keep the order of ties only in short sequences
    ScoresCase(length=196, k=150, kind="nan"),
]


@check(
    "select-lowest",
    statement="exactly the k lowest by (score, index), ascending; ties to the lower index, +0 and -0 tie, NaN last",
    strategy=strategies.scores(),
    examples=SHARP,
)
def lowest(subject: Subject, case: ScoresCase) -> None:
    """Compare with Python's sort of (score, index)."""
    scores = case.scores(subject.dtype)
    got = subject.backend.select_tokens(subject.own(scores), case.k)
    ids = subject.ids("ids", got, (case.batch, case.k), case.length)
    subject.near(f"ids of the {case.k} lowest of {scores.tolist()}", ids, definitions.lowest_of_each(scores, case.k), 0)


@check(
    "select-all",
    statement="k = N keeps every token, whatever the scores",
    strategy=strategies.scores(),
    examples=SHARP,
)
def everything(subject: Subject, case: ScoresCase) -> None:
    """Scores may be NaN or infinite."""
    got = subject.backend.select_tokens(subject.own(case.scores(subject.dtype)), case.length)
    ids = subject.ids("ids", got, case.shape, case.length)
    subject.near("ids", ids, np.broadcast_to(np.arange(case.length), case.shape), 0)


@check(
    "select-nested",
    statement="the k lowest are among the k + 1 lowest, and the batch is judged row by row",
    strategy=strategies.scores(("normal", "few", "all_equal", "nan")),
    examples=[ScoresCase(batch=3, length=8, k=3, kind="few")],
)
def nested(subject: Subject, case: ScoresCase) -> None:
    """Adding one to k adds one id. One row alone gives the same ids as in the batch."""
    scores, k = case.scores(subject.dtype), min(case.k, case.length - 1)
    if k == 0:
        return
    rows = [subject.own(scores[i : i + 1]) for i in range(case.batch)]
    fewer = subject.backend.to_numpy(subject.backend.select_tokens(subject.own(scores), k))
    for i, row in enumerate(rows):
        more = subject.backend.to_numpy(subject.backend.select_tokens(row, k + 1))[0]
        alone = subject.backend.to_numpy(subject.backend.select_tokens(row, k))[0]
        subject.near("ids of a row alone", alone, fewer[i], 0)
        subject.near("how many of the k lowest are among the k + 1 lowest", np.isin(fewer[i], more).sum(), k, 0)
