"""One run is one run at Weights & Biases too. A module that notes its arguments stands in for theirs, which logs in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pcae_core import ConfigError, PretrainConfig
from pcae_core.training.loggers import WandbLogger, open_loggers


@pytest.fixture
def begun(monkeypatch) -> list[dict[str, Any]]:
    """What `wandb.init` was given, a call each."""
    calls: list[dict[str, Any]] = []
    stand_in = ModuleType("wandb")
    stand_in.init = lambda **given: calls.append(given) or SimpleNamespace(finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return calls


def start(out: Path, step: int = 0) -> None:
    out.mkdir(exist_ok=True)
    for logger in open_loggers(PretrainConfig(out=out, tensorboard=False, wandb=True), step):
        logger.close()


def test_two_experiments_in_one_place_are_two_runs(begun, tmp_path):
    start(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    start(tmp_path / "run")
    start(tmp_path / "run")  # begun anew, since nothing had been saved
    identities = [given["id"] for given in begun]
    assert len(set(identities)) == 3
    assert all(given["resume"] == "allow" and given["name"] == "run" for given in begun)


def test_a_run_that_goes_on_is_one_run_wherever_its_folder_is(begun, tmp_path):
    start(tmp_path / "run")
    start(tmp_path / "run", step=10)
    (tmp_path / "run").rename(tmp_path / "renamed")
    start(tmp_path / "renamed", step=20)
    assert len({given["id"] for given in begun}) == 1
    start(tmp_path / "run", step=30)
    assert begun[-1]["id"] != begun[0]["id"]


def test_a_damaged_id_is_drawn_anew(begun, tmp_path):
    start(tmp_path)
    (tmp_path / WandbLogger.ID).write_bytes(b"\xff../x")
    start(tmp_path, step=10)
    start(tmp_path, step=10)
    assert begun[1]["id"] == begun[2]["id"] != begun[0]["id"]


def test_a_folder_that_cannot_be_written_is_one_line(begun, tmp_path):
    (tmp_path / WandbLogger.ID).mkdir()
    with pytest.raises(ConfigError, match=f"cannot write .*{WandbLogger.ID}"):
        WandbLogger(PretrainConfig(out=tmp_path), 0)
    assert begun == []
