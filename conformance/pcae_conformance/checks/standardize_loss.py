"""Standardised targets and the cosine loss. Letters: B, K targets, D width."""

from __future__ import annotations

import numpy as np

from pcae_conformance import definitions, strategies, tolerances
from pcae_conformance.check import check
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats, exact_factors, rounded
from pcae_conformance.subject import AT_LEAST_FLOAT32, Subject
from pcae_conformance.token_cases import PairCase, TokensCase
from pcae_core.contract import STANDARDIZE_EPS

LATENTS = ("normal", "offset", "constant", "zeros", "all_zero", "near_duplicates", "mixed_scale")
SHARP_LATENTS = [
    TokensCase(batch=2, length=3, width=16),
    TokensCase(length=2, width=4, kind="offset"),
    TokensCase(length=2, width=4, kind="all_zero"),
    TokensCase(length=2, width=4, exponent=-3),
    TokensCase(length=2, width=4, exponent=-15),
    TokensCase(length=1, width=2, exponent=15),
]
SHARP_PAIRS = [
    PairCase(batch=2, length=3, width=16),
    PairCase(length=2, width=4, kind="equal", exponent=-15),
    PairCase(length=2, width=4, kind="opposite", exponent=15),
    PairCase(length=3, width=4, kind="zeros", seed=1),
]


def _standardize(subject: Subject, latents: Floats, eps: float = STANDARDIZE_EPS) -> Floats:
    got = subject.training_backend.standardize(subject.own(latents), eps)
    return subject.host("standardised", got, AT_LEAST_FLOAT32)


def _loss(subject: Subject, prediction: Floats, target: Floats) -> Floats:
    got = subject.training_backend.cosine_loss(subject.own(prediction), subject.own(target))
    return subject.host("loss", got, AT_LEAST_FLOAT32)


@check(
    "standardize-reference",
    statement="equal to the reference's",
    strategy=strategies.plain_tokens(LATENTS),
    examples=SHARP_LATENTS,
    training=True,
)
def reference(subject: Subject, case: TokensCase) -> None:
    """By the default eps."""
    latents = case.tokens(subject.dtype)
    expected = np.asarray(subject.reference.standardize(latents))
    got = subject.training_backend.standardize(subject.own(latents))
    subject.close("standardised", got, expected, tolerances.standardized(latents, STANDARDIZE_EPS, subject.dtype))


@check(
    "standardize-definition",
    statement="each token to mean 0 and unbiased variance 1, with eps under the root",
    strategy=strategies.plain_tokens(LATENTS),
    examples=SHARP_LATENTS,
    training=True,
)
def definition(subject: Subject, case: TokensCase) -> None:
    """Against a statement in plain Python, by the default and by another eps."""
    latents = case.tokens(subject.dtype)
    for eps in (STANDARDIZE_EPS, 1e-2):
        expected = [[definitions.standardized(token, eps) for token in sequence] for sequence in latents.tolist()]
        tolerance = tolerances.standardized(latents, eps, subject.dtype)
        subject.near(f"standardised, eps {eps}", _standardize(subject, latents, eps), expected, tolerance)


@check(
    "standardize-moments",
    statement="mean 0 and unbiased variance v / (v + eps), so 0 for a constant token and 1 for a wide one",
    strategy=strategies.plain_tokens(LATENTS),
    examples=[*SHARP_LATENTS, TokensCase(length=2, width=7, exponent=2)],
    training=True,
)
def moments(subject: Subject, case: TokensCase) -> None:
    """Of what the backend gives."""
    latents = case.tokens(subject.dtype)
    got = _standardize(subject, latents)
    tolerance = 4.0 * tolerances.standardized(latents, STANDARDIZE_EPS, subject.dtype)[..., 0] * np.sqrt(case.width)
    subject.near("mean", got.mean(axis=-1), np.zeros(latents.shape[:2]), tolerance)
    variance = latents.var(axis=-1, ddof=1)
    subject.near("variance", got.var(axis=-1, ddof=1), variance / (variance + STANDARDIZE_EPS), tolerance)


@check(
    "standardize-invariance",
    statement="shifting a token or scaling it, eps scaled alike, changes nothing; a negative scale flips the sign",
    strategy=strategies.plain_tokens(("normal", "near_duplicates")),
    examples=[TokensCase(length=2, width=16), TokensCase(length=2, width=4, exponent=2)],
    training=True,
)
def invariance(subject: Subject, case: TokensCase) -> None:
    """By powers of two, which round nothing; the shift rounds its sum, which counts as the input's error."""
    latents = case.tokens(subject.dtype)
    expected = _standardize(subject, latents)
    for factor in (4.0, -0.5):
        tolerance = 2.0 * tolerances.standardized(latents, STANDARDIZE_EPS, subject.dtype)
        if exact_factors(latents, np.array(factor), subject.dtype, (0, 1, 2)).item() != factor:
            continue
        got = _standardize(subject, latents * factor, STANDARDIZE_EPS * factor**2)
        subject.near(f"standardised {factor} x", got, np.sign(factor) * expected, tolerance)
    shift = np.abs(latents).max()
    shifted = rounded(latents + shift, subject.dtype)
    tolerance = tolerances.standardized(np.abs(latents) + shift, STANDARDIZE_EPS, subject.dtype)
    deviation = np.sqrt(latents.var(axis=-1, ddof=1, keepdims=True) + STANDARDIZE_EPS)
    rounding = np.abs(shifted - shift - latents).max(axis=-1, keepdims=True) / deviation
    allowed = 4.0 * (tolerance + rounding * case.width)
    subject.near("standardised x + b", _standardize(subject, shifted), expected, allowed)


