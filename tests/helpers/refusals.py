"""Wrong requests to the command line."""

from __future__ import annotations

from pcae.cli import main as cli


def refused(capsys, *arguments: object, prints: bool = False) -> str:
    """The one line that a wrong request gets; `prints`: a command that may print before it finds the mistake."""
    assert cli.run([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert prints or captured.out == ""
    assert captured.err.startswith("pcae: error: ")
    assert captured.err.count("\n") == 1
    return captured.err
