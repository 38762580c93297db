"""Exports that fail or are stopped over a former one: that stays whole, until the new one is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from onnx_models import CONFIG, exported, pixels, weights

from pcae_core.config import DataConfig
from pcae_core.errors import ConformanceError, ModelFileError
from pcae_onnx import export, verify, writer
from pcae_onnx.session import InferenceSession

SMALL, LARGE = 10**9, 1000  # from how many bytes on the weights lie beside the model


@pytest.fixture
def unverified(monkeypatch):
    monkeypatch.setattr(verify, "verify", lambda *_: verify.Report(1e-4))


def export_scaled(folder: Path, factor: float) -> None:
    scaled = {name: factor * value for name, value in weights().items()}
    export.export(CONFIG, DataConfig(), scaled, folder, export.Options(keep=0.7))


def state(folder: Path) -> tuple[str, bytes]:
    """Which weights the model says that it has, and what it computes."""
    session = InferenceSession(folder)
    return session.info.weights_sha256, session.run(pixels(1)).logits.tobytes()


def stop_at(patch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Instead of the operation on a file of this number."""
    left = itertools.count(count, -1)

    def stopping(operation):
        def run(*arguments, **named):
            if next(left) == 0:
                raise error
            return operation(*arguments, **named)

        return run

    for name in ("open", "rename", "replace", "unlink"):
        patch.setattr(Path, name, stopping(getattr(Path, name)))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize(("former", "new"), [(LARGE, LARGE), (LARGE, SMALL), (SMALL, LARGE)])
def test_an_export_that_stops_anywhere_leaves_a_whole_model(tmp_path, monkeypatch, unverified, former, new, error):
    monkeypatch.setattr(writer, "EXTERNAL_DATA_BYTES", new)
    export_scaled(tmp_path / "new", 2.0)
    monkeypatch.setattr(writer, "EXTERNAL_DATA_BYTES", former)
    folder = tmp_path / "model"
    export_scaled(folder, 1.0)
    before, after = state(folder), state(tmp_path / "new")
    monkeypatch.setattr(writer, "EXTERNAL_DATA_BYTES", new)

    def stopped(count: int) -> bool:
        with monkeypatch.context() as patch:
            stop_at(patch, count, error)
            try:
                export_scaled(folder, 2.0)
            except (ModelFileError, KeyboardInterrupt):
                return True
        return False

    stops = 0
    while stopped(stops):
        stops += 1
        found = state(folder)
        assert found in (before, after)
        assert found == after or json.loads((folder / "config.json").read_text())["pcae"]["weights_sha256"] == before[0]
        assert not list(folder.glob(".*"))
    assert stops >= 7
    assert state(folder) == after
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "new").iterdir()}


def test_what_a_killed_export_left_is_cleared_away(tmp_path):
    left = tmp_path / ".writing_model.onnx"
    (left / "float32").mkdir(parents=True)
    exported(tmp_path, keep=0.7)
    assert not left.exists()


def test_a_narrow_model_is_not_written_where_float32_is_wrong(tmp_path):
    exported(tmp_path, keep=0.7)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConformanceError, match="more than 1e-12"):
        exported(tmp_path, keep=0.5, dtype="fp16", atol=1e-12)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
