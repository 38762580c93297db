"""The declaration of a backend, and the signatures of its methods."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pcae_conformance.cases import NoCase
from pcae_conformance.check import ONCE, check
from pcae_conformance.compare import require, require_raises
from pcae_conformance.dtypes import EPS
from pcae_conformance.finetune_cases import FinetuneCase
from pcae_conformance.model_cases import TrainCase
from pcae_conformance.subject import Subject
from pcae_core.contract import Array, Backend, TrainingBackend
from pcae_core.errors import BackendError, ConfigError, ShapeError

Parameters = list[tuple[str, str, object]]


def _parameters(function: Callable[..., Any]) -> Parameters:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind.description, p.default) for p in parameters if p.name != "self"]


@check("contract-signatures", statement="every method has the contract's parameters and defaults", dtypes=ONCE)
def signatures(subject: Subject, case: NoCase) -> None:
    """Compare names, kinds and defaults, but not annotations: a backend may use its own array type there."""
    contract = TrainingBackend if isinstance(subject.backend, TrainingBackend) else Backend
    for name, promised in inspect.getmembers(contract, inspect.isfunction):
        if name.startswith("_"):
            continue
        got, expected = _parameters(getattr(type(subject.backend), name)), _parameters(promised)
        require(got == expected, f"{name}: got the parameters {got}, expected {expected}")


@check("contract-capabilities", statement="name and capabilities are declared, widest dtype known", dtypes=ONCE)
def capabilities(subject: Subject, case: NoCase) -> None:
    """The declaration decides which checks run, so it must be right."""
    able = subject.backend.capabilities
    require(isinstance(subject.backend, Backend), "the backend must be a subclass of pcae_core.Backend")
    require(bool(subject.backend.name), "the backend has no name")
    unknown = [name for name in able.dtypes if name not in EPS]
    require(not unknown, f"capabilities.dtypes: unknown {unknown}, known {list(EPS)}")
    require(bool(able.devices), "capabilities.devices is empty")


@check(
    "contract-no-training",
    statement="a backend is a TrainingBackend if it declares training; if not it refuses to train with a BackendError",
    dtypes=ONCE,
)
def no_training(subject: Subject, case: NoCase) -> None:
    """The declaration decides which checks run, so it must agree with the class."""
    backend, declared = subject.backend, subject.backend.capabilities.training
    trains = isinstance(backend, TrainingBackend)
    require(trains == declared, f"capabilities.training is {declared}, but being a TrainingBackend is {trains}")
    if trains:
        return
    attempts: dict[str, Callable[[], object]] = {
        "create_pretrainer": lambda: backend.create_pretrainer(TrainCase().pretrain_config("float32")),
        "create_finetuner": lambda: backend.create_finetuner(FinetuneCase().finetune_config("float32")),
    }
    for name, attempt in attempts.items():
        require_raises(BackendError, f"{name} of a backend that declares no training", attempt)


def _takers_of_images(subject: Subject, case: TrainCase) -> dict[str, Callable[[Array], object]]:
    """The functions that must refuse images that do not fit the model."""
    backend, config, noise, rates = subject.backend, case.config(), case.noise(), case.hyper_parameters(0)
    student, teacher = (subject.own_all(p) for p in (case.student(subject.dtype), case.teacher(subject.dtype)))
    takers: dict[str, Callable[[Array], object]] = {
        "encode": lambda images: backend.encode(config, student, images),
        "encode_stages": lambda images: backend.encode_stages(config, student, images),
    }
    if isinstance(backend, TrainingBackend):
        forward = functools.partial(backend.pretraining_forward, config, student, teacher)
        takers["pretraining_forward"] = lambda images: forward(images, noise)
        pretrainer = backend.create_pretrainer(case.pretrain_config(subject.dtype))
        classifier = FinetuneCase(patch=case.patch, chans=case.chans)
        finetuner = backend.create_finetuner(classifier.finetune_config(subject.dtype))
        takers["a step of pre-training"] = lambda images: pretrainer.step(images, noise, **rates)
        takers["a step of fine-tuning"] = lambda images: finetuner.step(images, classifier.targets(0), **rates)
    return takers


@check(
    "contract-refusals",
    statement="images that do not fit the model raise ShapeError, a keep outside (0, 1] ConfigError",
    examples=[TrainCase(patch=2, chans=3)],
    dtypes=ONCE,
)
def refusals(subject: Subject, case: TrainCase) -> None:
    """Each request is wrong in one way. Images of a wrong shape have as many pixels as the model's."""
    batch, chans, size, _ = case.shape
    wrong = {
        "another size": (batch, chans, 2 * size, 2 * size),
        "another form": (batch, chans, size // 2, 2 * size),
        "fewer channels": (batch, 1, size, size),
        "three axes": (chans, size, size),
        "an empty batch": (0, chans, size, size),
    }
    for name, take in _takers_of_images(subject, case).items():
        for what, shape in wrong.items():
            attempt = functools.partial(take, subject.own(np.zeros(shape)))
            require_raises(ShapeError, f"{name}, images of {what}", attempt)
    parameters, images = subject.own_all(case.student(subject.dtype)), subject.own(case.images(subject.dtype))
    for keep in (0.0, 1.5, math.nan):
        for method in (subject.backend.encode, subject.backend.encode_stages):
            encode = functools.partial(method, case.config(), parameters, images, keep)
            require_raises(ConfigError, f"{method.__name__}, keep {keep}", encode)
