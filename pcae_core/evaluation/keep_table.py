"""How good a classifier is, and how fast, at several keep ratios (the paper's table of inference)."""

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
    """Keep ratio -> seconds of a batch of 64 in each of several rounds, which visit all ratios: load hits all alike."""
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
