"""The process that reads hostile input: `python -m fuzz.worker ROOT SEED`.

Lines on stdin: `prepare KIND`, then `case NUMBER`, each answered by a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from fuzz import unguarded, watch
from fuzz.kind import Kind, stream
from fuzz.registry import KINDS, NO_INPUT


def main() -> None:
    root, seed = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    sys.dont_write_bytecode = True
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # for libraries that print
    watcher = watch.Watch()
    kind: Kind | None = None
    name = ""
    for line in sys.stdin:
        command, argument = line.split()
        if command == "prepare":
            name = argument
            kind = _prepared(name, root)
            print(json.dumps("ready"), file=answers, flush=True)
            continue
        assert kind is not None
        folder = root / "cases" / "case"
        folder.mkdir(parents=True)
        note = kind.write(stream(name, int(argument), seed), folder)
        print(json.dumps(note), file=answers, flush=True)
        harm = watch.harm(unguarded.read, name, folder)
        print(json.dumps(asdict(watcher.read(kind.read, folder)) | {"harm": harm}), file=answers, flush=True)
        shutil.rmtree(folder)


def _prepared(name: str, root: Path) -> Kind:
    """The kind, its good input read once: what is imported late is imported now, and what is good is accepted."""
    watch.limit_memory(False)
    module, _, member = (KINDS | NO_INPUT)[name].partition(":")
    samples, good = root / "samples" / name, root / "good" / name
    for folder in (samples, good):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    kind: Kind = getattr(importlib.import_module(module), member)(samples)
    kind.good(good)
    kind.read(good)
    watch.harm(unguarded.read, name, good)
    watch.limit_memory(True)
    return kind


if __name__ == "__main__":
    main()
