"""`pcae convert` in this process."""

from __future__ import annotations

from pcae_core.cli import main as cli


def convert(*arguments: object) -> None:
    assert cli.run(["convert", *map(str, arguments)]) == 0


def refused(capsys, *arguments: object) -> str:
    """The one line that a wrong request gets; the report may stand before it."""
    capsys.readouterr()  # what other libraries print
    assert cli.run(["convert", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pcae: error: ")
    assert error.count("\n") == 1
    return error
