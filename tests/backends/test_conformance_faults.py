"""The suite is itself tested: each planted fault is caught by the check that stands for what it breaks."""

from __future__ import annotations

import functools
import re

import pytest
from faults import FAULTS, arrays, grid, scores, standardize_loss
from faults.fault import Fault, numpy_edit, numpy_override, overridden_backend

from pcae_conformance.check import all_checks
from pcae_conformance.result import Result
from pcae_conformance.runner import Options, run_check
from pcae_core import registry

CHECKS = all_checks()
REFERENCE = registry.create("numpy")


def run(fault: Fault, max_examples: int) -> Result:
    backend, check = fault.create(), CHECKS[fault.caught_by]
    dtype = fault.dtype or check.dtypes_for(backend.capabilities)[0]
    return run_check(backend, REFERENCE, check, dtype, Options(backend.name, dtype=dtype, max_examples=max_examples))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # faults divide by zero
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault):
    result = run(fault, 200)
    assert result.verdict == "failed"
    assert result.examples <= 200
    assert "raised" not in result.message, "the fault crashes where it should give a wrong result"
    assert not re.search(r"got a \w+, expected a ", result.message), "the fault gives an array of another framework"


@pytest.mark.parametrize(
    ("framework", "check", "edited"),
    sorted({(fault.framework, fault.caught_by, fault.backend is None) for fault in FAULTS}),
)
def test_a_copy_without_a_fault_passes(framework: str, check: str, edited: bool):
    create = None if edited else functools.partial(overridden_backend, framework, {})
    assert run(Fault("none", check, framework=framework, backend=create), 5).verdict == "passed"


@pytest.mark.parametrize(
    ("check", "method", "restated"),
    [
        ("patchify-definition", "patchify", arrays.patches(0, 2, 4, 1, 3, 5)),
        ("scores-definition", "similarity_scores", scores.scoring()),
        ("grid-definition", "restore_grid", grid.restoring()),
        ("standardize-definition", "standardize", standardize_loss.standardizing()),
    ],
)
def test_an_operation_restated_without_a_fault_passes(check: str, method: str, restated: object):
    assert run(numpy_override("none", check, **{method: restated}), 200).verdict == "passed"


def test_there_are_enough_faults():
    assert len(FAULTS) >= 200
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_fault_whose_text_has_gone_is_refused():
    with pytest.raises(ValueError, match="0 times, not once"):
        numpy_edit("stale", "select-lowest", ("ops", "text that is not there", "")).create()


def test_a_fault_whose_method_has_gone_is_refused():
    with pytest.raises(ValueError, match="the backend has no pick_tokens"):
        numpy_override("stale", "select-lowest", pick_tokens=None).create()
