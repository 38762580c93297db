"""Survivors back on the grid, dropped patches filled from their most similar survivor.

Letters: B images, N patches, k survivors, D width, F features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pcae_conformance import definitions, strategies, tolerances
from pcae_conformance.check import ONCE, WIDE, check
from pcae_conformance.compare import require, require_raises
from pcae_conformance.dtypes import Floats
from pcae_conformance.image_cases import GridCase
from pcae_conformance.selections import Ids
from pcae_conformance.subject import Subject
from pcae_core.errors import ShapeError

SHARP = [
    GridCase(batch=2, grid=4, k=5),
    GridCase(batch=2, grid=4, k=7, kind="normal"),
    GridCase(batch=2, grid=3, k=4, kind="one_hot"),
    GridCase(batch=1, grid=3, k=4, kind="zeros"),
    GridCase(batch=2, grid=3, k=4, kind="nan"),
    GridCase(batch=3, grid=4, k=1, kind="normal"),
]


def _restored(subject: Subject, case: GridCase) -> Floats:
    """The backend's grid for the case (B, N, D)."""
    features = case.features(subject.dtype)
    own = None if features is None else subject.own(features)
    got = subject.backend.restore_grid(
        subject.own(case.tokens(subject.dtype)), subject.own_ids(case.ids()), case.grid**2, own
    )
    host = subject.host("restored grid", got, subject.dtype)
    require(host.shape == case.shape, f"restored grid: got the shape {host.shape}, expected {case.shape}")
    return host


def _sources(subject: Subject, case: GridCase, grid: Floats) -> Ids:
    """The survivor (B, N) whose token is at each place of the grid. Raises Mismatch for any other token."""
    sources = np.zeros(grid.shape[:2], dtype=np.int64)
    for b, (tokens, ids) in enumerate(zip(case.tokens(subject.dtype), case.ids(), strict=True)):
        equal = (grid[b][:, None] == tokens).all(axis=-1)  # (N, k)
        require(bool(equal.any(axis=1).all()), f"restored grid: image {b} holds tokens that are no survivor's")
        sources[b] = ids[equal.argmax(axis=1)]
    return sources


def _similarities(subject: Subject, case: GridCase) -> Floats:
    """Similarity (B, N, k) of every patch to every survivor, in ascending order of their ids."""
    return definitions.grid_similarities(case.features(subject.dtype), np.sort(case.ids(), axis=1), case.grid)


@check(
    "grid-definition",
    statement="a dropped patch gets the survivor of the largest cosine, or the nearest one; ties to the lower id",
    strategy=strategies.grids(),
    examples=SHARP,
)
def definition(subject: Subject, case: GridCase) -> None:
    """Compare with plain Python. Cosines that differ by rounding may change places; equal ones may not."""
    sources = _sources(subject, case, _restored(subject, case))
    similarities, survivors = _similarities(subject, case), np.sort(case.ids(), axis=1)
    margin = 0.0 if case.exact else 2.0 * tolerances.cosine(case.width, subject.dtype)
    for b, n in np.ndindex(sources.shape):
        if n in survivors[b]:
            continue
        best = similarities[b, n].max()
        allowed = survivors[b][similarities[b, n] >= best - margin] if best > -np.inf else survivors[b]
        allowed = allowed[:1] if case.exact else allowed
        require(
            sources[b, n] in allowed,
            f"image {b}: patch {n} got the token of {sources[b, n]}, expected {allowed.tolist()}; its similarities "
            f"with the survivors {survivors[b].tolist()} are {similarities[b, n].tolist()}",
        )


@check(
    "grid-reference",
    statement="equal to the reference's where no two survivors are equally similar to within rounding",
    strategy=strategies.grids(),
    examples=SHARP,
)
def reference(subject: Subject, case: GridCase) -> None:
    """Compare bit for bit, because tokens are only moved."""
    expected = subject.reference.restore_grid(
        case.tokens(subject.dtype), case.ids(), case.grid**2, case.features(subject.dtype)
    )
    ordered = np.sort(_similarities(subject, case), axis=2)
    with np.errstate(invalid="ignore"):
        gap = ordered[..., -1] - ordered[..., -2] if case.k > 1 else np.full(case.shape[:2], np.inf)
    clear = np.full_like(gap, case.exact, dtype=bool) | (gap > 2.0 * tolerances.cosine(case.width, subject.dtype))
    subject.near("restored grid", _restored(subject, case)[clear], expected[clear], 0.0)


