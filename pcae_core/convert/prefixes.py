"""Find the tensors of a model in a file by their common prefix. A name that every model has marks the prefix."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pcae_core.convert.names import AVERAGES, HF_INNER, INNER_WRAPPERS, STEMS, Layout
from pcae_core.errors import CheckpointError, ConfigError
from pcae_core.parameters import Arrays

_MOST = 100
"""More models in one file are refused."""
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Chosen:
    """The tensors behind one prefix.

    Attributes:
        tensors: tensors by name without the prefix.
        beside: prefix -> number of tensors with it that are left out.
        remark: which model was taken, or "" if there is only one without a prefix.
    """

    tensors: Arrays
    beside: Mapping[str, int]
    remark: str


def choose(path: Path, stored: Arrays, layout: Layout, wanted: str | None) -> Chosen:
    """Choose the model in the file `path`.

    Args:
        stored: all tensors in the file.
        layout: naming scheme of the tensors.
        wanted: prefix that the user gave, or words in it that no other prefix has; None for the only model.

    Raises:
        CheckpointError: the file holds no Vision Transformer with these names, or several.
        ConfigError: the file holds no model behind `wanted`, or several.
    """
    found = _prefixes(stored, layout)
    if not 0 < len(found) <= _MOST:
        raise CheckpointError(f"{path} holds {len(found)} models" if found else _nothing(path, stored, layout))
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


def _prefixes(stored: Iterable[str], layout: Layout) -> list[str]:
    """The words before the stem, for each model in the file."""
    stem, inner = STEMS[layout], HF_INNER if layout == "hf" else ""
    found = [name.removesuffix(stem) for name in stored if f".{name}".endswith(f".{stem}")]
    if layout == "open_clip":  # whose stem is the end of Hugging Face's
        found = [prefix for prefix in found if not f".{prefix}".endswith(".embeddings.")]
    return [prefix.removesuffix(inner) if f".{prefix}".endswith(f".{inner}") else prefix for prefix in found]


def layout_of(stored: Iterable[str]) -> Layout:
    """Whose names a file's tensors have: OpenCLIP's where there are no timm's."""
    names = list(stored)
    return "open_clip" if _prefixes(names, "open_clip") and not _prefixes(names, "timm") else "timm"


def _only(path: Path, found: list[str], shown: list[str]) -> str:
    """The only prefix, or the only prefix of a model that is not a moving average."""
    trained = [prefix for prefix in found if AVERAGES.isdisjoint(prefix.split("."))]
    for candidates in (found, trained):
        if len(candidates) == 1:
            return candidates[0]
    example = found[0] or repr("")
    raise CheckpointError(f"{path} holds several models: {_listed(shown)}; choose one, such as --prefix {example}")


def _named(path: Path, found: list[str], shown: list[str], wanted: str) -> str:
    words = wanted if wanted.endswith(".") or not wanted else f"{wanted}."
    if words in found:
        return words
    fitting = [prefix for prefix in found if words and f".{words}" in f".{prefix}"]
    if len(fitting) == 1:
        return fitting[0]
    number = "several models" if fitting else "no model"
    raise ConfigError(f"{path} holds {number} behind --prefix {wanted or repr(wanted)}; it has {_listed(shown)}")


def _plain(name: str) -> str:
    """Remove the words of wrappers, and the chunk number that DINOv2 puts before a block's number."""
    words = [word for word in name.split(".") if word not in INNER_WRAPPERS]
    return re.sub(r"^blocks\.\d+\.(?=\d+\.)", "blocks.", ".".join(words))


def _beginning(name: str, prefix: str) -> str:
    """The beginning of a name outside a prefix: its words up to the first that differs from the prefix."""
    words = name.split(".")
    same = 0
    for word, other in zip(words, prefix.split("."), strict=False):
        if word != other:
            break
        same += 1
    return ".".join(words[: same + 1])


def _nothing(path: Path, stored: Arrays, layout: Layout) -> str:
    if layout == "timm" and (_prefixes(stored, "hf") or _prefixes(stored, "clip")):
        return f"{path} has Hugging Face's names, which do not tell the heads; give its folder with its config.json"
    names = ", ".join(list(stored)[:3]) or "nothing"
    whose = "timm's" if layout == "timm" else "Hugging Face's"
    return f"{path} holds no {STEMS[layout]}, so no Vision Transformer in {whose} names; it begins with {names}"


def _remark(taken: int, shown: list[str]) -> str:
    others = shown[:taken] + shown[taken + 1 :]
    return f"takes {shown[taken]}" + (f", not {_listed(others)}: --prefix chooses" if others else "")


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
