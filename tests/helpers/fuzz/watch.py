"""Watching this process: what it opens, starts and unpickles, how much memory it takes, how long."""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from pcae_core.errors import PcaeError

LIMIT_BYTES = 2**30
LIMIT_SECONDS = 10.0  # of CPU time, since the machine may be busy
LONGEST_LINE = 20_000
HARMLESS_MB, HARMLESS_SECONDS = 50.0, 1.0  # what a file may cost the library below, without our guards
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = frozenset({
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "subprocess.Popen", "pty.spawn",
    "pickle.find_class", "socket.connect", "socket.bind", "urllib.Request", "ctypes.dlopen",
})  # fmt: skip
_CHANGING = frozenset({
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "os.chown", "shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.unpack_archive",
})  # fmt: skip
OUT_OF_MEMORY = re.compile(
    r"(?i)memory ?error|bad_alloc|bad allocation|alloc\w*( memory| requested| \d|Raw)|out of memory"
)


@dataclass
class Outcome:
    """Of one case: "accepted", "refused" or "failed"; in seconds of CPU time.

    `peak_mb` is of the whole process, while it read. `harm` is what the file does to the libraries below, if anything.
    """

    outcome: str
    says: str
    seconds: float
    peak_mb: float
    harm: str = ""


@dataclass
class Watch:
    """Refuses nothing, notes everything; an audit hook cannot be taken back, so there is one in a process."""

    folder: Path | None = None
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event in _CHANGING or (event == "open" and int(arguments[2] or 0) & _WRITING):
            inside = isinstance(arguments[0], str) and Path(arguments[0]).resolve().is_relative_to(self.folder)
            if not inside and arguments[0] != os.devnull:
                self.seen.append(f"{event} {str(arguments)[:200]}")

    def read(self, read, folder: Path) -> Outcome:
        """Call `read(folder)`, and judge."""
        self.seen.clear()
        beside = sorted(folder.parent.iterdir())
        reset_peak()
        self.folder, start = folder, time.process_time()
        try:
            read(folder)
            outcome, says = "accepted", ""
        except PcaeError as error:
            outcome, says = "refused", str(error)
        except BaseException as error:  # SystemExit too is no way to refuse
            outcome, says = "failed", f"{type(error).__name__}: {error} ({_where(error)})"
        finally:
            self.folder = None
        seconds, peak = time.process_time() - start, peak_mb()
        faults = list(self.seen)
        if outcome == "refused" and (len(says.splitlines()) != 1 or len(says) > LONGEST_LINE):
            faults.append(f"an error of {len(says.splitlines())} lines, {len(says)} characters: {says[:300]}")
        if outcome == "refused" and OUT_OF_MEMORY.search(says):
            faults.append(f"it asked for more memory than it may take: {says[:300]}")
        if seconds > LIMIT_SECONDS:
            faults.append(f"it took {seconds:.1f} s")
        if peak > LIMIT_BYTES / 1e6:
            faults.append(f"it took {peak:.0f} MB")
        if sorted(folder.parent.iterdir()) != beside:
            faults.append("files were written beside the case's folder")
        if faults:
            outcome, says = "failed", "; ".join([*faults, *([says[:300]] if outcome == "failed" else [])])
        return Outcome(outcome, says[:600], seconds, peak)


def harm(read, *arguments: object) -> str:
    """What a call did that a library would need a guard against; nothing where it was harmless."""
    done = []
    before, start = reset_peak(), time.process_time()
    try:
        read(*arguments)
    except Exception as error:
        done.append(f"asks for more memory than there is ({error})")
    seconds, grown = time.process_time() - start, peak_mb() - before
    done += [f"takes {seconds:.1f} s"] if seconds > HARMLESS_SECONDS else []
    return ", ".join([*done, *([f"takes {grown:.0f} MB"] if grown > HARMLESS_MB else [])])


def limit_memory(limited: bool) -> None:
    """Let this process map so much more than it has, and no more; or as much as it wants."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LIMIT_BYTES if limited else most, most))


def reset_peak() -> float:
    """Begin to measure anew; what is resident now, in MB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_mb()


def peak_mb() -> float:
    """Most resident memory since the last reset."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes) * 1024 / 1e6


def _where(error: BaseException) -> str:
    """The innermost line of the project's that let it through."""
    place, trace = "", error.__traceback__
    while trace:
        name = trace.tb_frame.f_code.co_filename
        if "pcae_" in name:
            place = f"{Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
