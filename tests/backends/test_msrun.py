"""Runs of the MindSpore backend in two processes under msrun, alone on the machine: each of them keeps a core busy."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import patience
import pytest
import runs
from crossing import PROGRAMS, STEPS, arguments, assert_same_end, back_to, launched, resume, start_job, whole_run
from optional import needs_mindspore

pytestmark = needs_mindspore


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return whole_run(tmp_path_factory.mktemp("msrun"))


def msrun(logs: Path, *arguments: object) -> list[str]:
    """`pcae` as two processes, by MindSpore's launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = ("--worker_num=2", "--local_worker_num=2", f"--master_port={port}", "--join=True")
    launcher = (PROGRAMS / "msrun", *workers, f"--log_dir={logs}", "--cluster_time_out=3600", PROGRAMS / "pcae")
    return list(map(str, (*launcher, *arguments)))


def test_two_processes_equal_one(whole, tmp_path):
    """The same global batch; the one process is PyTorch's, which then does the second half too."""
    command = arguments(whole, tmp_path / "run", "--backend", "mindspore")
    launched(msrun(tmp_path / "logs", *command), tmp_path)
    assert_same_end(tmp_path / "run", whole)
    back_to(tmp_path / "run", 3)
    resume(tmp_path / "run", "torch", tmp_path)
    assert_same_end(tmp_path / "run", whole)
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "run"}


def test_a_rank_that_dies_ends_the_job_and_one_process_goes_on(whole, tmp_path):
    """With the rank's number; msrun's scheduler waits half a minute."""
    out = tmp_path / "run"
    command = arguments(whole, out, "--backend", "mindspore")
    process = start_job(msrun(tmp_path / "logs", *command), tmp_path)
    runs.wait_for(lambda: len(runs.metrics(out)) >= 4, process)
    (second,) = (pid for pid in runs.children(process.pid) if is_rank(1, pid))
    os.kill(second, signal.SIGKILL)
    output, _ = process.communicate(timeout=patience.SECONDS)
    assert process.returncode == 1
    assert f"Worker process {second} exit with exception. Error code: -9" in output
    assert f"rank 1 is process {second}\n" in output
    assert "Traceback" not in (tmp_path / "logs" / "scheduler.log").read_text()
    assert len(runs.metrics(out)) < STEPS
    resume(out, "torch", tmp_path)
    assert_same_end(out, whole)


def is_rank(number: int, pid: int) -> bool:
    """Not one of msrun's own, which show what the ranks print."""
    started = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return b"MS_NODE_ID=%d" % number in started and b"pretrain" in Path(f"/proc/{pid}/cmdline").read_bytes()
