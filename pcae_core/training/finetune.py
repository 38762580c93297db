"""Fine-tuning runs: a pre-trained encoder with a head, trained on labels with token reduction."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pcae_core import parameters, registry
from pcae_core.config import ModelConfig, is_utf8
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import Backend, FinetuneOutput, TrainState
from pcae_core.data import Batch, CorruptLog, open_scored
from pcae_core.data.classes import Labelled, match
from pcae_core.data.sources import kinds
from pcae_core.data.transforms import TrainingPipeline, soft_targets, training_pipeline
from pcae_core.errors import ConfigError, DataError
from pcae_core.evaluation.accuracy import best_parameters, one_class_warning, score
from pcae_core.evaluation.encoding import LoadedEncoder
from pcae_core.evaluation.labels import open_train
from pcae_core.storage import pretrained
from pcae_core.storage.pretrained import EncoderInfo
from pcae_core.storage.run import Run
from pcae_core.storage.tensors import check_tensors
from pcae_core.training import resume
from pcae_core.training.inputs import Inputs, Place, StepInputs
from pcae_core.training.loop import Loop, data_position
from pcae_core.training.monitor import Found, Monitor


def finetune(config: FinetuneConfig, console: Console | None = None) -> Path:
    """Fine-tune, or continue the run in `config.out`; under a process launcher, as one process of several.

    The model is that of `config.pretrained`, with a head for the classes of the data.

    Returns:
        The run's folder.

    Raises:
        PcaeError: see `pcae_core.errors`; an interrupted run raises TrainingError after it has been saved.
    """
    config = with_model(config)
    config, train, test = _with_classes(config)
    backend = registry.create(config.backend, device=config.device)
    start = resume.find_start(config, data_position(config, train.source, 0))
    state = start.resumed.state if start.resumed else first_state(config)
    finetuner = backend.create_finetuner(config, state)
    try:
        if config.mixes and config.local_batch_size(finetuner.world_size) % 2:
            raise ConfigError(
                f"batch_size {config.batch_size} gives each of {finetuner.world_size} processes an odd number of "
                "images, but mixup and cutmix mix pairs; choose another batch_size, or set both to 0"
            )
        pipeline = training_pipeline(config)
        own_inputs = functools.partial(_inputs, config, train.labels, pipeline)
        loop = Loop(
            config,
            train.source,
            backend,
            finetuner,
            start.step,
            console or Console(),
            inputs=StepInputs(config, train.source, pipeline, own_inputs),
            monitor=_ScoreMonitor(config, backend, test, len(train.source)),
            notes=(*train.notes, *test.notes),
        )
        return loop.run()
    finally:
        finetuner.close()


_ABOUT_PIXELS = ("mean", "std", "max_pixels", "grey_bits")


def with_model(config: FinetuneConfig) -> FinetuneConfig:
    """With the pre-trained encoder's model and pixel settings, where unset. Raises CheckpointError, ConfigError."""
    if config.model.num_classes:  # a run that is continued
        return config
    found = _encoder_config(_source(config))
    reduction = found.model.reduction.model_copy(update={"keep": config.keep})
    model = found.model.model_copy(update={"pooling": config.pooling, "num_classes": 0, "reduction": reduction})
    loader = config.loader
    unset = {name: getattr(found.loader, name) for name in _ABOUT_PIXELS if getattr(loader, name) is None}
    return config.model_copy(update={"model": model, "loader": loader.model_copy(update=unset)})


def _source(config: FinetuneConfig) -> Path:
    if config.pretrained is None:
        raise ConfigError("name the pre-trained run: pcae finetune RUN --data DIR")
    return config.pretrained


def _encoder_config(path: Path) -> EncoderInfo:
    if pretrained.is_encoder(path):
        return pretrained.read_manifest(path).config
    found = Run.open(path)
    if found.kind != "pretrain":
        raise ConfigError(f"{path} is a fine-tuned run already; name a pre-trained one")
    return pretrained.config_of(found.manifest.config)


def _data(config: FinetuneConfig) -> Path:
    if config.data is None:
        raise ConfigError(f"no data set: name {kinds.words('name')}, with classes, with --data")
    return config.data


