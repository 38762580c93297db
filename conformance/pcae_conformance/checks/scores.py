"""Similarity scores: the cosine of each token with the mean token of its sequence. Letters: B, N tokens, D width."""

from __future__ import annotations

import numpy as np

from pcae_conformance import definitions, strategies, tolerances
from pcae_conformance.check import check
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats, exact_factors
from pcae_conformance.subject import AT_LEAST_FLOAT32, Subject
from pcae_conformance.token_cases import TokensCase

SHARP = [
    TokensCase(batch=2, length=5, width=7, kind="mixed_scale"),
    TokensCase(batch=2, length=5, width=7, kind="mixed_scale", center="raw"),
    TokensCase(length=3, width=16, exponent=15),
    TokensCase(length=3, width=16, exponent=-15),
    TokensCase(length=5, width=4, kind="zeros", seed=1),
    TokensCase(length=3, width=2, kind="all_zero"),
    TokensCase(length=1, width=2),
    TokensCase(length=5, width=4, kind="opposite"),
    TokensCase(batch=3, length=13, width=16, kind="near_duplicates"),
]


def _scores(subject: Subject, tokens: Floats, case: TokensCase) -> Floats:
    got = subject.backend.similarity_scores(subject.own(tokens), case.center)
    return subject.host("scores", got, AT_LEAST_FLOAT32)


@check(
    "scores-reference",
    statement="equal to the reference's",
    strategy=strategies.plain_tokens(),
    examples=SHARP,
)
def reference(subject: Subject, case: TokensCase) -> None:
    """The tolerance depends on the condition of the mean token."""
    tokens = case.tokens(subject.dtype)
    expected = subject.reference.similarity_scores(tokens, case.center)
    got = subject.backend.similarity_scores(subject.own(tokens), case.center)
    subject.close("scores", got, expected, tolerances.scores(tokens, case.center, subject.dtype))


@check(
    "scores-definition",
    statement="cosine with the mean of the unit-length (or raw) tokens",
    strategy=strategies.plain_tokens(),
    examples=SHARP,
)
def definition(subject: Subject, case: TokensCase) -> None:
    """Compare with plain Python."""
    tokens = case.tokens(subject.dtype)
    expected = definitions.similarity(tokens, case.center)
    got = _scores(subject, tokens, case)
    subject.near("scores", got, expected, tolerances.scores(tokens, case.center, subject.dtype))


@check(
    "scores-scale",
    statement="a token's length does not count: scaling single tokens (unit) or the sequence (raw) changes nothing",
    strategy=strategies.plain_tokens(),
    examples=[TokensCase(length=3), TokensCase(length=3, center="raw"), TokensCase(length=3, exponent=-15)],
)
def scale(subject: Subject, case: TokensCase) -> None:
    """Scale by powers of two, which rounds nothing."""
    tokens = case.tokens(subject.dtype)
    per_sequence, axes = (1, (1, 2)) if case.center == "raw" else (case.length, (2,))
    factors = np.exp2(case.rng().integers(-3, 4, size=(case.batch, per_sequence, 1)))
    factors = exact_factors(tokens, factors, subject.dtype, axes)
    tolerance = 2.0 * tolerances.scores(tokens, case.center, subject.dtype)
    scaled = _scores(subject, tokens * factors, case)
    subject.near("scores of scaled tokens", scaled, _scores(subject, tokens, case), tolerance)


@check(
    "scores-permutation",
    statement="permuting tokens permutes scores; each sequence is scored alone",
    strategy=strategies.plain_tokens(),
    examples=[TokensCase(batch=3, length=5)],
)
def permutation(subject: Subject, case: TokensCase) -> None:
    """Permute the tokens, and the batch."""
    tokens, rng = case.tokens(subject.dtype), case.rng()
    order, batch_order = rng.permutation(case.length), rng.permutation(case.batch)
    tolerance = 2.0 * tolerances.scores(tokens, case.center, subject.dtype)
    expected = _scores(subject, tokens, case)
    got = _scores(subject, tokens[:, order], case)
    subject.near("scores of permuted tokens", got, expected[:, order], tolerance)
    got = _scores(subject, tokens[batch_order], case)
    subject.near("scores of permuted sequences", got, expected[batch_order], tolerance[batch_order])
    subject.near("scores of the first sequence alone", _scores(subject, tokens[:1], case), expected[:1], tolerance[:1])


@check(
    "scores-bounds",
    statement="within [-1, 1] and finite, for zero tokens and cancelling means too; a zero token scores 0",
    strategy=strategies.plain_tokens(),
    examples=SHARP,
)
def bounds(subject: Subject, case: TokensCase) -> None:
    """The bounds hold exactly, not only to within rounding."""
    tokens = case.tokens(subject.dtype)
    got = _scores(subject, tokens, case)
    require(bool((np.abs(got) <= 1.0).all()), f"scores must be within [-1, 1], got {got.tolist()}")
    zero = ~tokens.any(axis=-1)
    subject.near("scores of zero tokens", got[zero], np.zeros(int(zero.sum())), 0.0)


@check(
    "scores-constant",
    statement="every token of a constant sequence scores 1",
    strategy=strategies.plain_tokens(("constant",)),
    examples=[
        TokensCase(length=3, kind="constant"),
        TokensCase(length=5, kind="constant", exponent=15, center="raw"),
        TokensCase(length=5, kind="constant", exponent=-15),
    ],
)
def constant(subject: Subject, case: TokensCase) -> None:
    """Sequences are of any scale."""
    tokens = case.tokens(subject.dtype)
    tolerance = tolerances.scores(tokens, case.center, subject.dtype)
    subject.near("scores", _scores(subject, tokens, case), np.ones((case.batch, case.length)), tolerance)


@check(
    "scores-nan",
    statement="a NaN makes all scores of its sequence NaN, and none of another",
    strategy=strategies.plain_tokens(("normal", "offset")),
    examples=[TokensCase(batch=2, length=3)],
)
def nan(subject: Subject, case: TokensCase) -> None:
    """The mean token carries the NaN to all scores."""
    tokens = case.tokens(subject.dtype)
    expected = _scores(subject, tokens, case)
    expected[0] = np.nan
    tokens[0, case.k - 1, 0] = np.nan
    tolerance = 2.0 * tolerances.scores(np.nan_to_num(tokens), case.center, subject.dtype)
    subject.near("scores", _scores(subject, tokens, case), expected, tolerance)
