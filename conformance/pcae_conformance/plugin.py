"""The suite as pytest tests.

    pytest -p pcae_conformance.plugin --pyargs pcae_conformance --pcae-backend NAME

The plugin has no `pytest11` entry point: pytest loads it only by name, never in the tests of another project.
"""

from __future__ import annotations

import pytest

from pcae_conformance.check import Check
from pcae_conformance.runner import MAX_EXAMPLES, Options, Session, plan, suit_small_models
from pcae_core.errors import PcaeError

SHARED = pytest.StashKey[Session]()
"""Backend, reference and known failures, for the whole run."""
PLANNED = pytest.StashKey[list[tuple[Check, str]]]()
HELP = {
    "--pcae-backend": "backend under test",
    "--pcae-device": "device, as the backend takes it",
    "--pcae-dtype": "only in this dtype",
    "--pcae-max-examples": "cases drawn for each check, shared among its dtypes",
    "--pcae-seed": "seed of hypothesis",
    "--pcae-compiled": "let a framework that compiles do so, which takes seconds a case",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("pcae", "conformance of a PCAE backend")
    for name in ("--pcae-backend", "--pcae-device", "--pcae-dtype"):
        group.addoption(name, default=None, help=HELP[name])
    group.addoption("--pcae-max-examples", type=int, default=MAX_EXAMPLES["full"], help=HELP["--pcae-max-examples"])
    group.addoption("--pcae-seed", type=int, default=0, help=HELP["--pcae-seed"])
    group.addoption("--pcae-compiled", action="store_true", help=HELP["--pcae-compiled"])


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any framework is loaded."""
    suit_small_models(config.getoption("--pcae-compiled"))


def options_of(config: pytest.Config) -> Options:
    """The options of a run."""
    return Options(
        name=config.getoption("--pcae-backend"),
        device=config.getoption("--pcae-device"),
        dtype=config.getoption("--pcae-dtype"),
        max_examples=config.getoption("--pcae-max-examples"),
        seed=config.getoption("--pcae-seed"),
        compiled=config.getoption("--pcae-compiled"),
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Plan the checks. Raises pytest.UsageError when no backend is given or a request is wrong."""
    options = options_of(session.config)
    if options.name is None:
        raise pytest.UsageError("the conformance suite needs --pcae-backend NAME")
    try:
        session.config.stash[SHARED] = Session.of(options)
        session.config.stash[PLANNED] = list(plan(options, session.config.stash[SHARED].backend))
    except PcaeError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each check and dtype."""
    if "planned" in metafunc.fixturenames:
        pairs = metafunc.config.stash[PLANNED]
        metafunc.parametrize("planned", pairs, ids=[f"{check.name}-{dtype or 'not-run'}" for check, dtype in pairs])