def _with_classes(config: FinetuneConfig) -> tuple[FinetuneConfig, Labelled, Labelled]:
    """With as many outputs as the data has classes, and their names; the images to train on, and those to score.

    Raises:
        DataError: labels or splits are missing, or do not fit together.
    """
    data, in_chans, reading = _data(config), config.model.in_chans, config.loader.reading
    train = open_train(data, in_chans, reading)
    test = open_scored(data, in_chans, config.split, reading)
    classes, names, whose = config.model.num_classes, config.class_names, f"the run {config.out}"
    if not classes:  # not a run that is continued
        named, whose = len(train.names or ()), f"the train split of {data}"
        classes = max(2, named, int(train.labels.max()) + 1)
        names = tuple(train.names) if train.names is not None and named == classes else None
    if names or config.model.num_classes:
        train = match(train, names, classes, whose, advice="start a new run with another --out")
    test = match(test, names, classes, whose, config.ignore_unknown_classes)
    for name in names or ():
        if not is_utf8(name):
            raise DataError(f"the class {name!r} of {data} is not UTF-8; rename it")
    model = ModelConfig.from_dict(config.model.to_dict() | {"num_classes": classes})
    config = FinetuneConfig.from_dict(config.to_dict() | {"model": model.to_dict(), "class_names": names})
    return config, train, test


def first_state(config: FinetuneConfig) -> TrainState:
    """The pre-trained encoder, or a random one, with a new head.

    Raises:
        CheckpointError, ConfigError: the pre-trained encoder is gone, or is not one of the configuration's model.
    """
    encoder = None if config.from_scratch else _pretrained_encoder(config)
    return parameters.finetuning_state(config.model, config.seed, encoder, config.ema_momentum is not None)


def _pretrained_encoder(config: FinetuneConfig) -> parameters.Arrays:
    found, shapes = pretrained.load(_source(config), config.encoder), parameters.pretrained_shapes(config.model)
    taken = {name: found.encoder[name] for name in shapes if name in found.encoder}
    check_tensors(found.path, taken, shapes)
    return taken


def _inputs(
    config: FinetuneConfig, labels: NDArray[np.int64], pipeline: TrainingPipeline, batch: Batch, place: Place
) -> Inputs:
    targets = soft_targets(labels[batch.sample_ids], config.model.num_classes, config.label_smoothing)
    images, targets = pipeline.mix(batch.images, targets, place.step, place.first)
    return {"images": images, "targets": targets}


class _ScoreMonitor(Monitor[FinetuneOutput]):
    """Scores the test split after each epoch and after the last step."""

    def __init__(self, config: FinetuneConfig, backend: Backend, test: Labelled, num_samples: int) -> None:
        self._config, self._backend, self._test, self._samples = config, backend, test, num_samples
        self._total = config.total_steps(num_samples)
        self._unscored = CorruptLog(test.source, fate="left out of the scores")
        self._scored_at, self._scores = 0, dict[str, float]()

    def scores_after(self, step: int) -> bool:
        """At the end of an epoch and of the run."""
        size = self._config.batch_size
        return step == self._total or step * size // self._samples > (step - 1) * size // self._samples

    def score(self, step: int, state: TrainState) -> Found:
        """Top-1 and top-5 in percent."""
        config, keep = self._config, self._config.keep
        encoder = LoadedEncoder(self._backend, config.model, config.loader, best_parameters(state))
        found = score(encoder, self._test, keep, self._unscored)
        self._scores = {"top1": found.top1, "top5": found.top5, "scored_images": float(found.samples)}
        self._scored_at = step
        lines = [f"step {step}: top-1 {found.top1:.2f}%, top-5 {found.top5:.2f}% (keep {keep:.2f})"]
        labels = np.delete(self._test.labels, self._unscored.numbers)
        if step == self._total and (warning := one_class_warning(found, labels, self._test.names)):
            lines.append(f"warning: {warning}")
        return Found(self._scores, lines)

    def checkpoint_metrics(self, step: int) -> Mapping[str, float]:
        """The accuracy, where it was measured at this step: the highest `top1` is the best checkpoint."""
        return self._scores if self._scored_at == step else {}
