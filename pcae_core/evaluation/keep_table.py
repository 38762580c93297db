"""Accuracy and speed of a classifier at several keep ratios, as in the paper's inference table."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcae_core.config.data import USUAL, Reading
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import Backend, Floats
from pcae_core.data import CorruptLog, greys, open_scored
from pcae_core.data.classes import match, warn
from pcae_core.errors import ConfigError
from pcae_core.evaluation.accuracy import Accuracy, best_parameters, score
from pcae_core.evaluation.costs import inference_costs
from pcae_core.evaluation.encoding import LoadedEncoder
from pcae_core.reduction import check_keep
from pcae_core.storage.run import Run

WARM_UP_ROUNDS, SPEED_ROUNDS = 2, 40
BATCH = 64


@dataclass(frozen=True)
class KeepRow:
    """Results at one keep ratio.

    Attributes:
        accuracy: top-1 and top-5 accuracy, in percent.
        images_per_second: speed of encoder and head at batch 64, the median of several rounds.
        gmacs: billions of multiply-accumulates for one image.
        speedup: measured speed-up over keep 1.0, the median of the rounds' ratios.
        predicted: speed-up over keep 1.0 that the multiply-accumulates predict.
    """

    keep: float
    accuracy: Accuracy
    images_per_second: float
    gmacs: float
    speedup: float
    predicted: float


def keep_table(
    backend: Backend,
    run: Path | Run,
    data: Path,
    keeps: Sequence[float],
    split: str | None = None,
    ignore_unknown: bool = False,
    reading: Reading = USUAL,
    max_corrupt: float = 1.0,
) -> tuple[Path, list[KeepRow], list[str]]:
    """Score the best checkpoint of a fine-tuned run at several keep ratios. Logs assumptions as warnings.

    Args:
        run: run folder or checkpoint.
        data: labelled data set with a test or val split.
        keeps: keep ratios, in (0, 1].
        split: split to score. Default: the first of test and val that has labels.
        ignore_unknown: leave out images whose class the run does not have, instead of raising.
        reading: settings of image reading that replace those of training.
        max_corrupt: largest share of the images that may be unreadable. Unreadable images are left out.

    Returns:
        The checkpoint's path, one row for each keep ratio, and one line about unreadable images, if there are any.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ConfigError: a keep ratio is out of range, or the run is not a fine-tuned one.
        DataError: the data cannot be read, has no labels, or its classes do not fit.
        TrainingError: too many images are unreadable.
    """
    for keep in keeps:
        check_keep(keep, "--keep")
    run = Run.open(run)
    path = run.best
    found = run.load(path)
    config = found.manifest.config
    if not isinstance(config, FinetuneConfig):
        raise ConfigError(f"{run} is no fine-tuned run: fine-tune it with pcae finetune")
    config = config.model_copy(update={"loader": reading.over(config.loader)})
    scored = open_scored(data, config.model.in_chans, split, config.loader.reading)
    test = match(scored, config.class_names, config.model.num_classes, f"the run {run}", ignore_unknown)
    warn(test.notes)
    log = CorruptLog(test.source, max_corrupt)
    greys.announce(test.source)
    encoder = LoadedEncoder(backend, config.model, config.loader, best_parameters(found.state))
    seconds = measure_speed(encoder, {1.0, *keeps})
    rows = [
        KeepRow(
            keep=each.keep,
            accuracy=score(encoder, test, each.keep, log),
            images_per_second=BATCH / float(np.median(seconds[each.keep])),
            gmacs=each.macs / 1e9,
            speedup=float(np.median(seconds[1.0] / seconds[each.keep])),
            predicted=each.speedup,
        )
        for each in inference_costs(config.model, keeps)
    ]
    return path, rows, log.summary()


def measure_speed(encoder: LoadedEncoder, keeps: Collection[float]) -> dict[float, Floats]:
    """Keep ratio -> seconds for a batch of 64 in each round. A round visits all ratios, so other load affects all."""
    model, to_numpy = encoder.model, encoder.backend.to_numpy
    shape = (BATCH, model.in_chans, model.image_size, model.image_size)
    images = encoder.backend.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))

    def seconds_of(keep: float) -> float:
        began = time.perf_counter()
        to_numpy(encoder.encode(images, keep).logits)
        return time.perf_counter() - began

    for _ in range(WARM_UP_ROUNDS):
        for keep in keeps:
            seconds_of(keep)
    seconds: dict[float, list[float]] = {keep: [] for keep in keeps}
    for _ in range(SPEED_ROUNDS):
        for keep in keeps:
            seconds[keep].append(seconds_of(keep))
    return {keep: np.array(values) for keep, values in seconds.items()}
