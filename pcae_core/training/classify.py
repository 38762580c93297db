"""How good a classifier is, and how fast, at several keep ratios (the paper's table of inference).

Letters: n images, B batch.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcae_core import checkpoint, cost
from pcae_core.config import RunConfig
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.data import Source, eval_batches, normalize, open_source
from pcae_core.errors import ConfigError, DataError
from pcae_core.parameters import Arrays, encoder_shapes
from pcae_core.protocol import Array, Backend, Floats, TrainState
from pcae_core.reduction import check_keep
from pcae_core.training.probes import Accuracy, accuracy

SPEED_ROUNDS = 40
BATCH = 64


@dataclass(frozen=True)
class KeepRow:
    """One keep ratio.

    Attributes:
        accuracy: top-1 and top-5, in percent.
        images_per_second: of the encoder with its head, at batch 64, the median of several rounds.
        gmacs: of one image.
        speedup, predicted: against keep 1.0, measured (the median of the rounds' ratios) and by the
            multiply-accumulates.
    """

    keep: float
    accuracy: Accuracy
    images_per_second: float
    gmacs: float
    speedup: float
    predicted: float


def best_parameters(state: TrainState) -> Arrays:
    """What is evaluated: the moving average where there is one."""
    return state.teacher or state.student


def labels_of(source: Source, num_classes: int) -> NDArray[np.int64]:
    """Labels (n,), each below `num_classes`. Raises DataError when there are none, or another one."""
    if source.labels is None:
        raise DataError(
            f"{source.path} has no labels; classification needs one sub-folder a class, or `labels` in the .npz file"
        )
    if source.labels.max() >= num_classes:
        raise DataError(f"{source.path} has a class {source.labels.max()}, but the model has {num_classes} classes")
    return source.labels


def logits_of(
    backend: Backend, config: RunConfig, parameters: Mapping[str, Array], source: Source, keep: float
) -> Floats:
    """Logits (n, classes) of whole images."""
    on_device = {name: backend.asarray(parameters[name]) for name in encoder_shapes(config.model)}
    mean, std = config.loader.normalization(config.model.in_chans)
    found = []
    for images in eval_batches(source, config.model, config.loader, 2 * BATCH):
        found.append(
            backend.to_numpy(backend.encode(config.model, on_device, normalize(images, mean, std), keep).logits)
        )
    return np.concatenate(found)


def score(
    backend: Backend, config: RunConfig, parameters: Mapping[str, Array], source: Source, keep: float
) -> Accuracy:
    """Top-1 and top-5 of a labelled source. Raises DataError."""
    labels = labels_of(source, config.model.num_classes)
    return accuracy(logits_of(backend, config, parameters, source, keep), labels)


def keep_table(backend: Backend, run: Path, data: Path, keeps: Sequence[float]) -> tuple[Path, list[KeepRow]]:
    """The best checkpoint of a fine-tuned run, and a row for each keep ratio.

    Args:
        run: a run's folder, or one of its checkpoints.
        data: labelled data set with a test (or val) split.

    Raises:
        CheckpointError, ConfigError, DataError.
    """
    for keep in keeps:
        check_keep(keep, "--keep")
    path = checkpoint.find_best(run)
    found = checkpoint.load(path)
    config = found.manifest.config
    if not isinstance(config, FinetuneConfig):
        raise ConfigError(f"{run} is no fine-tuned run: fine-tune it with pcae finetune")
    source = open_source(data, config.model.in_chans, "test")
    labels_of(source, config.model.num_classes)
    parameters = best_parameters(found.state)
    seconds = measure_speed(backend, config, parameters, {1.0, *keeps})
    full = cost.encoder_macs(config.model)
    rows = []
    for keep in keeps:
        macs = cost.encoder_macs(config.model, keep)
        rows.append(
            KeepRow(
                keep=keep,
                accuracy=score(backend, config, parameters, source, keep),
                images_per_second=BATCH / float(np.median(seconds[keep])),
                gmacs=macs / 1e9,
                speedup=float(np.median(seconds[1.0] / seconds[keep])),
                predicted=full / macs,
            )
        )
    return path, rows


def measure_speed(
    backend: Backend, config: RunConfig, parameters: Mapping[str, Array], keeps: Collection[float]
) -> dict[float, Floats]:
    """Keep ratio -> seconds of a batch of 64 in each of several rounds, which visit all ratios: load hits all alike."""
    model = config.model
    on_device = {name: backend.asarray(parameters[name]) for name in encoder_shapes(model)}
    shape = (BATCH, model.in_chans, model.image_size, model.image_size)
    images = backend.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    seconds = {keep: np.empty(SPEED_ROUNDS) for keep in keeps}
    for i in range(-2, SPEED_ROUNDS):  # the first two warm up
        for keep in keeps:
            began = time.perf_counter()
            backend.to_numpy(backend.encode(model, on_device, images, keep).logits)
            seconds[keep][i] = time.perf_counter() - began
    return seconds
