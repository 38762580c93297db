"""Exported models in other people's tools, which keep the input `keep` and the ids."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import node_packages
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import KEEPS, exported, pixels

from pcae_onnx.session import InferenceSession, Outputs

TESTS = Path(__file__).parents[1]
PYTHON = TESTS.parent / ".venv-peers" / "bin" / "python"
"""Of the environment that `make peers` installs."""
NODE = TESTS / "node"


@pytest.fixture(scope="module", params=[20, 23])
def model(request, tmp_path_factory) -> Path:
    return exported(tmp_path_factory.mktemp("peers"), keep=None, opset=request.param).path


@pytest.fixture(scope="module")
def expected(model) -> dict[float, Outputs]:
    session = InferenceSession(model, threads=1)
    return {keep: session.run(pixels(3), keep) for keep in KEEPS}


def peer(*arguments: object) -> None:
    command = [PYTHON, TESTS / "helpers" / "peer_onnx.py", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def assert_same(ids: np.ndarray, hidden: np.ndarray, wanted: Outputs) -> None:
    np.testing.assert_array_equal(ids, wanted.kept_ids)
    np.testing.assert_allclose(hidden, wanted.last_hidden_state, rtol=0, atol=1e-4)


def test_onnxslim(model, expected, tmp_path):
    peer("slim", model, tmp_path / "slim.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "slim.onnx")
    assert [value.name for value in session.get_inputs()] == ["pixel_values", "keep"]
    for keep, wanted in expected.items():
        hidden, ids, _ = session.run(None, {"pixel_values": pixels(3), "keep": np.array(keep, np.float32)})
        assert_same(ids, hidden, wanted)


def test_openvino(model, expected, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels(3))
    peer("openvino", model, tmp_path / "pixels.npy", tmp_path / "answers.npz", *KEEPS)
    with np.load(tmp_path / "answers.npz") as answers:
        for keep, wanted in expected.items():
            assert_same(answers[f"ids_{keep}"], answers[f"hidden_{keep}"], wanted)


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Path:
    """A folder with the script and its packages."""
    folder = tmp_path_factory.mktemp("node") / "node"
    shutil.copytree(NODE, folder, ignore=shutil.ignore_patterns("node_modules"))
    node_packages.install(NODE, folder, "onnxruntime-node")
    return folder


def test_onnxruntime_node(node, model, expected):
    jobs = [{"pixels": pixels(3).ravel().tolist(), "shape": pixels(3).shape, "keep": keep} for keep in expected]
    (node / "jobs.json").write_text(json.dumps(jobs))
    command = ["node", "run.mjs", str(model), "jobs.json"]
    done = subprocess.run(command, cwd=node, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for found, wanted in zip(json.loads(done.stdout), expected.values(), strict=True):
        hidden = np.reshape(found["hidden"], wanted.last_hidden_state.shape)
        assert_same(np.reshape(found["keptIds"], (3, -1)), hidden, wanted)


def test_lock_file_names_exact_versions_and_no_host():
    text = (NODE / "package-lock.json").read_text(encoding="utf-8")
    wanted = json.loads((NODE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert json.loads(text)["packages"]["node_modules/onnxruntime-node"]["version"] == wanted["onnxruntime-node"]
    assert "http" not in text


@pytest.mark.parametrize("default", [False, True])
def test_only_an_input_without_a_default_is_one_to_every_tool(tmp_path, default):
    proto = onnx.load(exported(tmp_path, keep=None, keep_default=default).path)
    assert [value.name for value in proto.graph.input] == ["pixel_values", "keep"]
    assert ("keep" in {tensor.name for tensor in proto.graph.initializer}) == default
    np.testing.assert_array_equal(
        InferenceSession(tmp_path).run(pixels(1)).kept_ids[0], np.arange(36), "no ratio still means 1"
    )
