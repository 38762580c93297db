"""Arrays in and out: conversion, patches, and that no function changes its inputs or shares their memory.

Letters: B images, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pcae_conformance import strategies
from pcae_conformance.check import ONCE, check
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats, compute_eps, dtype_name, rounded
from pcae_conformance.image_cases import ImagesCase
from pcae_conformance.subject import INTEGER, Subject
from pcae_conformance.token_cases import TokensCase
from pcae_core.contract import Array

Operation = Callable[[Array], Any]


def outputs(result: Any) -> list[Array]:
    """The arrays in the output of an operation."""
    return list(result) if isinstance(result, tuple) else [result]


def overwrite(array: Array) -> None:
    """Fill an array in place, if it can be changed at all."""
    try:
        array[...] = 7
    except (TypeError, ValueError, NotImplementedError):
        return  # an array that cannot be changed may be shared


@check(
    "arrays-conversion",
    statement="asarray rounds to the nearest value of the dtype, to_numpy gives it back",
    strategy=strategies.plain_tokens(),
    examples=[TokensCase(batch=2, length=5, width=7, kind="mixed_scale"), TokensCase(kind="all_zero")],
)
def conversion(subject: Subject, case: TokensCase) -> None:
    """Convert from float32, so that half precision has to round."""
    source = rounded(case.tokens("float32"), "float32").astype(np.float32)
    source = np.clip(source, -6e4, 6e4) if subject.dtype == "float16" else source
    array = subject.backend.asarray(source, subject.dtype)
    # The smallest numbers of a dtype may be flushed to zero.
    subject.close("asarray", array, rounded(source, subject.dtype), 1e-37, subject.dtype)
    kept = subject.backend.asarray(array)
    name = dtype_name(kept, subject.backend.to_numpy(kept))
    require(name == subject.dtype, f"asarray without dtype: got {name}, expected that of its input, {subject.dtype}")


@check("arrays-integers", statement="ids go in and out unchanged", dtypes=ONCE, examples=[TokensCase(length=5, k=9)])
def integers(subject: Subject, case: TokensCase) -> None:
    """Ids go in as int64 and come out in any integer dtype."""
    ids = case.ids()
    subject.near("asarray", subject.host("asarray", subject.backend.asarray(ids), INTEGER), ids, 0.0)


@check(
    "arrays-memory",
    statement="asarray and to_numpy copy: changing one array leaves the other",
    examples=[TokensCase(batch=2, length=3, width=4)],
)
def memory(subject: Subject, case: TokensCase) -> None:
    """Convert from NumPy to the backend, within the backend, and back to NumPy."""
    expected = case.tokens(subject.dtype)
    for dtype in (None, subject.dtype):
        source = subject.backend.to_numpy(subject.own(expected))
        for original in (source, subject.own(expected)):
            array = subject.backend.asarray(original, dtype)
            overwrite(original)
            subject.near("asarray, its input overwritten", subject.backend.to_numpy(array), expected, 0.0)
    array = subject.own(expected)
    host = subject.backend.to_numpy(array)
    overwrite(array)
    subject.near("to_numpy, its input overwritten", host, expected, 0.0)


@check(
    "patchify-definition",
    statement="patches row by row; within a patch channel, row, column",
    strategy=strategies.images(),
    examples=[ImagesCase(batch=2, chans=3, grid=3, patch=2), ImagesCase(chans=2, grid=2, patch=1)],
)
def patchify(subject: Subject, case: ImagesCase) -> None:
    """Compare with patches that are cut out by slicing."""
    images, p = case.images(subject.dtype), case.patch
    corners = [(row * p, column * p) for row in range(case.grid) for column in range(case.grid)]
    cut = [images[:, :, y : y + p, x : x + p].reshape(case.batch, -1) for y, x in corners]
    got = subject.backend.patchify(subject.own(images), p)
    subject.close("patchify", got, np.stack(cut, axis=1), 0.0, subject.dtype)


@check(
    "arrays-purity",
    statement="no operation changes its inputs or shares memory with them; NumPy arrays, read-only ones, views and the "
    "backend's own give the same",
    strategy=strategies.square_tokens(),
    examples=[TokensCase(batch=2, length=3, width=3, kind="offset")],
)
def purity(subject: Subject, case: TokensCase) -> None:
    """Call each operation with four kinds of the same array, and overwrite the array after the call."""
    backend, tokens = subject.backend, case.tokens(subject.dtype)
    k, center = case.length, case.center  # all tokens stay: the case in which a view would do
    ids = np.broadcast_to(np.arange(k), (case.batch, k)).copy()
    _check_purity(subject, "similarity_scores", lambda x: backend.similarity_scores(x, center), tokens)
    _check_purity(subject, "gather_tokens", lambda x: backend.gather_tokens(x, ids), tokens)
    _check_purity(subject, "reduce_tokens", lambda x: backend.reduce_tokens(x, k, 0, center), tokens)
    _check_purity(subject, "reduce_tokens of one", lambda x: backend.reduce_tokens(x, 1, 0, center), tokens)
    _check_purity(subject, "restore_grid", lambda x: backend.restore_grid(x, ids, k, x), tokens)
    _check_purity(subject, "select_tokens", lambda x: backend.select_tokens(x, k), tokens[:, :, 0])
    _check_purity(subject, "patchify", lambda x: backend.patchify(x, 1), tokens[:, None])


@check(
    "arrays-training-purity",
    statement="no operation of pre-training changes its inputs or shares memory with them",
    strategy=strategies.square_tokens(),
    examples=[TokensCase(batch=2, length=3, width=3, kind="offset")],
    training=True,
)
def training_purity(subject: Subject, case: TokensCase) -> None:
    """As `purity`."""
    backend, tokens = subject.training_backend, case.tokens(subject.dtype)
    _check_purity(subject, "standardize", backend.standardize, tokens)
    _check_purity(subject, "cosine_loss", lambda x: backend.cosine_loss(x, x), tokens)
    _check_purity(subject, "split_by_noise", lambda x: backend.split_by_noise(x, 1), tokens[:, :, 0])


def _kinds_of_array(subject: Subject, values: Floats) -> dict[str, Array]:
    plain = values.astype("float32" if subject.dtype == "bfloat16" else subject.dtype)
    frozen = plain.copy()
    frozen.flags.writeable = False
    view = np.repeat(plain, 2, axis=-1)[..., ::2]
    return {"its own array": subject.own(values), "NumPy array": plain, "read-only array": frozen, "view": view}


def _check_purity(subject: Subject, name: str, operation: Operation, values: Floats) -> None:
    # The same values in another layout may be summed in another order; widths of 3 and more keep that harmless.
    tolerance = 2.0**14 * compute_eps(subject.dtype)
    expected: list[Floats] = []
    for kind, array in _kinds_of_array(subject, values).items():
        results = outputs(operation(array))
        subject.near(f"input of {name} ({kind}) after the call", subject.backend.to_numpy(array), values, 0.0)
        expected = expected or [subject.backend.to_numpy(result) for result in results]
        overwrite(array)
        for result, before in zip(results, expected, strict=True):
            subject.require_own(f"{name} of {kind}", result)
            host = subject.backend.to_numpy(result)
            subject.near(f"{name} of {kind}, its input overwritten after the call", host, before, tolerance)
