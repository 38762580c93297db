"""`pcae COMMAND ...`: finds the command and turns errors into one line and an exit code.

Exit codes: 0 done, 1 the work failed, 2 the request was wrong.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence

import pcae_core
from pcae_core.errors import PcaeError

COMMANDS = {
    "data": "fetch a data set",
    "pretrain": "pre-train on images, or continue a run",
    "finetune": "train a pre-trained encoder to classify, or continue a run",
    "evaluate": "probe the frozen features of a run, or score a fine-tuned run at several keep ratios",
    "export": "write an encoder as a verified ONNX model",
    "predict": "run an exported model on images",
    "serve": "serve an exported model over HTTP",
    "convert": "convert weights of other projects to PCAE's form, and back",
    "visualize": "draw which tokens of images an encoder keeps",
    "report": "write a page about a run",
    "profile": "count multiply-accumulates and tokens of a model",
    "conformance": "compare a backend with the reference",
    "backends": "list backends and how to install them",
    "completion": "print a script that completes commands and flags in a shell",
    "doctor": "report what is installed, what works, and how to repair the rest",
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: pcae COMMAND ...", "", *lines, "", "pcae COMMAND --help lists the flags of a command."])


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"pcae {pcae_core.__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        return _fail(f"unknown command {name!r}; known: {', '.join(COMMANDS)}", 2)
    try:
        importlib.import_module(f"pcae.cli.{name}").main(rest)
    except PcaeError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except BrokenPipeError:  # the reader of the output has closed it, as in `pcae profile | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _fail(message: str, code: int) -> int:
    print(f"pcae: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the `pcae` script. SIGTERM, like Ctrl-C, ends a command with one line after it has cleaned up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name need not be valid text
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
