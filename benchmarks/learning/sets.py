"""The data sets, their recipes, and splits by fixed rules."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.learning.plan import COMMON, FINER, ScoredSplit, merged
from numpy.typing import NDArray
from typing_extensions import override

from pcae_core.config import PretrainConfig
from pcae_core.data import Source, open_source
from pcae_core.data.images import AnyImage

ROOT = Path(__file__).parents[2]
SETS = ("fashion-mnist", "emoji", "cifar10", *FINER)

_VALIDATION = 10_000  # the last images of the train split of Fashion-MNIST and of CIFAR-10
_PROBED = 5000  # images that probes are fitted on, and as many that they are scored on: at equal distances
_WATCHED = (1000, 500)  # images that a teacher's k-NN is fitted and scored on during a run


class Part(Source):
    """Some images of a labelled source, kept in memory once decoded."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        super().__init__(source.path, source.in_chans)
        self._source, self._indices = source, indices
        self._decoded: dict[int, AnyImage] = {}

    def __len__(self) -> int:
        return len(self._indices)

    @override
    def load(self, index: int) -> AnyImage:
        if index not in self._decoded:
            self._decoded[index] = self._source.load(self._indices[index])
        return self._decoded[index]

    @override
    def name(self, index: int) -> str:
        return self._source.name(self._indices[index])

    @override
    @property
    def labels(self) -> NDArray[np.int64]:
        labels = self._source.labels
        if labels is None:
            raise ValueError(f"{self.path} has no labels")
        return labels[np.asarray(self._indices)]

    @override
    @property
    def fingerprint(self) -> str:
        return self._source.fingerprint

    def spread(self, count: int) -> Part:
        """So many images at equal distances; all when there are fewer."""
        return Part(self, np.linspace(0, len(self) - 1, min(count, len(self))).astype(int).tolist())


@dataclass(frozen=True)
class Parts:
    """What a run trains on, what probes are fitted on, and what they are scored on; likewise during a run."""

    train: Part
    fitted: Part
    scored: Part
    watched: tuple[Part, Part]


def recipe(name: str) -> PretrainConfig:
    """The settings that every method starts from: see `plan.COMMON`, with smaller patches for a finer grid."""
    base, settings = FINER.get(name, (name, {}))
    config = PretrainConfig.from_yaml(ROOT / "examples" / f"{base.replace('-', '_')}.yaml")
    return PretrainConfig.from_dict(merged(config.to_dict(), merged(COMMON[base], settings)))


@functools.lru_cache
def parts(name: str, split: ScoredSplit) -> Parts:
    """Fashion-MNIST, CIFAR-10: the last 10,000 training images are for validation, trained on only for the test split.

    Emoji: the files' own splits. Images watched during a run are the validation split's, never the test split's.
    """
    base = FINER.get(name, (name,))[0]
    folder, in_chans = ROOT / "data" / base, recipe(name).model.in_chans
    if base == "emoji":
        opened = [open_source(folder / kind, in_chans) for kind in ("train", "val", "test")]
        train, validation, test_part = (Part(source, range(len(source))) for source in opened)
        final = train, test_part
    else:
        whole, test = (open_source(folder, in_chans, kind) for kind in ("train", "test"))
        size = len(whole) - _VALIDATION
        train, validation = Part(whole, range(size)), Part(whole, range(size, len(whole)))
        final = Part(whole, range(len(whole))), Part(test, range(len(test)))
    used, scored = (train, validation) if split == "validation" else final
    watched = train.spread(_WATCHED[0]), validation.spread(_WATCHED[1])
    return Parts(used, used.spread(_PROBED), scored.spread(_PROBED), watched)
