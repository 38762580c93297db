"""Evaluate the frozen features of a checkpoint, next to those of the same encoder at random initialisation.

Letters: n samples, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcae_core import parameters
from pcae_core.config import EncoderName, Pooling
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


@dataclass(frozen=True)
class Evaluation:
    """Results of one encoder. The effective rank is that of the pooled test features."""

    knn: Accuracy
    linear: Accuracy
    effective_rank: float


def extract_features(
    encoder: LoadedEncoder, source: Source, pooling: Pooling, log: CorruptLog | None = None
) -> tuple[Floats, NDArray[np.int64]]:
    """Pooled features (n, D) of whole images: the mean patch token ("mean") or the CLS token ("cls").

    Args:
        log: as in `LoadedEncoder.collect`.

    Returns:
        The features of the readable images, and their numbers (n,) in the source.

    Raises:
        DataError, TrainingError: as `LoadedEncoder.collect`.
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
    """Probe the encoders of a checkpoint, and the same encoder at random initialisation. Logs assumptions as warnings.

    Args:
        run: run folder, checkpoint, or encoder folder. The latter holds one encoder only.
        data: data set with labels. Probes are fitted on its train split and scored on another split.
        encoders: encoders of a run to probe.
        split: split to score. Default: the first of test and val that has labels.
        ignore_unknown: leave out scored images whose class the train split does not have, instead of raising.
        reading: settings of image reading that replace those of training.
        max_corrupt: largest share of a split that may be unreadable. Unreadable images are left out.

    Returns:
        The results by name of the encoder ("encoder" for an encoder folder) and "random", and one line about each split
        with unreadable images.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the data cannot be read, has no labels, or its classes do not fit.
        TrainingError: too many images are unreadable.
        ConfigError: `encoders` is empty.
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
        loaded = LoadedEncoder(backend, config.model, config.loader, encoder)
        (fit, fit_ids), (score, score_ids) = (extract_features(loaded, source, pooling, log) for source, log in logs)
        known = fit, labels[0][fit_ids], score, labels[1][score_ids]
        check_two_classes(known[1], data)
        results[name] = Evaluation(knn(*known), linear_probe(*known), effective_rank(score))
    return results, [line for _, log in logs for line in log.summary()]


def _splits(data: Path, config: EncoderInfo, split: str | None, ignore_unknown: bool) -> tuple[Labelled, Labelled]:
    """The images to fit on and the images to score, labelled with the train split's class numbers. Logs assumptions."""
    in_chans, reading = config.model.in_chans, config.loader.reading
    train = open_train(data, in_chans, reading)
    count, whose = int(train.labels.max()) + 1, f"the train split of {data}"
    test = match(open_scored(data, in_chans, split, reading), train.names, count, whose, ignore_unknown)
    if train.names:
        train = match(train, train.names, count, whose)  # adds a note about classes without images
    warn([*train.notes, *test.notes])
    return train, test


def _numbered(train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels, renumbered from 0 without gaps: the given ones may be any numbers."""
    numbers = np.unique(np.concatenate([train, test]), return_inverse=True)[1]
    return numbers[: len(train)], numbers[len(train) :]
