"""Choosing a backend."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import inspect
import threading

import pytest

import pcae_core
import pcae_mindspore
from pcae_core import (
    Backend,
    BackendError,
    BackendSpec,
    Capabilities,
    MissingExtraError,
    TrainingBackend,
    registry,
)
from pcae_core.contract import training_backend


def _announce(monkeypatch, **specs):
    points = [
        importlib.metadata.EntryPoint(name, f"{__name__}:{attribute}", registry.ENTRY_POINT_GROUP)
        for name, attribute in specs.items()
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)


ABSENT = BackendSpec(
    "absent", lambda: None, Capabilities(False, (), ()), ("no_such_framework",), install='pip install "pcae[absent]"'
)
NOT_A_SPEC = "something else"
RENAMED = BackendSpec("renamed", lambda: None, Capabilities(False, (), ()), ("numpy",), distribution="numpy-gpu")


def test_own_backends_are_available():
    found = pcae_core.available()
    assert {"numpy", "torch"} <= set(found)
    assert found["torch"].installed
    assert found["torch"].version.startswith("2.")
    assert found["numpy"].capabilities.training


def test_version_of_a_module_that_another_package_brings(monkeypatch):
    _announce(monkeypatch, renamed="RENAMED")
    assert pcae_core.available()["renamed"].version == importlib.metadata.version("numpy")


def test_every_backend_has_the_contract_s_signatures():
    for name in ("numpy", "torch", "onnx"):
        backend = registry.create(name)
        ours = type(backend)
        contract = TrainingBackend if backend.capabilities.training else Backend
        for method, stated in inspect.getmembers(contract, inspect.isfunction):
            if not method.startswith("_"):
                expected = [(p.name, p.kind, p.default) for p in inspect.signature(stated).parameters.values()]
                found = [
                    (p.name, p.kind, p.default) for p in inspect.signature(getattr(ours, method)).parameters.values()
                ]
                assert found == expected, f"{name}.{method}"


def test_a_backend_that_does_not_train_says_so():
    assert isinstance(training_backend(registry.create("numpy")), TrainingBackend)
    infers = registry.create("onnx")
    for ask in (
        lambda: training_backend(infers),
        lambda: infers.create_pretrainer(None),
        lambda: infers.create_finetuner(None),
    ):
        with pytest.raises(BackendError) as caught:
            ask()
        assert str(caught.value) == "the backend 'onnx' does not train; pcae backends lists those that do"


def test_unknown_backend_lists_the_known_ones():
    with pytest.raises(BackendError, match=r"unknown backend 'jacks'; known: .*numpy.*torch"):
        pcae_core.use("jacks")


def test_missing_framework_names_the_extra(monkeypatch):
    _announce(monkeypatch, absent="ABSENT")
    with pytest.raises(MissingExtraError, match=r'no_such_framework.*pip install "pcae\[absent\]"'):
        pcae_core.use("absent")
    assert not pcae_core.available()["absent"].installed


def test_mindspore_s_absence_names_the_pythons_that_it_has_wheels_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ask in (lambda: pcae_core.use("mindspore"), pcae_mindspore.prepare):
        with pytest.raises(MissingExtraError, match=r'pip install "pcae\[mindspore\]", with Python 3\.11 or 3\.12'):
            ask()


def test_broken_entry_point_is_reported_and_harmless(monkeypatch):
    _announce(monkeypatch, broken="NOWHERE", odd="NOT_A_SPEC")
    found = pcae_core.available()
    assert "cannot be loaded" in found["broken"].problem
    assert "must be a BackendSpec" in found["odd"].problem


def test_use_as_context_manager_nests():
    with pcae_core.use("numpy") as outer:
        assert pcae_core.current() is outer
        with pcae_core.use("torch") as inner:
            assert pcae_core.current() is inner
        assert pcae_core.current() is outer


def test_no_backend_in_use_is_an_error():
    found = []

    def look():
        try:
            pcae_core.current()
        except BackendError as error:
            found.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert 'pcae.use("torch")' in found[0]


def test_threads_do_not_disturb_each_other():
    barrier, seen = threading.Barrier(2), {}

    def work(name):
        pcae_core.use(name)
        barrier.wait()
        seen[name] = pcae_core.current().name

    threads = [threading.Thread(target=work, args=(name,)) for name in ("numpy", "torch")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"numpy": "numpy", "torch": "torch"}


def test_async_tasks_do_not_disturb_each_other():
    async def work(name):
        with pcae_core.use(name):
            await asyncio.sleep(0.01)
            return pcae_core.current().name

    async def both():
        return await asyncio.gather(work("numpy"), work("torch"))

    assert asyncio.run(both()) == ["numpy", "torch"]


def test_unavailable_device_is_one_line():
    with pytest.raises(BackendError, match="not 'tpu'; choose one with --device, or --device auto"):
        pcae_core.use("torch", device="tpu")
    with pytest.raises(BackendError, match="runs on the device 'cpu', not 'cuda'; say --device cpu or auto"):
        pcae_core.use("numpy", device="cuda")
