"""`pcae conformance NAME`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from pcae.cli.parsing import parse
from pcae_core.errors import ConfigError, ConformanceError, MissingExtraError

if TYPE_CHECKING:
    from pcae_conformance.result import Result
    from pcae_conformance.runner import Options

DESCRIPTION = """Compare a backend with the NumPy reference by property-based tests.

Prints one table. Exits with 1 when a check fails, and prints the command that runs the failing case again.

Examples:
  pcae conformance torch
  pcae conformance torch --only scores-reference --dtype float32 --max-examples 1000"""


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae conformance`.

    Attributes:
        name: name of the backend; `pcae backends` lists them.
        max_examples: number of cases for each check, divided among its dtypes. Default: set by --profile.
        seed: seed of the cases; the same seed draws the same cases.
        json: file to write the results and the versions to.
        only: name of the only check to run.
        device: device name of the backend, such as cpu or cuda.
        dtype: the only dtype to test.
        profile: number of cases for each check: full draws 200, ci draws 20.
        case: run one case of --only again; a failure prints this value.
        compiled: let the framework compile, where it can. This takes seconds a case.
    """

    name: Annotated[str, tyro.conf.Positional]
    max_examples: int | None = None
    seed: int = 0
    json: Path | None = None
    only: str | None = None
    device: str | None = None
    dtype: str | None = None
    profile: Literal["full", "ci"] = "full"
    case: str | None = None
    compiled: bool = False


def main(arguments: Sequence[str]) -> None:
    """Parse, run, print. Raises ConformanceError when a check fails."""
    wanted = parse(Arguments, "conformance", arguments, description=DESCRIPTION)
    if importlib.util.find_spec("hypothesis") is None:
        raise MissingExtraError(
            'the conformance suite needs hypothesis, which is not installed: pip install "pcae[conformance]"'
        )
    if wanted.max_examples is not None and wanted.max_examples < 1:
        raise ConfigError(f"--max-examples must be at least 1, not {wanted.max_examples}")
    from pcae_conformance import report, runner

    runner.suit_small_models(wanted.compiled)
    options = runner.Options(
        name=wanted.name,
        device=wanted.device,
        dtype=wanted.dtype,
        only=wanted.only,
        max_examples=wanted.max_examples or runner.MAX_EXAMPLES[wanted.profile],
        seed=wanted.seed,
        case=wanted.case,
        compiled=wanted.compiled,
    )
    with Console(stderr=True).status("") as status:  # shows nothing where stderr is no terminal
        results = runner.run(options, lambda result: status.update(f"{result.check.name} {result.dtype}: done"))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report.table(options, results))
    failures = report.failures(results)
    for text in failures:  # unwrapped, so that the command in it can be copied
        print(f"\n{text}")
    if wanted.json is not None:
        _write(wanted.json, options, results)
    if failures:
        raise ConformanceError(f"{wanted.name} does not conform: {report.summary(results)}")
    console.print(f"{wanted.name} conforms: {report.summary(results)}", markup=False)


def _write(path: Path, options: Options, results: list[Result]) -> None:
    from pcae_conformance import report

    try:
        report.write_json(path, options, results)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}") from None
