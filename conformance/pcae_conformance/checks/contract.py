"""What a backend says of itself, and the form of its methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pcae_conformance.cases import NoCase
from pcae_conformance.check import ONCE, check
from pcae_conformance.compare import require
from pcae_conformance.dtypes import EPS
from pcae_conformance.finetune_cases import FinetuneCase
from pcae_conformance.model_cases import ModelCase, TrainCase
from pcae_conformance.subject import Subject
from pcae_core.errors import BackendError
from pcae_core.protocol import Backend

Parameters = list[tuple[str, str, object]]


def _parameters(function: Callable[..., Any]) -> Parameters:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind.description, p.default) for p in parameters if p.name != "self"]


@check("contract-signatures", statement="every method has the contract's parameters and defaults", dtypes=ONCE)
def signatures(subject: Subject, case: NoCase) -> None:
    """Names, kinds and defaults, not annotations: a backend writes its own array type there."""
    for name, promised in inspect.getmembers(Backend, inspect.isfunction):
        if name.startswith("_"):
            continue
        got, expected = _parameters(getattr(type(subject.backend), name)), _parameters(promised)
        require(got == expected, f"{name}: got the parameters {got}, expected {expected}")


@check("contract-capabilities", statement="name and capabilities are declared, widest dtype known", dtypes=ONCE)
def capabilities(subject: Subject, case: NoCase) -> None:
    """The declaration that decides which checks run must itself be right."""
    able = subject.backend.capabilities
    require(isinstance(subject.backend, Backend), "the backend must be a subclass of pcae_core.Backend")
    require(bool(subject.backend.name), "the backend has no name")
    unknown = [name for name in able.dtypes if name not in EPS]
    require(not unknown, f"capabilities.dtypes: unknown {unknown}, known {list(EPS)}")
    require(bool(able.devices), "capabilities.devices is empty")


@check(
    "contract-no-training",
    statement="a backend that does not train says so with a BackendError",
    examples=[ModelCase()],
    dtypes=ONCE,
)
def no_training(subject: Subject, case: ModelCase) -> None:
    """And one that trains overrides the methods of training."""
    names = (
        "create_pretrainer", "loss_and_gradients", "create_finetuner", "finetuning_loss_and_gradients", "gradient",
    )  # fmt: skip
    lacking = [name for name in names if getattr(type(subject.backend), name) is getattr(Backend, name)]
    if subject.backend.capabilities.training:
        require(not lacking, f"the backend declares training but lacks {', '.join(lacking)}")
        return
    classifier = FinetuneCase()
    student, teacher = case.student(subject.dtype), case.teacher(subject.dtype)
    attempts: list[Callable[[], object]] = [
        lambda: subject.backend.create_pretrainer(TrainCase().pretrain_config("float32")),
        lambda: subject.backend.loss_and_gradients(
            case.config(), student, teacher, case.images(subject.dtype), case.noise()
        ),
        lambda: subject.backend.gradient(lambda x: x, subject.own(0.0)),
        lambda: subject.backend.create_finetuner(classifier.finetune_config("float32")),
        lambda: subject.backend.finetuning_loss_and_gradients(
            classifier.config(), classifier.classifier("float32"), classifier.images("float32"), classifier.targets(0)
        ),
    ]
    for attempt in attempts:
        try:
            attempt()
        except BackendError:
            continue
        require(False, "training was declared impossible, yet the call did not raise BackendError")
