"""Fine-tuning runs: a pre-trained encoder with a head, trained on labels with token reduction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from pcae_core import parameters, registry
from pcae_core.config import ModelConfig, is_utf8
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import Backend, FinetuneOutput, Finetuner, TrainState
from pcae_core.data import Batch, CorruptLog, open_scored
from pcae_core.data.classes import Labelled, match
from pcae_core.data.sources import kinds
from pcae_core.data.transforms import soft_targets
from pcae_core.errors import ConfigError, DataError, TrainingError
from pcae_core.evaluation.accuracy import best_parameters, one_class_warning, score
from pcae_core.evaluation.encoding import LoadedEncoder
from pcae_core.evaluation.labels import open_train
from pcae_core.storage import checkpoint, pretrained
from pcae_core.storage.pretrained import EncoderInfo
from pcae_core.storage.tensors import check_tensors
from pcae_core.training import run
from pcae_core.training.display import Display
from pcae_core.training.loggers import MetricLogger
from pcae_core.training.loop import Inputs, Loop, Place, data_position


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
    start = run.find_start(config, data_position(config, train.source, 0))
    state = start.resumed.state if start.resumed else first_state(config)
    finetuner = backend.create_finetuner(config, state)
    try:
        if config.mixes and config.local_batch_size(finetuner.world_size) % 2:
            raise ConfigError(
                f"batch_size {config.batch_size} gives each of {finetuner.world_size} processes an odd number of "
                "images, but mixup and cutmix mix pairs; choose another batch_size, or set both to 0"
            )
        return _FinetuneLoop(config, (train, test), backend, finetuner, start.step, console or Console()).run()
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
    found = checkpoint.read_manifest(checkpoint.find(path))
    if found.kind != "pretrain":
        raise ConfigError(f"{path} is a fine-tuned run already; name a pre-trained one")
    return pretrained.config_of(found.config)


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


class _FinetuneLoop(Loop[FinetuneOutput]):
    command = "finetune"

    def __init__(
        self,
        config: FinetuneConfig,
        data: tuple[Labelled, Labelled],
        backend: Backend,
        finetuner: Finetuner,
        start_step: int,
        console: Console,
    ) -> None:
        train, self._test = data
        super().__init__(config, train.source, backend, finetuner, start_step, console)
        self._config, self._finetuner = config, finetuner
        self._labels, self._notes = train.labels, (*train.notes, *self._test.notes)
        self._unscored = CorruptLog(self._test.source, fate="left out of the scores")
        self._scores: dict[str, float] = {}

    def _warnings(self) -> list[str]:
        return [*super()._warnings(), *self._notes]

    def _inputs(self, batch: Batch, place: Place) -> Inputs:
        config = self._config
        targets = soft_targets(self._labels[batch.sample_ids], config.model.num_classes, config.label_smoothing)
        images, targets = self._pipeline.mix(batch.images, targets, place.step, place.first)
        return {"images": images, "targets": targets, "drop_path": self._drop_path(place)}

    def _take_step(self, inputs: Inputs, learning_rate: float, momentum: float) -> FinetuneOutput:
        return self._finetuner.step(**inputs, learning_rate=learning_rate, momentum=momentum)

    def _after_step(self, loggers: list[MetricLogger], display: Display) -> bool:
        """Score the test split after each epoch and after the last step."""
        self._scores = {}
        samples, size = len(self._source), self._config.batch_size
        ended = (self._step * size) // samples > ((self._step - 1) * size) // samples
        if not (ended or self._step == self._total):
            return False
        elsewhere = TrainingError("rank 0 cannot score the test split, and says why")
        self._on_rank_0(lambda: self._score(loggers, display), elsewhere)
        return True

    def _score(self, loggers: list[MetricLogger], display: Display) -> None:
        config, keep = self._config, self._config.keep
        encoder = LoadedEncoder(self._backend, config.model, config.loader, best_parameters(self._finetuner.state()))
        found = score(encoder, self._test, keep, self._unscored)
        self._scores = {"top1": found.top1, "top5": found.top5, "scored_images": float(found.samples)}
        for logger in loggers:
            logger.write(self._step, self._scores)
        display.say(f"step {self._step}: top-1 {found.top1:.2f}%, top-5 {found.top5:.2f}% (keep {keep:.2f})")
        labels = np.delete(self._test.labels, self._unscored.numbers)
        if self._step == self._total and (warning := one_class_warning(found, labels, self._test.names)):
            display.say(f"warning: {warning}")

    def _metrics_to_save(self) -> dict[str, float]:
        """With the accuracy, where it was measured at this step: the highest `top1` is the best checkpoint."""
        return super()._metrics_to_save() | self._scores
