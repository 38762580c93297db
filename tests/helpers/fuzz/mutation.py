"""Small changes that make good input wrong: of bytes, of trees as JSON and YAML have them, of their text."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from fuzz.kind import choose

NUMBERS = (0, 1, -1, 2, 127, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64)
VALUES: tuple[Any, ...] = (
    None, True, False, *NUMBERS, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf,
    "", "x", "0", "nan", "x" * 10_000, "../../escape", "/escape", "a\nb", "\0", "\ud800", "\u202e", "!!", "{}",
    [], [[]], {}, [None], [1, 2], ["x"] * 1000, {"": {}}, {"__proto__": 1}, [0.5, 0.5, 0.5], [math.nan],
)  # fmt: skip
_BATCH = 100


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """A few changes of bytes; now and then of nothing but the length."""
    for _ in range(int(rng.integers(1, 5))):
        data = choose(rng, (_flip, _fill, _number, _cut, _delete, _repeat, _insert))(rng, data)
    return data


def _place(rng: np.random.Generator, data: bytes) -> tuple[int, int]:
    """A slice, short rather than long, and near the beginning as often as anywhere."""
    start = int(rng.integers(len(data) + 1)) if rng.random() < 0.5 else int(rng.integers(min(len(data), 200) + 1))
    return start, min(len(data), start + int(2 ** rng.uniform(0, 8)))


def _flip(rng: np.random.Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _fill(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = _place(rng, data)
    return data[:start] + choose(rng, (b"\0", b"\xff", b"9", b"[", b"{")) * (stop - start) + data[stop:]


def _number(rng: np.random.Generator, data: bytes) -> bytes:
    start, _ = _place(rng, data)
    size, order = choose(rng, (1, 2, 4, 8)), choose(rng, ("little", "big"))
    value = choose(rng, NUMBERS) % 256**size
    return data[:start] + value.to_bytes(size, order) + data[start + size :]


def _cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data) + 1))] if rng.random() < 0.5 else data[: -int(rng.integers(1, 9))]


def _delete(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = _place(rng, data)
    return data[:start] + data[stop:]


def _repeat(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = _place(rng, data)
    return data[:stop] + data[start:stop] * int(rng.integers(1, 20)) + data[stop:]


def _insert(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = _place(rng, data)
    return data[:start] + rng.bytes(stop - start) + data[start:]


def edited(rng: np.random.Generator, tree: Any, times: int = 2) -> Any:
    """A copy of a tree of dicts and lists with up to `times` values replaced, removed, renamed or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, times + 1))):
        places = list(_places(tree))
        if places:
            _edit(rng, *choose(rng, places))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def _edit(rng: np.random.Generator, holder: Any, key: Any) -> None:
    what = rng.random()
    if what < 0.6:
        holder[key] = value(rng)
    elif what < 0.75:
        del holder[key]
    elif isinstance(holder, dict):
        holder[choose(rng, ("", "x", "../x", "config", "\n", str(key) + "s"))] = holder[key]
    else:
        holder.extend(holder[:100])


def value(rng: np.random.Generator) -> Any:
    """One of the values that programs stumble over, or one that hypothesis thought of."""
    return choose(rng, VALUES) if rng.random() < 0.7 else arbitrary(rng)


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_TREES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=20
)


def arbitrary(rng: np.random.Generator) -> Any:
    """A tree that hypothesis drew."""
    return choose(rng, _drawn(int(rng.integers(20))))


@functools.cache
def _drawn(seed: int) -> list[Any]:
    found: list[Any] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(_TREES)
    def note(tree: Any) -> None:
        found.append(tree)

    note()
    return found


def json_text(rng: np.random.Generator, tree: Any) -> bytes:
    """JSON of a changed tree, and sometimes a text that no tree has: a name twice, NaN, deep nesting, broken bytes."""
    text = json.dumps(edited(rng, tree)).encode()
    what = rng.random()
    if what < 0.6:
        return text
    if what < 0.7:
        return mutated(rng, text)
    if what < 0.8:
        names = list(tree) if isinstance(tree, dict) else []
        return (
            text[:-1]
            + b"".join(b", %s: %s" % (json.dumps(n).encode(), json.dumps(tree[n]).encode()) for n in names)
            + b"}"
        )
    depth = choose(rng, (50, 1000, 20_000))
    nested = choose(rng, (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth))
    return choose(rng, (nested, text[:-1] + b', "x": ' + nested + b"}", text.replace(b"null", nested, 1)))
