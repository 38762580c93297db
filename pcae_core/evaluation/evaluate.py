"""Evaluation of frozen features: what a checkpoint's encoder is worth, next to the same encoder untrained.

Letters: n samples, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pcae_core import parameters
from pcae_core.config import EncoderName
from pcae_core.config.data import USUAL, Reading
from pcae_core.contract import Array, Backend, EncoderOutput, Floats
from pcae_core.data import CorruptLog, Source, greys, open_scored
from pcae_core.data.classes import Labelled, match, warn
from pcae_core.errors import ConfigError
from pcae_core.evaluation.accuracy import Accuracy
from pcae_core.evaluation.encoding import LoadedEncoder
from pcae_core.evaluation.labels import check_two_classes, open_train
from pcae_core.evaluation.probes import effective_rank, knn, linear_probe
from pcae_core.parameters import Arrays
from pcae_core.storage import pretrained
from pcae_core.storage.pretrained import EncoderInfo
from pcae_core.storage.run import Run

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class Evaluation:
    """Results of one encoder; accuracies in percent, effective rank of the pooled test features."""

    knn: Accuracy
    linear: Accuracy
    effective_rank: float


def extract_features(
    encoder: LoadedEncoder, source: Source, pooling: Pooling, log: CorruptLog | None = None
) -> tuple[Floats, NDArray[np.int64]]:
    """Pooled features (n, D) of whole images: the mean patch token ("mean") or the CLS token ("cls").

    Returns:
        The features, and the numbers (n,) of the images in the source: of those that can be read.

    Raises:
        DataError, TrainingError: as `LoadedEncoder.collect`, which also says what `log` is.
    """

    def pooled(out: EncoderOutput) -> Array:
        hidden = out.last_hidden_state
        return hidden[:, encoder.model.num_prefix_tokens :].mean(1) if pooling == "mean" else hidden[:, 0]

    return encoder.collect(source, pooled, log=log)


def evaluate(
    backend: Backend,
    run: Path | Run,
    data: Path,
    encoders: Sequence[EncoderName] = ("student", "teacher"),
    pooling: Pooling = "mean",
    split: str | None = None,
    ignore_unknown: bool = False,
    reading: Reading = USUAL,
    max_corrupt: float = 1.0,
) -> tuple[dict[str, Evaluation], list[str]]:
    """Probe the checkpoint's encoders, and the same encoder at random initialisation. Warns of what is assumed.

    Args:
        run: a run's folder, one of its checkpoints, or an encoder's folder, which holds one encoder.
        data: data set with labels; features are fitted on its train split and scored on another.
        split: which split is scored; by default test, else val, whichever has labels first.
        ignore_unknown: leave out scored images of classes that the train split does not have, instead of raising.
        reading: how image files are read where not as in training.
        max_corrupt: largest share of a split that may be unreadable; the results leave such images out.

    Returns:
        By name: the encoders asked for, or "encoder", and "random". And a line about each split of which images cannot
        be read.

    Raises:
        CheckpointError, DataError.
        TrainingError: too many images cannot be read.
        ConfigError: no encoder is asked for.
    """
    if not encoders:
        raise ConfigError("name the encoders to evaluate: student, teacher or both")
    found = pretrained.load_all(run, encoders)
    config = next(iter(found.values())).config
    config = config.model_copy(update={"loader": reading.over(config.loader)})
    train, test = _splits(data, config, split, ignore_unknown)
    greys.announce(train.source)
    labels = _numbered(train.labels, test.labels)
    weights: dict[str, Arrays] = {name: one.encoder for name, one in found.items()}
    weights["random"] = parameters.initial_parameters(config.model, config.seed)
    logs = [(source, CorruptLog(source, max_corrupt)) for source in (train.source, test.source)]
    results = {}
    for name, encoder in weights.items():
        (fit, fit_ids), (score, score_ids) = (
            extract_features(LoadedEncoder(backend, config.model, config.loader, encoder), source, pooling, log)
            for source, log in logs
        )
        known = fit, labels[0][fit_ids], score, labels[1][score_ids]
        check_two_classes(known[1], data)
        results[name] = Evaluation(knn(*known), linear_probe(*known), effective_rank(score))
    return results, [line for _, log in logs for line in log.summary()]


def _splits(data: Path, config: EncoderInfo, split: str | None, ignore_unknown: bool) -> tuple[Labelled, Labelled]:
    """The images to fit on and those to score, with numbers of the train split's classes. Warns of what is assumed."""
    in_chans, reading = config.model.in_chans, config.loader.reading
    train = open_train(data, in_chans, reading)
    count, whose = int(train.labels.max()) + 1, f"the train split of {data}"
    test = match(open_scored(data, in_chans, split, reading), train.names, count, whose, ignore_unknown)
    if train.names:
        train = match(train, train.names, count, whose)  # which notes the classes that have no images
    warn([*train.notes, *test.notes])
    return train, test


def _numbered(train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes that there are, numbered from 0: labels may be any numbers."""
    numbers = np.unique(np.concatenate([train, test]), return_inverse=True)[1]
    return numbers[: len(train)], numbers[len(train) :]