@check(
    "standardize-nan",
    statement="a NaN makes its own token NaN and no other; in a prediction it makes the loss NaN",
    strategy=strategies.plain_tokens(("normal", "offset")),
    examples=[TokensCase(batch=2, length=3, width=4)],
    training=True,
)
def nan(subject: Subject, case: TokensCase) -> None:
    """Plain arithmetic carries it."""
    latents = case.tokens(subject.dtype)
    expected = _standardize(subject, latents)
    tolerance = 2.0 * tolerances.standardized(latents, STANDARDIZE_EPS, subject.dtype)
    expected[0, case.k - 1] = np.nan
    latents[0, case.k - 1, 0] = np.nan
    subject.near("standardised", _standardize(subject, latents), expected, tolerance)
    target = case.tokens(subject.dtype)
    subject.near("loss", _loss(subject, latents, target), np.nan, 0.0)


@check(
    "loss-reference",
    statement="equal to the reference's",
    strategy=strategies.pairs(),
    examples=SHARP_PAIRS,
    training=True,
)
def loss_reference(subject: Subject, case: PairCase) -> None:
    """A scalar."""
    prediction, target = case.pair(subject.dtype)
    expected = np.asarray(subject.reference.cosine_loss(prediction, target))
    got = subject.training_backend.cosine_loss(subject.own(prediction), subject.own(target))
    subject.close("loss", got, expected, tolerances.loss(case.shape, subject.dtype))


@check(
    "loss-definition",
    statement="1 - cosine, averaged over tokens; within [0, 2]: 0 for equal, 1 for orthogonal or zero, 2 for opposite",
    strategy=strategies.pairs(),
    examples=[*SHARP_PAIRS, PairCase(length=2, width=4, kind="orthogonal")],
    training=True,
)
def loss_definition(subject: Subject, case: PairCase) -> None:
    """Against plain Python, and against the number that each kind of pair is known to have."""
    prediction, target = case.pair(subject.dtype)
    got = _loss(subject, prediction, target)
    tolerance = tolerances.loss(case.shape, subject.dtype)
    tokens = zip(prediction.reshape(-1, case.width), target.reshape(-1, case.width), strict=True)
    cosines = [definitions.cosine(a.tolist(), b.tolist()) for a, b in tokens]
    subject.near("loss", got, 1.0 - np.mean(cosines), tolerance)
    known = {"equal": 0.0, "opposite": 2.0, "orthogonal": 1.0}
    if case.kind in known:
        subject.near(f"loss of {case.kind} tokens", got, known[case.kind], tolerance)
    require(bool(-tolerance <= got <= 2.0 + tolerance), f"loss must be within [0, 2], got {got}")


@check(
    "loss-scale",
    statement="the lengths of prediction and target do not count",
    strategy=strategies.pairs(),
    examples=[PairCase(length=3, width=4), PairCase(length=2, width=4, exponent=15)],
    training=True,
)
def loss_scale(subject: Subject, case: PairCase) -> None:
    """By powers of two a token."""
    prediction, target = case.pair(subject.dtype)
    drawn = np.exp2(case.rng().integers(-3, 4, size=(2, case.batch, case.length, 1)))
    expected = _loss(subject, prediction, target)
    scaled = [
        values * exact_factors(values, factors, subject.dtype, (2,))
        for values, factors in zip((prediction, target), drawn, strict=True)
    ]
    got = _loss(subject, *scaled)
    subject.near("loss of scaled tokens", got, expected, 2.0 * tolerances.loss(case.shape, subject.dtype))


@check(
    "loss-mean",
    statement="the loss of a batch is the mean of its images' losses, in any order of images and tokens",
    strategy=strategies.pairs(),
    examples=[PairCase(batch=3, length=5, width=7)],
    training=True,
)
def loss_mean(subject: Subject, case: PairCase) -> None:
    """Every image has as many tokens."""
    prediction, target = case.pair(subject.dtype)
    tolerance = 2.0 * tolerances.loss(case.shape, subject.dtype)
    whole = _loss(subject, prediction, target)
    parts = [_loss(subject, prediction[i : i + 1], target[i : i + 1]) for i in range(case.batch)]
    subject.near("loss of the batch", whole, np.mean(parts), tolerance)
    images, tokens = case.rng().permutation(case.batch), case.rng().permutation(case.length)
    got = _loss(subject, prediction[images][:, tokens], target[images][:, tokens])
    subject.near("loss in another order", got, whole, tolerance)
