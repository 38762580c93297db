"""One experiment from its start to its scores."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from benchmarks.learning.methods import PIXELS, RANDOM, SUPERVISED
from benchmarks.learning.plan import Experiment
from benchmarks.learning.sets import Part, parts, recipe
from benchmarks.learning.training import Pretraining, Supervised, configure, open_loader, start

from pcae_core import registry
from pcae_core.config import RunConfig
from pcae_core.contract import Floats
from pcae_core.data import eval_batches, normalize
from pcae_core.evaluation.accuracy import accuracy
from pcae_core.evaluation.encoding import LoadedEncoder
from pcae_core.evaluation.evaluate import extract_features
from pcae_core.evaluation.probes import effective_rank, knn, linear_probe
from pcae_core.parameters import Arrays, initial_parameters

_WATCHED_AT = (0.1, 0.5, 1.0)  # shares of the steps
_LAST = 20  # steps whose loss ratio is averaged

Result = dict[str, Any]


def run(experiment: Experiment, steps: int) -> Result:
    """Train and score: k-NN and linear probe (top-1 in percent), effective rank of the scored features."""
    data = parts(experiment.data, experiment.split)
    if experiment.method == PIXELS:
        return _scores(*(_pixels(experiment, part) for part in (data.fitted, data.scored)), data.fitted, data.scored)
    if experiment.method == RANDOM:
        config = configure(experiment, 1)
        return _probe(config, initial_parameters(config.model, config.seed), data.fitted, data.scored)
    training = start(experiment, steps, data.train)
    result = _train(training, steps, data.train, data.watched)
    result |= _probe(training.config, training.encoder(), data.fitted, data.scored)
    if experiment.method == SUPERVISED:
        result["head"] = _head(training, data.scored)
    return result


def _train(training: Pretraining | Supervised, steps: int, source: Part, watched: tuple[Part, Part]) -> Result:
    """All steps; what the teacher is worth on the way costs the budget nothing."""
    ratios: list[float] = []
    health: list[Result] = []
    due = {round(share * steps) for share in _WATCHED_AT}
    spent = 0.0
    with open_loader(source, training.config, steps) as loader:
        for step in range(steps + 1):
            if step in due:
                found = _probe(training.config, training.watched(), *watched, linear=False)
                health.append({"step": step, "knn": found["knn"], "rank": found["rank"]})
            if step == steps:
                break
            began = time.process_time()
            training.step(next(loader), step, steps)
            spent += time.process_time() - began
            if step >= steps - _LAST and (ratio := training.loss_ratio()) is not None:
                ratios.append(ratio)
    return {
        "steps": steps,
        "cpu_seconds": round(spent, 1),
        "loss_ratio": round(statistics.mean(ratios), 3) if ratios else None,
        "health": health,
    }


def _probe(config: RunConfig, encoder: Arrays, fitted: Part, scored: Part, linear: bool = True) -> Result:
    backend = registry.create("torch", device="cpu")
    loaded = LoadedEncoder(backend, config.model, config.loader, encoder)
    features = [extract_features(loaded, part, "mean")[0] for part in (fitted, scored)]
    return _scores(*features, fitted, scored, linear)


def _scores(fit: Floats, score: Floats, fitted: Part, scored: Part, linear: bool = True) -> Result:
    labelled = fit, fitted.labels, score, scored.labels
    found = {"knn": round(knn(*labelled).top1, 2), "rank": round(effective_rank(score), 2)}
    return found | ({"linear": round(linear_probe(*labelled).top1, 2)} if linear else {})


def _pixels(experiment: Experiment, part: Part) -> Floats:
    """Each image as one vector, as the encoder would get it."""
    config = recipe(experiment.data)
    batches = list(eval_batches(part, config.model, config.loader, 256))
    pixels = np.concatenate([batch.images for batch in batches])
    images = normalize(pixels, *config.loader.normalization(config.model.in_chans))
    return images.reshape(len(images), -1)


def _head(training: Pretraining | Supervised, part: Part) -> float:
    """Top-1 of the trained classifier itself."""
    config, backend = training.config, registry.create("torch", device="cpu")
    encoder = LoadedEncoder(backend, config.model, config.loader, training.encoder())
    logits, _ = encoder.collect(part, lambda out: out.logits, batch_size=256)
    return round(accuracy(logits, part.labels).top1, 2)
