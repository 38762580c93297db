"""npm packages made here, and a program in npm's place that delivers them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

NPM = """#!/bin/sh
# Like npm pack --json: the packages, or a reason on standard output and chatter on standard error.
echo "$@" > "$CALLS"
[ -d "$PACKAGES" ] && exec cp "$PACKAGES"/*.tgz .
echo "npm error A complete log of this run can be found in: npm.log" >&2
[ "$PACKAGES" = silent ] || echo '{"error": {"code": "E404", "summary": "Not Found"}}'
exit 1
"""

# What `fail` takes, and the reason that the error gives.
FAILURES = [("nowhere", "npm: Not Found"), ("silent", "npm: exit status 1"), (None, "no npm here")]


def save_package(path: Path, files: dict[str, bytes], link: str) -> Path:
    """Files by name; then a link to a file of the machine, named `link`."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo(link)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    return path


def install(tmp_path: Path, monkeypatch) -> Path:
    """Put the program into PATH; `tmp_path / "calls"` gets its call. Returns the folder of what it delivers."""
    folder, program = tmp_path / "packages", tmp_path / "bin" / "npm"
    folder.mkdir()
    program.parent.mkdir()
    program.write_text(NPM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.defpath}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PACKAGES", str(folder))
    return folder


def fail(tmp_path: Path, monkeypatch, how: str | None) -> None:
    """Let the program fail, or be gone when `how` is None."""
    if how is None:
        (tmp_path / "bin" / "npm").unlink()
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    else:
        monkeypatch.setenv("PACKAGES", how)
