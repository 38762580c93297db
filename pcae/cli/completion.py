"""`pcae completion`."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

import tyro

from pcae.cli.parsing import filled, parse
from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.config.finetune import FinetuneConfig

DESCRIPTION = """Print a shell script that completes commands, flags, values and file names when you press Tab.

Examples:
  pcae completion bash > ~/.local/share/bash-completion/completions/pcae
  pcae completion zsh > ~/.zfunc/_pcae             # a folder in your fpath, before compinit
  pcae completion fish > ~/.config/fish/completions/pcae.fish"""

CONFIGURATIONS = {"finetune": FinetuneConfig, "pretrain": PretrainConfig, "profile": ModelConfig}
"""Commands whose flags are settings; the others have a class `Arguments`."""


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae completion`.

    Attributes:
        shell: the shell to complete in.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]


def main(arguments: Sequence[str]) -> None:
    """Parse, print."""
    chosen = parse(Arguments, "completion", arguments, description=DESCRIPTION)
    print(script(chosen.shell), end="")


def script(shell: str) -> str:
    """tyro's script for all commands together, as if each were a sub-command of one parser."""
    from pcae.cli.main import COMMANDS

    whole: Any = Union[tuple(_subcommand(name, what) for name, what in COMMANDS.items())]  # noqa: UP007 - of a tuple
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.suppress(SystemExit):
        tyro.cli(whole, prog="pcae", args=["--tyro-print-completion", shell])
    return written.getvalue()


def _subcommand(name: str, description: str) -> Any:
    module = importlib.import_module(f"pcae.cli.{name}")
    if name not in CONFIGURATIONS:
        return Annotated[module.Arguments, tyro.conf.subcommand(name, description=description)]
    default = filled(CONFIGURATIONS[name](), module.FLAGS, getattr(module, "WITHOUT", ()))
    return Annotated[type(default), tyro.conf.subcommand(name, description=description, default=default)]
