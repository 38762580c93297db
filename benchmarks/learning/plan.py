"""The experiments: trials on the validation split, the comparison on the test split, and ablations.

A setting is one of a run (`PretrainConfig`), nested as in its YAML file, or `memory`: how many steps the teacher
remembers at first, 1 / (1 - EMA momentum), as a share of the run's steps. So it means the same in short and long runs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal

from benchmarks.learning.methods import (
    BLIND_START,
    EARLY_PIXELS,
    LESS_REDUCTION,
    METHODS,
    PEER,
    PIXELS,
    RANDOM,
    REFERENCE,
    SMALL,
    SMALL_DATA,
    SMALL_PEER,
)

Settings = dict[str, Any]
ScoredSplit = Literal["validation", "test"]

TRIAL_SEED = 100
TRIAL_BUDGETS = (60, 180)  # the second where there are four times as many patches
RATES: tuple[Settings, ...] = tuple({"base_learning_rate": rate} for rate in (4e-3, 6e-3, 12e-3))
"""The trials, the same for each method: peak rates of 1e-3, 1.5e-3 and 3e-3 at a batch of 64."""

MEMORY = 0.1
"""Of the recipes: a momentum of 0.99 in a run of 1000 steps."""

_FREE = ("base_learning_rate", "memory", "weight_decay")  # settings that cost no time


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run; equal when all is equal.

    Attributes:
        data: the set.
        method: see `methods.METHODS`.
        split: what is scored.
        budget: CPU seconds of training; 0 for what is not trained.
        seed: of the run.
        settings: what differs from the set's recipe, apart from the method's own settings.
    """

    data: str
    method: str
    split: ScoredSplit
    budget: int
    seed: int
    settings: Settings = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    def __hash__(self) -> int:
        return hash(str(self))


def merged(settings: Settings, more: Settings) -> Settings:
    """`more` over `settings`, likewise in the dictionaries that both hold."""
    nested = {n: merged(settings[n], v) for n, v in more.items() if isinstance(v, dict) and n in settings}
    return settings | more | nested


def cost(experiment: Experiment) -> Experiment:
    """Stands for all experiments whose steps take equally long."""
    settings = {name: value for name, value in experiment.settings.items() if name not in _FREE}
    if "model" in settings:
        model = {name: value for name, value in settings["model"].items() if name != "init_residual_scale"}
        settings = settings | {"model": model} if model else {n: v for n, v in settings.items() if n != "model"}
    method = METHODS[experiment.method].clock or experiment.method
    return Experiment(experiment.data, method, "validation", 0, 0, settings)


def _model(**settings: Any) -> Settings:
    return {"model": settings}


def _reduction(num_stages: int, keep: float) -> Settings:
    return _model(reduction={"num_stages": num_stages, "keep": keep})


_BEFORE: Settings = {"batch_size": 64, "model": {"decoder_depth": 2}}
COMMON: dict[str, Settings] = {"fashion-mnist": merged(_BEFORE, _reduction(3, 0.5)), "emoji": {}, "cifar10": _BEFORE}
"""What differs from a set's recipe for every method: two recipes have the settings that won here."""

FINER: dict[str, tuple[str, Settings]] = {
    "fashion-mnist-196": ("fashion-mnist", _model(patch_size=2)),
    "cifar10-256": ("cifar10", _model(patch_size=2)),
}
"""Sets cut into four times as many patches: name -> the set, and what differs from its recipe."""

_UNTRAINED, _PAIR = (RANDOM, PIXELS), (REFERENCE, PEER)
_ASIDE = (LESS_REDUCTION, SMALL_PEER, EARLY_PIXELS, BLIND_START)
_MAIN = tuple(name for name in METHODS if name not in (*_UNTRAINED, *_ASIDE))
_GREY = (*_MAIN, LESS_REDUCTION, SMALL_PEER)  # on the other sets the recipe's reduction is no more
COMPARED: dict[str, dict[int, Sequence[str]]] = {
    "fashion-mnist": {0: _UNTRAINED, 60: (*_GREY, EARLY_PIXELS, BLIND_START), 180: (*_GREY, BLIND_START), 600: _GREY},
    "emoji": {0: _UNTRAINED, 60: _MAIN, 180: _MAIN, 600: _MAIN},
    "cifar10": {0: _UNTRAINED, 60: (*_PAIR, EARLY_PIXELS, SMALL_DATA), 600: _PAIR},
} | {name: {0: (RANDOM,), 180: _PAIR} for name in FINER}
"""Set -> budget -> methods."""

_SMALL_BATCH: Settings = {"batch_size": 32, "base_learning_rate": 12e-3}  # the peak of 6e-3 at a batch of 64
_TOGETHER = merged(SMALL, _SMALL_BATCH)

ABLATIONS: dict[str, list[Settings]] = {
    "teacher": [{"memory": memory} for memory in (0.01, 0.02, 0.05)],
    "reduction": [_reduction(2, 0.7), _reduction(1, 0.5), _reduction(2, 0.5), _reduction(3, 0.7), _reduction(3, 0.5)],
    "start": [
        _model(init_residual_scale=scale) | {"memory": memory, "base_learning_rate": rate}
        for rate in (3e-3, 6e-3)
        for memory in (0.02, 0.1)
        for scale in (0.01, 0.1, 1.0)
    ],
    "mask ratio": [_model(mask_ratio=ratio) for ratio in (0.5, 0.85)],
    "decoder depth": [_model(decoder_depth=1), _model(decoder_depth=4)],
    "decoder width": [_model(decoder_embed_dim=32)],
    "regularisation": [{"drop_path": 0.1}, {"weight_decay": 0.0}, {"weight_decay": 0.2}],
    "batch": [{"batch_size": 32}, {"batch_size": 128}],
    "small batch": [_SMALL_BATCH, _SMALL_BATCH | _model(decoder_depth=1)],
    "together": [_TOGETHER, _TOGETHER | {"batch_size": 16, "base_learning_rate": 24e-3}],
    "together, half the rate": [
        _reduction(2, 0.7) | {"batch_size": 32},
        SMALL,
        SMALL | {"memory": 0.02},
    ],
}
"""By what is changed: over the method's chosen trial, on the validation split."""

ABLATED: dict[tuple[str, str], dict[int, Sequence[str]]] = {
    ("fashion-mnist", REFERENCE): {60: tuple(ABLATIONS), 180: ("teacher", "decoder depth")},
    ("fashion-mnist", PEER): {60: ("decoder depth", "batch", "small batch")},
    ("emoji", REFERENCE): {180: ("reduction",)},
}
"""Set, method -> budget -> ablations."""


def trial(data: str, method: str, settings: Settings) -> Experiment:
    """A method with one of the rates, on the validation split."""
    return Experiment(data, method, "validation", TRIAL_BUDGETS[data in FINER], TRIAL_SEED, settings)


def ablation(data: str, method: str, base: Settings, settings: Settings, budget: int, seed: int) -> Experiment:
    """A method with other settings, on the validation split."""
    return Experiment(data, method, "validation", budget, seed, merged(base, settings))
