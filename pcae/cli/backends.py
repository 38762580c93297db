"""`pcae backends`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pcae.cli.parsing import parse

DESCRIPTION = """List the backends: what each can do and how to install it. `pcae doctor` checks that they work.

Example:
  pcae backends"""


@dataclass(frozen=True)
class Arguments:
    """`pcae backends` takes no arguments."""


def main(arguments: Sequence[str]) -> None:
    """Print a table of all backends."""
    parse(Arguments, "backends", arguments, description=DESCRIPTION)
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pcae_core.registry import available

    table = Table("backend", "version", "trains", "devices", "dtypes", "install")
    for name, info in available().items():
        able = info.capabilities
        cells = (
            name,
            info.version or ("installed" if info.installed else f"not installed: {info.problem}"),
            ("yes" if able.training else "no") if able else "",
            ", ".join(able.devices) if able else "",
            ", ".join(able.dtypes) if able else "",
            "" if info.installed else info.install,
        )
        table.add_row(*map(escape, cells))  # "pcae[torch]" is no style
    Console().print(table)
