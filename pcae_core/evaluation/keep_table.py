"""How good a classifier is, and how fast, at several keep ratios (the paper's table of inference).

Letters: n images, B batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcae_core import cost
from pcae_core.config import RunConfig
from pcae_core.config.data import USUAL, Reading
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import Array, Backend, Floats, TrainState
from pcae_core.data import CorruptLog, Source, eval_batches, greys, normalize, open_scored
from pcae_core.data.classes import Labelled, match, warn
from pcae_core.errors import ConfigError, listed
from pcae_core.evaluation.probes import Accuracy, accuracy
from pcae_core.parameters import Arrays, encoder_shapes
from pcae_core.reduction import check_keep
from pcae_core.storage import checkpoint

WARM_UP_ROUNDS, SPEED_ROUNDS = 2, 40
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


def logits_of(
    backend: Backend,
    config: RunConfig,
    parameters: Mapping[str, Array],
    source: Source,
    keep: float,
    log: CorruptLog | None = None,
) -> tuple[Floats, NDArray[np.int64]]:
    """Logits (n, classes) of whole images, and their numbers (n,) in the source: of those that can be read.

    Raises:
        DataError, TrainingError: as `eval_batches`, which also says what `log` is.
    """
    on_device = {name: backend.asarray(parameters[name]) for name in encoder_shapes(config.model)}
    mean, std = config.loader.normalization(config.model.in_chans)
    found, ids = [], []
    for batch in eval_batches(source, config.model, config.loader, 2 * BATCH, log):
        pixels = normalize(batch.images, mean, std)
        found.append(backend.to_numpy(backend.encode(config.model, on_device, pixels, keep).logits))
        ids.append(batch.ids)
    return np.concatenate(found), np.concatenate(ids)


def score(
    backend: Backend,
    config: RunConfig,
    parameters: Mapping[str, Array],
    test: Labelled,
    keep: float,
    log: CorruptLog | None = None,
) -> Accuracy:
    """Top-1 and top-5 of the readable images labelled with the model's numbers. Raises as `logits_of`."""
    logits, ids = logits_of(backend, config, parameters, test.source, keep, log)
    return accuracy(logits, test.labels[ids])


def one_class_warning(found: Accuracy, labels: NDArray[np.int64], names: Sequence[str] | None) -> str | None:
    """Whether top-1 is just the share of the most frequent class, as when the model gives one answer to everything.

    Args:
        labels: of the images that were scored (n,).
        names: of the classes, where they have names.
    """
    counts = np.bincount(labels)
    share = 100.0 * float(counts.max() / counts.sum())
    if share == 100.0 or not math.isclose(found.top1, share):
        return None
    best = [names[number] if names else f"class {number}" for number in np.flatnonzero(counts == counts.max())]
    return (
        f"top-1 {found.top1:.2f}% is the share of the most frequent class ({listed(best)}): the model may give one "
        "answer whatever it sees; train longer, or with another learning rate"
    )


def keep_table(
    backend: Backend,
    run: Path,
    data: Path,
    keeps: Sequence[float],
    split: str | None = None,
    ignore_unknown: bool = False,
    reading: Reading = USUAL,
    max_corrupt: float = 1.0,
) -> tuple[Path, list[KeepRow], list[str]]:
    """The best checkpoint of a fine-tuned run, a row for each keep ratio, and a line about unreadable images, if any.

    Warns of what is assumed or left out.

    Args:
        run: a run's folder, or one of its checkpoints.
        data: labelled data set with a test (or val) split.
        split: which split is scored; by default test, else val, whichever has labels first.
        ignore_unknown: leave out images of classes that the run does not have, instead of raising.
        reading: how image files are read where not as in training.
        max_corrupt: largest share of the images that may be unreadable; the results leave them out.

    Raises:
        CheckpointError, ConfigError, DataError.
        TrainingError: too many images cannot be read.
    """
    for keep in keeps:
        check_keep(keep, "--keep")
    path = checkpoint.find_best(run)
    found = checkpoint.load(path)
    config = found.manifest.config
    if not isinstance(config, FinetuneConfig):
        raise ConfigError(f"{run} is no fine-tuned run: fine-tune it with pcae finetune")
    config = config.model_copy(update={"loader": reading.over(config.loader)})
    scored = open_scored(data, config.model.in_chans, split, config.loader.reading)
    test = match(scored, config.class_names, config.model.num_classes, f"the run {run}", ignore_unknown)
    warn(test.notes)
    log = CorruptLog(test.source, max_corrupt)
    greys.announce(test.source)
    parameters = best_parameters(found.state)
    seconds = measure_speed(backend, config, parameters, {1.0, *keeps})
    full = cost.encoder_macs(config.model)
    rows = []
    for keep in keeps:
        macs = cost.encoder_macs(config.model, keep)
        rows.append(
            KeepRow(
                keep=keep,
                accuracy=score(backend, config, parameters, test, keep, log),
                images_per_second=BATCH / float(np.median(seconds[keep])),
                gmacs=macs / 1e9,
                speedup=float(np.median(seconds[1.0] / seconds[keep])),
                predicted=full / macs,
            )
        )
    return path, rows, log.summary()


def measure_speed(
    backend: Backend, config: RunConfig, parameters: Mapping[str, Array], keeps: Collection[float]
) -> dict[float, Floats]:
    """Keep ratio -> seconds of a batch of 64 in each of several rounds, which visit all ratios: load hits all alike."""
    model = config.model
    on_device = {name: backend.asarray(parameters[name]) for name in encoder_shapes(model)}
    shape = (BATCH, model.in_chans, model.image_size, model.image_size)
    images = backend.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))

    def seconds_of(keep: float) -> float:
        began = time.perf_counter()
        backend.to_numpy(backend.encode(model, on_device, images, keep).logits)
        return time.perf_counter() - began

    for _ in range(WARM_UP_ROUNDS):
        for keep in keeps:
            seconds_of(keep)
    seconds: dict[float, list[float]] = {keep: [] for keep in keeps}
    for _ in range(SPEED_ROUNDS):
        for keep in keeps:
            seconds[keep].append(seconds_of(keep))
    return {keep: np.array(values) for keep, values in seconds.items()}
