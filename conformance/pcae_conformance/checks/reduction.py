"""Gathering tokens, and dropping those most similar to their mean. Letters: B, P prefix tokens, N tokens, D width."""

from __future__ import annotations

import numpy as np

from pcae_conformance import strategies, tolerances
from pcae_conformance.check import check
from pcae_conformance.dtypes import Floats
from pcae_conformance.selections import Ids, check_near_ties
from pcae_conformance.subject import Subject
from pcae_conformance.token_cases import TokensCase

SHARP = [
    TokensCase(batch=2, length=8, width=7, k=3, prefix=1),
    TokensCase(batch=2, length=8, width=7, k=3, prefix=2, kind="offset"),
    TokensCase(length=5, width=4, k=5, prefix=1),
    TokensCase(length=5, width=4, k=2, kind="zeros", seed=1),
    TokensCase(length=5, width=4, k=2, prefix=1, kind="mixed_scale", center="raw"),
    TokensCase(length=5, width=4, k=2, prefix=1, kind="mixed_scale"),
    TokensCase(length=1, width=2, k=1, prefix=1),
]


def _reduce(subject: Subject, tokens: Floats, case: TokensCase) -> tuple[Floats, Ids]:
    kept, ids = subject.backend.reduce_tokens(subject.own(tokens), case.k, case.prefix, case.center)
    found = subject.ids("ids", ids, (len(tokens), case.k), case.length)
    return subject.host("kept tokens", kept, subject.dtype), found


@check(
    "gather-indexing",
    statement="tokens at ids, bit for bit, in the order of the ids",
    strategy=strategies.plain_tokens(),
    examples=[TokensCase(batch=2, length=5, width=3, k=4), TokensCase(length=3, k=3, exponent=-15)],
)
def gather(subject: Subject, case: TokensCase) -> None:
    """Gather ids in any order, some of them twice."""
    tokens, ids = case.tokens(subject.dtype), case.ids()
    expected = np.stack([sequence[row] for sequence, row in zip(tokens, ids, strict=True)])
    got = subject.backend.gather_tokens(subject.own(tokens), subject.own_ids(ids))
    subject.close("gathered tokens", got, expected, 0.0, subject.dtype)


@check(
    "gather-dropped",
    statement="tokens that are not gathered have no influence, even if they are NaN or infinite",
    strategy=strategies.plain_tokens(("normal",), min_length=2),
    examples=[TokensCase(length=3, k=1)],
)
def dropped(subject: Subject, case: TokensCase) -> None:
    """A product with a 0/1 mask would spread the NaN."""
    tokens, ids = case.tokens(subject.dtype), case.ids()
    expected = np.stack([sequence[row] for sequence, row in zip(tokens, ids, strict=True)])
    for i, row in enumerate(ids):
        others = np.setdiff1d(np.arange(case.length), row)
        tokens[i, others[::2]], tokens[i, others[1::2]] = np.nan, np.inf
    got = subject.backend.gather_tokens(subject.own(tokens), subject.own_ids(ids))
    subject.close("gathered tokens", got, expected, 0.0, subject.dtype)


@check(
    "reduce-reference",
    statement="the k tokens least similar to their mean stay; near-ties are judged on the set",
    strategy=strategies.tokens(),
    examples=SHARP,
)
def reduce(subject: Subject, case: TokensCase) -> None:
    """Compare by the reference's scores, within their tolerance."""
    tokens = case.tokens(subject.dtype)
    patches = tokens[:, case.prefix :]
    _, ids = _reduce(subject, tokens, case)
    scores = np.asarray(subject.reference.similarity_scores(patches, case.center))
    check_near_ties("kept ids", ids, scores, tolerances.scores(patches, case.center, subject.dtype))


@check(
    "reduce-own-scores",
    statement="reducing is scoring, selecting and gathering",
    strategy=strategies.tokens(),
    examples=SHARP,
)
def composition(subject: Subject, case: TokensCase) -> None:
    """Compose the backend's own operations. Near-ties may differ, because a fused kernel may round differently."""
    tokens = case.tokens(subject.dtype)
    patches = tokens[:, case.prefix :]
    kept, ids = _reduce(subject, tokens, case)
    scores = subject.backend.to_numpy(subject.backend.similarity_scores(subject.own(patches), case.center))
    check_near_ties("kept ids", ids, scores, tolerances.scores(patches, case.center, subject.dtype))
    gathered = np.stack([sequence[row] for sequence, row in zip(patches, ids, strict=True)])
    subject.near("kept tokens", kept, np.concatenate([tokens[:, : case.prefix], gathered], axis=1), 0.0)


@check(
    "reduce-prefix",
    statement="prefix tokens stay, bit for bit, and take no part in the mean",
    strategy=strategies.tokens(("normal", "offset", "near_duplicates")),
    examples=[TokensCase(batch=2, length=8, width=7, k=4, prefix=1), TokensCase(length=5, width=2, k=2, prefix=2)],
)
def prefix(subject: Subject, case: TokensCase) -> None:
    """Another, far larger prefix gives the same ids."""
    tokens = case.tokens(subject.dtype)
    kept, ids = _reduce(subject, tokens, case)
    subject.near("prefix tokens", kept[:, : case.prefix], tokens[:, : case.prefix], 0.0)
    tokens[:, : case.prefix] *= -64.0
    kept, with_other = _reduce(subject, tokens, case)
    subject.near("prefix tokens", kept[:, : case.prefix], tokens[:, : case.prefix], 0.0)
    subject.near("ids with another prefix", with_other, ids, 0)


@check(
    "reduce-permutation",
    statement="permuting the sequences of a batch permutes the result",
    strategy=strategies.tokens(("normal", "offset")),
    examples=[TokensCase(batch=3, length=8, width=7, k=3, prefix=1)],
)
def permutation(subject: Subject, case: TokensCase) -> None:
    """Sequences do not influence each other: reduce them in another order, and the first one alone."""
    tokens, order = case.tokens(subject.dtype), case.rng().permutation(case.batch)
    for chosen in (tokens[order], tokens[:1]):
        patches = chosen[:, case.prefix :]
        _, ids = _reduce(subject, chosen, case)
        scores = np.asarray(subject.reference.similarity_scores(patches, case.center))
        check_near_ties("kept ids", ids, scores, tolerances.scores(patches, case.center, subject.dtype))
