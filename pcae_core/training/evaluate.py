"""Evaluation of frozen features: what a checkpoint's encoder is worth, next to the same encoder untrained.

Letters: n samples, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pcae_core import parameters, pretrained
from pcae_core.data import Source, eval_batches, normalize, open_scored, open_source
from pcae_core.data.classes import labelled, match, warn
from pcae_core.errors import ConfigError, DataError
from pcae_core.parameters import Arrays
from pcae_core.pretrained import EncoderConfig, Side
from pcae_core.protocol import Array, Backend, Floats
from pcae_core.training.metrics import effective_rank
from pcae_core.training.probes import Accuracy, knn, linear_probe

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class Evaluation:
    """Results of one encoder; accuracies in percent, effective rank of the pooled test features."""

    knn: Accuracy
    linear: Accuracy
    effective_rank: float


def extract_features(
    backend: Backend,
    config: EncoderConfig,
    encoder: Mapping[str, Array],
    source: Source,
    pooling: Pooling,
    batch_size: int = 128,
) -> Floats:
    """Pooled features (n, D) of whole images: the mean patch token ("mean") or the CLS token ("cls")."""
    on_device = {name: backend.asarray(encoder[name]) for name in parameters.encoder_shapes(config.model)}
    mean, std = config.loader.normalization(config.model.in_chans)
    pooled = []
    for images in eval_batches(source, config.model, config.loader, batch_size):
        hidden = backend.encode(config.model, on_device, normalize(images, mean, std)).last_hidden_state
        pooled.append(backend.to_numpy(hidden[:, 1:].mean(1) if pooling == "mean" else hidden[:, 0]))
    return np.concatenate(pooled)


def evaluate(
    backend: Backend,
    run: Path,
    data: Path,
    sides: Sequence[Side] = ("student", "teacher"),
    pooling: Pooling = "mean",
    split: str | None = None,
    ignore_unknown: bool = False,
) -> dict[str, Evaluation]:
    """Probe the checkpoint's encoders, and the same encoder at random initialisation. Warns of what is assumed.

    Args:
        run: a run's folder, one of its checkpoints, or an encoder's folder, which has one side only.
        data: data set with labels; features are fitted on its train split and scored on another.
        split: which split is scored; by default test, else val, whichever has labels first.
        ignore_unknown: leave out scored images of classes that the train split does not have, instead of raising.

    Returns:
        By encoder: the sides asked for, or "encoder", and "random".

    Raises:
        CheckpointError, DataError.
        ConfigError: no side is asked for.
    """
    if not sides:
        raise ConfigError("name the features to evaluate: student, teacher or both")
    found = pretrained.load_all(run, sides)
    config = next(iter(found.values())).config
    train = labelled(open_source(data, config.model.in_chans, "train"))
    if len(np.unique(train.labels)) < 2:
        raise DataError(f"the train split of {data} has images of one class only; evaluation needs at least two")
    count, whose = int(train.labels.max()) + 1, f"the train split of {data}"
    test = match(open_scored(data, config.model.in_chans, split), train.names, count, whose, ignore_unknown)
    if train.names:
        train = match(train, train.names, count, whose)  # which notes the classes that have no images
    warn([*train.notes, *test.notes])
    labels = _numbered(train.labels, test.labels)
    encoders: dict[str, Arrays] = {name: one.encoder for name, one in found.items()}
    encoders["random"] = parameters.initial_parameters(config.model, config.seed)
    results = {}
    for name, encoder in encoders.items():
        fit, score = (extract_features(backend, config, encoder, part.source, pooling) for part in (train, test))
        results[name] = Evaluation(
            knn(fit, labels[0], score, labels[1]), linear_probe(fit, labels[0], score, labels[1]), effective_rank(score)
        )
    return results


def _numbered(train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes that there are, numbered from 0: labels may be any numbers."""
    numbers = np.unique(np.concatenate([train, test]), return_inverse=True)[1]
    return numbers[: len(train)], numbers[len(train) :]
