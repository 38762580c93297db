"""A method at work: its settings, its steps, and how long they take."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.learning.methods import CPU, METHODS, REFERENCE, SUPERVISED
from benchmarks.learning.plan import MEMORY, Experiment, merged
from benchmarks.learning.sets import Part, parts, recipe

from pcae_core import randomness, schedule
from pcae_core.config import PretrainConfig, RunConfig
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import PretrainOutput
from pcae_core.data import Batch, Source, TrainLoader
from pcae_core.data.transforms import soft_targets, training_pipeline
from pcae_core.parameters import Arrays
from pcae_torch.finetuning import TorchFinetuner

_ROUNDS, _STEPS_A_ROUND = 7, 6


def configure(experiment: Experiment, steps: int) -> PretrainConfig:
    """The set's recipe with the method's and the experiment's settings over it."""
    settings = merged(METHODS[experiment.method].settings, experiment.settings)
    memory = settings.pop("memory", MEMORY)
    own = {"steps": steps, "seed": experiment.seed, "loader": {"workers": 0}}
    settings = merged(settings, own | {"ema_momentum": max(0.0, 1.0 - 1.0 / (memory * steps))})
    return PretrainConfig.from_dict(merged(recipe(experiment.data).to_dict(), settings))


class Pretraining:
    """Steps without labels."""

    def __init__(self, experiment: Experiment, steps: int) -> None:
        self.config = configure(experiment, steps)
        self._method = METHODS[experiment.method]
        if self._method.trainer is None:
            raise ValueError(f"{experiment.method} is no pre-training")
        self._trainer = self._method.trainer(self.config)
        self._rates = schedule.drop_path_rates(self.config.drop_path, self.config.model.depth)
        self._out: PretrainOutput | None = None

    def step(self, batch: Batch, step: int, total: int) -> None:
        """One optimizer step."""
        seed, model, count = self.config.seed, self.config.model, self.config.batch_size
        rate, momentum = self.config.hyper_parameters(step, total)
        noise = randomness.mask_noise(seed, step, 0, count, model.num_patches)
        drop_path = randomness.drop_path_scales(seed, step, 0, count, self._rates)
        self._out = self._trainer.step(batch.images, noise, learning_rate=rate, momentum=momentum, drop_path=drop_path)

    def loss_ratio(self) -> float | None:
        """Of the last step: the loss over that of the best constant prediction."""
        return None if self._out is None else float(self._out.loss) / self._method.constant_loss(self._out.target)

    def encoder(self) -> Arrays:
        """What is scored."""
        return self._trainer.state().student

    def watched(self) -> Arrays:
        """The teacher, or the encoder itself where there is none."""
        state = self._trainer.state()
        return state.teacher or state.student


class Supervised:
    """Steps with labels: cross-entropy on the mean token, no mixing, the same crops and schedule."""

    def __init__(self, experiment: Experiment, steps: int, source: Part) -> None:
        shared = {n: v for n, v in configure(experiment, steps).to_dict().items() if n in RunConfig.model_fields}
        own: dict[str, Any] = {"mixup": 0.0, "cutmix": 0.0, "random_erasing": 0.0, "rand_augment": None}
        own |= {"label_smoothing": 0.0, "layer_decay": 1.0}
        head = {"model": {"num_classes": int(source.labels.max()) + 1, "pooling": "mean"}}
        self.config = FinetuneConfig.from_dict(merged(shared | own, head))
        self._trainer, self._labels = TorchFinetuner(self.config, CPU), source.labels
        self._pipeline = training_pipeline(self.config)
        self._rates = schedule.drop_path_rates(self.config.drop_path, self.config.model.depth)

    def step(self, batch: Batch, step: int, total: int) -> None:
        """One optimizer step."""
        rate, momentum = self.config.hyper_parameters(step, total)
        targets = soft_targets(self._labels[batch.sample_ids], self.config.model.num_classes, 0.0)
        images, targets = self._pipeline.mix(batch.images, targets, step, 0)
        drop_path = randomness.drop_path_scales(self.config.seed, step, 0, self.config.batch_size, self._rates)
        self._trainer.step(images, targets, learning_rate=rate, momentum=momentum, drop_path=drop_path)

    def loss_ratio(self) -> float | None:
        """No constant to compare with."""
        return None

    def encoder(self) -> Arrays:
        """What is scored."""
        return self._trainer.state().student

    watched = encoder


def start(experiment: Experiment, steps: int, source: Part) -> Pretraining | Supervised:
    """Training at its first step."""
    if experiment.method == SUPERVISED:
        return Supervised(experiment, steps, source)
    return Pretraining(experiment, steps)


def open_loader(source: Source, config: RunConfig, steps: int) -> TrainLoader:
    """Batches, augmented as every run with these settings augments them."""
    return TrainLoader(source, config, training_pipeline(config), start_step=0, total_steps=steps)


class _Clock:
    """Endless training whose steps are timed: loading, crops, the step."""

    def __init__(self, experiment: Experiment) -> None:
        total, source = _ROUNDS * _STEPS_A_ROUND + _STEPS_A_ROUND, parts(experiment.data, "validation").train
        self._training, self._total, self._step = start(experiment, total, source), total, 0
        self._loader = open_loader(source, self._training.config, total)

    def seconds(self) -> float:
        """CPU seconds of a step, the mean over a round."""
        began = time.process_time()
        for _ in range(_STEPS_A_ROUND):
            self._training.step(next(self._loader), self._step, self._total)
            self._step += 1
        return (time.process_time() - began) / _STEPS_A_ROUND

    def close(self) -> None:
        """End loading."""
        self._loader.close()


def measure_step(experiment: Experiment) -> tuple[float, float]:
    """CPU seconds of a step of PCAE's recipe, and of the method's in units of that: interleaved, medians of rounds.

    PCAE's own is 1, whatever two clocks of it say.
    """
    source = parts(experiment.data, "validation").train
    for index in range(len(source)):
        source.load(index)  # or the first clock alone would pay for decoding
    reference = Experiment(experiment.data, REFERENCE, "validation", 0, 0)
    ours, theirs = _Clock(reference), _Clock(experiment)
    try:
        ours.seconds(), theirs.seconds()
        rounds = [(ours.seconds(), theirs.seconds()) for _ in range(_ROUNDS)]
    finally:
        ours.close(), theirs.close()
    ratio = 1.0 if experiment == reference else statistics.median(other / own for own, other in rounds)
    return statistics.median(own for own, _ in rounds), ratio
