"""Which tensors of a file are the model: those behind the prefix that ends in a known name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pcae_core.convert.names import AVERAGES, HF_STEM, INNER_WRAPPERS, STEM
from pcae_core.errors import CheckpointError, ConfigError
from pcae_core.parameters import Arrays

_MOST = 100
"""More models in one file are refused."""
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Chosen:
    """The tensors behind one prefix.

    Attributes:
        tensors: by their names without the prefix.
        beside: beginning of other names -> how many tensors; they are left out.
        remark: which set was taken, or "" where there is nothing to say.
    """

    tensors: Arrays
    beside: Mapping[str, int]
    remark: str


def choose(path: Path, stored: Arrays, wanted: str | None) -> Chosen:
    """The model in the file `path`, which holds `stored`.

    Args:
        wanted: the prefix that the user names, if any; its last dot may be left out.

    Raises:
        CheckpointError: the file holds no Vision Transformer in timm's names, or several.
        ConfigError: it holds none behind `wanted`.
    """
    found = _prefixes(stored, STEM)
    if not 0 < len(found) <= _MOST:
        raise CheckpointError(f"{path} holds {len(found)} models" if found else _nothing(path, stored))
    owners = {name: max(filter(name.startswith, found), key=len, default=None) for name in stored}
    sizes = Counter(owners.values())
    shown = [f"{prefix or repr(prefix)} ({sizes[prefix]} tensors)" for prefix in found]
    prefix = _only(path, found, shown) if wanted is None else _named(path, found, shown, wanted)
    tensors: Arrays = {}
    for name in (name for name in stored if owners[name] == prefix):
        plain = _plain(name.removeprefix(prefix))
        if plain in tensors:
            raise CheckpointError(f"{path}: two tensors would be called {plain}, one of them {name}")
        tensors[plain] = stored[name]
    beside = Counter(_beginning(name, prefix) for name in stored if owners[name] != prefix)
    return Chosen(tensors, beside, _remark(found.index(prefix), shown) if prefix or len(found) > 1 else "")


def _prefixes(stored: Iterable[str], stem: str) -> list[str]:
    """What stands before the stem, as whole words."""
    names = [name for name in stored if name == stem or name.endswith(f".{stem}")]
    return [name.removesuffix(stem) for name in names]


def _only(path: Path, found: list[str], shown: list[str]) -> str:
    """The only prefix, or the only one that is no moving average of weights."""
    trained = [prefix for prefix in found if AVERAGES.isdisjoint(prefix.split("."))]
    for candidates in (found, trained):
        if len(candidates) == 1:
            return candidates[0]
    example = found[0] or repr("")
    raise CheckpointError(f"{path} holds several models: {_listed(shown)}; choose one, such as --prefix {example}")


def _named(path: Path, found: list[str], shown: list[str], wanted: str) -> str:
    for prefix in found:
        if wanted in (prefix, prefix.removesuffix(".")):
            return prefix
    raise ConfigError(f"{path} holds no model behind --prefix {wanted or repr(wanted)}, but {_listed(shown)}")


def _plain(name: str) -> str:
    """Without the words of wrappers, and without the number of a chunk, which DINOv2 puts before a block's own."""
    words = [word for word in name.split(".") if word not in INNER_WRAPPERS]
    return re.sub(r"^blocks\.\d+\.(?=\d+\.)", "blocks.", ".".join(words))


def _beginning(name: str, prefix: str) -> str:
    """Of a name outside a prefix: its words up to the first that the prefix has not."""
    words = name.split(".")
    same = 0
    for word, other in zip(words, prefix.split("."), strict=False):
        if word != other:
            break
        same += 1
    return ".".join(words[: same + 1])


def _nothing(path: Path, stored: Arrays) -> str:
    if _prefixes(stored, HF_STEM):
        return f"{path} has Hugging Face's names, which do not tell the heads; give its folder with its config.json"
    names = ", ".join(list(stored)[:3]) or "nothing"
    return f"{path} holds no {STEM}, so no Vision Transformer in timm's names; it begins with {names}"


def _remark(taken: int, shown: list[str]) -> str:
    others = shown[:taken] + shown[taken + 1 :]
    return f"takes {shown[taken]}" + (f", not {_listed(others)}: --prefix chooses" if others else "")


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