@check(
    "grid-survivors",
    statement="survivors stay unchanged at their places, even if their features are NaN or equal those of others",
    strategy=strategies.grids(),
    examples=SHARP,
)
def survivors(subject: Subject, case: GridCase) -> None:
    """An infinite or NaN token changes only the places that it fills."""
    tokens, ids = case.tokens(subject.dtype), case.ids()
    grid = _restored(subject, case)
    subject.near("survivors", np.take_along_axis(grid, ids[:, :, None], axis=1), tokens, 0.0)
    sources = _sources(subject, case, grid)
    tokens[:, 0] = np.nan
    features = case.features(subject.dtype)
    own = None if features is None else subject.own(features)
    got = subject.backend.restore_grid(subject.own(tokens), subject.own_ids(ids), case.grid**2, own)
    host, others = subject.host("restored grid", got, subject.dtype), sources != ids[:, :1]
    subject.near("places that another survivor fills", host[others], grid[others], 0.0)


@check(
    "grid-all",
    statement="k = N only puts the tokens in order",
    strategy=strategies.grids(everything=True),
    examples=[GridCase(batch=2, grid=3, k=9), GridCase(batch=2, grid=2, k=4, kind="one_hot"), GridCase(grid=1)],
)
def everything(subject: Subject, case: GridCase) -> None:
    """Features do not matter."""
    order = np.argsort(case.ids(), axis=1)
    expected = np.take_along_axis(case.tokens(subject.dtype), order[:, :, None], axis=1)
    subject.near("restored grid", _restored(subject, case), expected, 0.0)


@check(
    "grid-gradient",
    statement="the gradient of a survivor is the sum of the gradients of the places that it fills",
    strategy=strategies.grids(),
    examples=SHARP,
    dtypes=WIDE,
    training=True,
)
def gradient(subject: Subject, case: GridCase) -> None:
    """Take the gradient of a weighted sum of the grid."""
    backend, ids, features = subject.training_backend, subject.own_ids(case.ids()), case.features(subject.dtype)
    own = None if features is None else subject.own(features)
    weights = np.random.default_rng([case.seed, 9]).integers(-4, 5, case.shape).astype(np.float64)
    own_weights = subject.own(weights)
    got = backend.gradient(
        lambda x: (backend.restore_grid(x, ids, case.grid**2, own) * own_weights).sum(),
        subject.own(case.tokens(subject.dtype)),
    )
    sources = _sources(subject, case, _restored(subject, case))
    filled = case.ids()[:, :, None] == sources[:, None, :]  # (B, k, N)
    expected = filled.astype(np.float64) @ weights
    subject.close("gradient", got, expected, tolerances.GRADIENT[subject.dtype], subject.dtype)


@check(
    "grid-shapes", statement="shapes that do not fit raise ShapeError", dtypes=ONCE, examples=[GridCase(grid=3, k=4)]
)
def shapes(subject: Subject, case: GridCase) -> None:
    """Each wrong in one way."""
    backend, tokens, ids = subject.backend, subject.own(case.tokens(subject.dtype)), subject.own_ids(case.ids())
    wrong: dict[str, Callable[[], object]] = {
        "a token more than ids": lambda: backend.restore_grid(subject.own(np.zeros((1, 5, 4))), ids, 9),
        "another batch of ids": lambda: backend.restore_grid(tokens, subject.own_ids(np.zeros((2, 4))), 9),
        "tokens of two axes": lambda: backend.restore_grid(subject.own(np.zeros((1, 4))), ids, 9),
        "more tokens than patches": lambda: backend.restore_grid(tokens, ids, 3),
        "no square grid": lambda: backend.restore_grid(tokens, ids, 8),
        "features of fewer patches": lambda: backend.restore_grid(tokens, ids, 9, subject.own(np.zeros((1, 8, 2)))),
    }
    for what, attempt in wrong.items():
        require_raises(ShapeError, f"restore_grid of {what}", attempt)
