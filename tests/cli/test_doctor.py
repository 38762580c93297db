"""`pcae doctor`: what contradicts what, and backends that are broken, hang, or miss a device that is there."""

from __future__ import annotations

import subprocess
import sys

import patience
import pytest
import runs

from pcae.cli import main as cli
from pcae.doctor import devices, packages
from pcae.doctor.packages import Package
from pcae_core import registry

PCAE = Package(
    "0.1.0",
    (
        "numpy<3,>=1.26",
        'mindspore<2.11,>=2.10; (sys_platform == "linux") and extra == "mindspore"',
        "numpy<2; extra == 'mindspore'",
        "onnxruntime>=1.23; extra == 'ort'",
        "torch>=2.6; extra == 'torch'",
    ),
    ("mindspore", "ort", "torch"),
)


@pytest.mark.parametrize(
    ("there", "problems"),
    [
        ({"numpy": "2.3.1", "torch": "2.13.0"}, []),
        ({"numpy": "1.26.4", "mindspore": "2.10.0", "torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"}, []),
        ({"numpy": "2.3.1", "mindspore": "2.10.0"}, ["pcae[mindspore] needs numpy<2, and numpy 2.3.1 is installed"]),
        ({"numpy": "2.3.1", "torch": "2.1.0"}, ["pcae[torch] needs torch>=2.6, and torch 2.1.0 is installed"]),
        ({"torch": "2.13.0"}, ["pcae needs numpy<3,>=1.26, and it is not installed"]),
        (
            {"numpy": "2.3.1", "onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"},
            ["onnxruntime and onnxruntime-gpu are both installed"],
        ),
        (
            {"numpy": "2.3.1", "torch": "2.13.0+cpu", "torchvision": "0.28.0"},
            ["torchvision 0.28.0 and torch 2.13.0+cpu are of different builds"],
        ),
    ],
)
def test_conflicts_of_packages(there, problems):
    found = packages.findings({"pcae": PCAE} | {name: Package(version) for name, version in there.items()})
    assert [finding.problem.startswith(p) for finding, p in zip(found, problems, strict=True)] == [True] * len(problems)
    assert all("pip " in finding.advice for finding in found)


def test_requirements_of_frameworks_are_checked_too():
    torchvision = Package("0.28.0", ("torch==2.13.0", "pillow; extra == 'images'", "not a requirement !"))
    found = packages.findings({"torch": Package("2.12.0"), "torchvision": torchvision})
    assert [f.problem for f in found] == ["torchvision needs torch==2.13.0, and torch 2.12.0 is installed"]
    assert found[0].advice == 'pip install "torch==2.13.0"'


def broken(tmp_path, monkeypatch, code: str) -> None:
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(
    ("code", "seconds", "reason"),
    [
        (
            "raise ImportError('libcudart.so.12: cannot open')",
            patience.SECONDS,
            "ImportError: libcudart.so.12: cannot open",
        ),
        ("import os; os.abort()", patience.SECONDS, "its process ended with -6"),
        ("import time; time.sleep(60)", 1, "it did not answer within 1 s"),
    ],
)
def test_broken_frameworks(tmp_path, monkeypatch, code, seconds, reason):
    broken(tmp_path, monkeypatch, code)
    info = registry.available()["torch"]
    found = devices.findings("torch", info, devices.probe("torch", ["cpu"], seconds), {})
    assert len(found) == 1
    assert "torch backend is installed and does not work: " in found[0].problem
    assert reason in found[0].problem
    assert "pcae[torch]" in found[0].advice


def test_an_accelerator_that_a_backend_cannot_use(tmp_path, monkeypatch):
    """The reference runs on the CPU only, whatever it is asked for."""
    result = devices.probe("numpy", ["cuda", "cpu"], patience.SECONDS)
    assert result.device == "cpu"
    info = registry.available()["numpy"]
    assert devices.findings("numpy", info, result, {}) == []
    (finding,) = devices.findings("numpy", info, result, {"NVIDIA GPU": ["A100"]})
    assert "machine has an NVIDIA GPU, and the numpy backend cannot use it: " in finding.problem


def test_gpus_are_listed_by_the_driver_s_tool(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA A100, 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert devices.accelerators()["NVIDIA GPU"] == ["NVIDIA A100, 570.1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert "NVIDIA GPU" not in devices.accelerators()


def test_the_command_imports_no_framework(tmp_path):
    """Of this environment, with a PyTorch that cannot be imported before the real one."""
    (tmp_path / "torch.py").write_text("raise ImportError('broken on purpose')")
    code = (
        "import sys; from pcae.cli.main import run; code = run(['doctor', '--timeout', '3600'])\n"
        "print([name for name in ('torch', 'mindspore', 'onnxruntime', 'onnx') if name in sys.modules], code)"
    )
    environment = runs.environment() | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=patience.SECONDS
    )
    assert done.stdout.splitlines()[-1] == "[] 1", done.stdout + done.stderr
    assert "torch backend is installed and does not work: ImportError: broken on purpose" in done.stdout
    assert all(name in done.stdout for name in ("numpy", "mindspore", "onnx", "Python 3."))
    assert done.stderr.startswith("pcae: error: found ")


def test_the_time_limit_must_be_positive(capsys):
    for timeout in ("0", "inf", "nan"):
        assert cli.run(["doctor", "--timeout", timeout]) == 2
        assert "--timeout must be more than 0 seconds" in capsys.readouterr().err
