"""Wrong requests to the command line."""

from __future__ import annotations

from pcae.cli import main as cli


def refused(capsys, *arguments: object) -> str:
    """The one line that a wrong request gets."""
    assert cli.run([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pcae: error: ")
    assert captured.err.count("\n") == 1
    return captured.err
