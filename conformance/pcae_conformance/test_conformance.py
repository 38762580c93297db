"""One test for each check and dtype; `pcae_conformance.plugin` makes them."""

from __future__ import annotations

import pytest

from pcae_conformance.check import Check
from pcae_conformance.plugin import SHARED
from pcae_conformance.report import failures


def test_conformance(pytestconfig: pytest.Config, planned: tuple[Check, str]) -> None:
    """The check passes, does not apply to this backend, or is known to fail."""
    result = pytestconfig.stash[SHARED].run(*planned)
    if result.verdict == "failed":
        pytest.fail(failures([result])[0], pytrace=False)
    if result.verdict == "known failure":
        pytest.xfail(result.message)
    if result.verdict == "not run":
        pytest.skip(result.message)
