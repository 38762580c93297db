"""Run checks with hypothesis, and collect the results."""

from __future__ import annotations

import math
import os
import shlex
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from pcae_conformance.cases import Case
from pcae_conformance.check import Check, all_checks
from pcae_conformance.compare import Mismatch
from pcae_conformance.known_failures import KnownFailures
from pcae_conformance.result import Result
from pcae_conformance.subject import Subject
from pcae_core import registry
from pcae_core.contract import Backend, TrainingBackend, training_backend
from pcae_core.errors import ConfigError

MAX_EXAMPLES = {"full": 200, "ci": 20}
"""Profile -> number of drawn cases for each check, divided among its dtypes. Fixed examples run in addition."""


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes:
        name: name of the backend.
        device: device for `registry.create`; None for the backend's default.
        dtype: the only dtype to run in; None for all.
        only: the only check to run; None for all.
        max_examples: number of cases drawn for each check, divided among its dtypes.
        seed: seed of hypothesis; the same seed draws the same cases.
        case: the only case of `only` to run, as JSON.
        compiled: as in `suit_small_models`.
    """

    name: str
    device: str | None = None
    dtype: str | None = None
    only: str | None = None
    max_examples: int = MAX_EXAMPLES["full"]
    seed: int = 0
    case: str | None = None
    compiled: bool = False


def suit_small_models(compiled: bool) -> None:
    """Set environment variables of frameworks that are not loaded yet. Variables that are set already stay.

    With a second thread, such small models take three times as long. Compiling takes seconds for each shape, and the
    suite draws thousands of shapes. So frameworks run their operators one by one, unless `compiled`.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not compiled:
        os.environ.setdefault("MS_JIT", "0")  # MindSpore's


def create_backend(options: Options) -> Backend:
    """The backend under test. Raises BackendError."""
    return registry.create(options.name, **({"device": options.device} if options.device else {}))


def again(options: Options, check: Check, dtype: str, case: Case) -> str:
    """The command line that runs one case again."""
    words = ["pcae", "conformance", options.name, "--only", check.name, "--dtype", dtype]
    words += ["--device", options.device] if options.device else []
    words += ["--compiled"] if options.compiled else []
    return shlex.join([*words, "--case", case.to_json()])


@dataclass
class _Trial:
    """Runs the cases of one check and records the outcome."""

    subject: Subject
    result: Result
    failed: tuple[Case, Exception] | None = field(default=None, init=False)

    def run(self, case: Case) -> None:
        self.subject.worst = 0.0
        try:
            self.result.check.function(self.subject, case)
        except Exception as error:
            if self.failed is None:  # after a failure, hypothesis shrinks
                self.result.examples += 1
            self.failed = case, error
            self._note(case, error.error if isinstance(error, Mismatch) else math.inf)
            raise
        if self.failed is None:
            self.result.examples += 1
            if self.subject.worst > self.result.worst:
                self._note(case, self.subject.worst)

    def _note(self, case: Case, worst: float) -> None:
        self.result.worst, self.result.worst_input = worst, case.describe(self.result.dtype)


def _search(trial: _Trial, options: Options) -> None:
    """Run the fixed examples, then drawn cases. `trial.failed` is then the smallest failing case found."""
    check = trial.result.check
    try:
        for case in check.examples:
            trial.run(case)
        if check.strategy is not None:
            dtypes = check.dtypes_for(trial.subject.backend.capabilities, options.dtype)
            _drawn(check.strategy, trial.run, -(-options.max_examples // len(dtypes)), options.seed)
    except Exception:
        if trial.failed is None:  # the suite itself failed
            raise


def _drawn(strategy: Any, run: Callable[[Case], None], max_examples: int, random_seed: int) -> None:
    @seed(random_seed)
    @settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(strategy)
    def test(case: Case) -> None:
        run(case)

    test()


def run_check(backend: Backend, reference: TrainingBackend, check: Check, dtype: str, options: Options) -> Result:
    """Run one check in one dtype."""
    trial = _Trial(Subject(backend, reference, dtype), Result(check, dtype))
    if options.case is None:
        _search(trial, options)
    else:
        try:
            trial.run(check.case_type.from_json(options.case))
        except Exception:
            if trial.failed is None:
                raise
    if trial.failed is not None:
        case, error = trial.failed
        what = str(error) if isinstance(error, Mismatch) else _crash(error)
        trial.result.verdict = "failed"
        trial.result.message = f"{what}\n  input     {case}\n  again     {again(options, check, dtype, case)}"
    return trial.result


def _crash(error: Exception) -> str:
    """Text of an exception that is not a mismatch, with its place."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}\n  raised    {frame.filename}:{frame.lineno}: {frame.line}"


def select(options: Options) -> list[Check]:
    """The checks to run. Raises ConfigError for an unknown name, or a case without a check."""
    checks = all_checks()
    if options.only is None:
        if options.case is not None:
            raise ConfigError("--case needs --only CHECK, the check whose case it is")
        return list(checks.values())
    if options.only not in checks:
        raise ConfigError(f"unknown check {options.only!r}; known: {', '.join(checks)}")
    return [checks[options.only]]


def plan(options: Options, backend: Backend) -> Iterator[tuple[Check, str]]:
    """Each check with each dtype to run it in, or with "" if the backend does not claim what the check needs.

    Raises:
        ConfigError: the check or the dtype is unknown.
    """
    able = backend.capabilities
    if options.dtype is not None and options.dtype not in able.dtypes:
        raise ConfigError(f"the backend {options.name!r} does not claim {options.dtype!r}; it claims {able.dtypes}")
    for check in select(options):
        dtypes = check.dtypes_for(able, options.dtype) if able.training or not check.training else []
        yield from ((check, dtype) for dtype in dtypes or [""])


@dataclass(frozen=True)
class Session:
    """Objects that the checks of one run share."""

    options: Options
    backend: Backend
    reference: TrainingBackend
    known: KnownFailures

    @classmethod
    def of(cls, options: Options) -> Session:
        """Open a session. Raises BackendError for the backend, ConfigError for its list of known failures."""
        backend = create_backend(options)
        known = KnownFailures.of(options.name)
        everything = options.only is None and options.dtype is None
        known.check_entries(all_checks(), list(plan(options, backend)) if everything else None)
        return cls(options, backend, training_backend(registry.create("numpy")), known)

    def run(self, check: Check, dtype: str) -> Result:
        """Run one check in one dtype, a pair of `plan`."""
        if dtype:
            return self.known.judge(run_check(self.backend, self.reference, check, dtype, self.options))
        trains = self.backend.capabilities.training or not check.training
        why = f"claims none of {', '.join(check.dtypes)}" if trains else "does not train"
        return Result(check, "", "not run", message=f"by declaration: the backend {why}")


def run(options: Options, on_result: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Run all chosen checks. There is one result for each check and dtype; `on_result` is called after each.

    Raises:
        BackendError: the backend is unknown or cannot be created.
        ConfigError: the check, the dtype or the case is unknown, or the list of known failures is wrong.
    """
    session = Session.of(options)
    results = []
    for check, dtype in plan(options, session.backend):
        results.append(session.run(check, dtype))
        on_result(results[-1])
    return results
