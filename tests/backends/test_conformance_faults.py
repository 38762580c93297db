"""The suite is itself tested: each planted fault is caught by the check that stands for what it breaks."""

from __future__ import annotations

import pytest
from faults import FAULTS
from faults.mutation import Fault, broken_backend

from pcae_conformance.check import all_checks
from pcae_conformance.result import Result
from pcae_conformance.runner import Options, run_check
from pcae_core import registry

CHECKS = all_checks()
REFERENCE = registry.create("numpy")


def run(fault: Fault, max_examples: int) -> Result:
    backend, check = broken_backend(fault), CHECKS[fault.caught_by]
    dtype = fault.dtype or check.dtypes_for(backend.capabilities)[0]
    return run_check(backend, REFERENCE, check, dtype, Options(backend.name, dtype=dtype, max_examples=max_examples))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # faults divide by zero
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.says)
def test_a_planted_fault_is_caught(fault: Fault):
    result = run(fault, 200)
    assert result.verdict == "failed"
    assert result.examples <= 200
    assert "raised" not in result.message, "the fault crashes where it should give a wrong result"


@pytest.mark.parametrize(("package", "check"), sorted({(fault.package, fault.caught_by) for fault in FAULTS}))
def test_a_copy_without_a_fault_passes(package: str, check: str):
    assert run(Fault("none", check, (), package), 5).verdict == "passed"


def test_there_are_enough_faults():
    assert len(FAULTS) >= 34
    assert len({fault.says for fault in FAULTS}) == len(FAULTS)


def test_a_fault_whose_text_has_gone_is_refused():
    with pytest.raises(ValueError, match="0 times, not once"):
        broken_backend(Fault("stale", "select-lowest", (("ops", "text that is not there", ""),)))
