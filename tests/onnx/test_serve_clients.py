"""Other people's clients against `pcae serve`: tritonclient as it comes, and what the kserve client sends."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import services
from onnx_models import exported, pixels
from services import array, assert_refused

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
RECORDED = ROOT / "tests" / "recorded" / "kserve"


@pytest.fixture(scope="module")
def client(folder):
    with services.serving(folder, "--max-batch", 4) as client:
        yield client


@pytest.fixture(scope="module")
def triton(client, tmp_path_factory):
    """What tritonclient says of each call, and the arrays that it gives."""
    assert PYTHON.exists(), "tritonclient is not installed; run make peers"
    folder = tmp_path_factory.mktemp("triton")
    np.save(folder / "pixels.npy", pixels(2))
    script = [PYTHON, ROOT / "tests" / "helpers" / "triton_client.py"]
    command = [*script, client.port, client.name, folder / "pixels.npy", folder / "results.npz"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(folder / "results.npz") as results:
        return json.loads(done.stdout), dict(results)


def test_triton_health_and_metadata(triton, client):
    said, _ = triton
    assert [said["live"], said["ready"], said["asyncio ready"]] == [True] * 3
    assert said["models ready"] == [True, True, False, False]
    assert said["server"]["extensions"] == ["binary_tensor_data"]
    assert said["model"] == said["model 1"] == client.ask("GET", "/v2/models/small").json
    assert said["model"]["versions"] == ["1"]


def test_triton_inference_equals_the_session(triton, session):
    said, results = triton
    calls = {name.partition("/")[0] for name in results}
    assert len(calls) == 18
    for name, values in results.items():
        call, _, output = name.partition("/")
        given = pixels(2).astype(np.float16).astype(np.float32) if call == "fp16" else pixels(2)
        ratio = re.search(r"[01]\.\d", call)
        expected = getattr(session.run(given, 1.0 if call == "no keep" else float(ratio[0]) if ratio else 0.7), output)
        assert values.dtype == expected.dtype
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6, err_msg=name)
    assert {name for name in results if name.startswith("chosen")} == {"chosen/logits"}
    assert said["parameters"] == "mine"
    for output in ("last_hidden_state", "kept_ids", "logits"):
        np.testing.assert_array_equal(results[f"json/{output}"], results[f"default/{output}"])


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ("wrong shape", "400", "pixel_values must have the shape [n, 3, 24, 24] with n from 1 to 4"),
        ("wrong shape, json", "400", "pixel_values must have the shape [n, 3, 24, 24] with n from 1 to 4"),
        ("too many", "400", "with n from 1 to 4, not [10, 3, 24, 24]"),
        ("wrong datatype", "400", "must have the datatype FP32 or FP16, not FP64"),
        ("wrong keep", "400", "keep must be in (0, 1], not 1.5"),
        ("wrong output", "400", "outputs must be some of last_hidden_state, kept_ids, logits"),
        ("wrong version", "404", "there is no such version; 'small' has version 1"),
        ("shared memory", "400", "shared_memory_region: this service does not have it"),
        ("classification", "400", "classification: this service does not have it"),
    ],
)
def test_triton_raises_its_own_error_with_our_line(triton, call, status, message):
    said = triton[0][call]
    assert said[0] == status
    assert message in said[1]


def replayed(client: services.Client, name: str) -> services.Answer:
    """The answer to what the kserve client sent."""
    with client.raw((RECORDED / f"{name}.http").read_bytes()) as connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        return services.Answer(response.status, response.read(), response.headers)


@pytest.mark.parametrize("call", ["json", "json-in", "binary-in", "binary", "fp16", "chosen"])
def test_kserve_inference_equals_the_session(client, session, call):
    answer = replayed(client, call)
    assert (answer.status, answer.json["id"], answer.json["model_name"]) == (200, call, "small"), answer.body
    expected = session.run(np.round(pixels(1)), 1.0 if call == "json-in" else 0.7)
    names = ["logits", "kept_ids"] if call == "chosen" else ["last_hidden_state", "kept_ids", "logits"]
    assert [tensor["name"] for tensor in answer.json["outputs"]] == names
    in_bytes = {"json": 0, "binary-in": 0, "chosen": 1}.get(call, 3)
    assert sum("binary_data_size" in tensor.get("parameters", {}) for tensor in answer.json["outputs"]) == in_bytes
    for name in names:
        np.testing.assert_allclose(array(answer, name), getattr(expected, name), rtol=0, atol=1e-6)


def test_kserve_errors_are_our_lines(client):
    assert_refused(replayed(client, "wrong-shape"), 400, "pixel_values must have the shape")
    assert_refused(replayed(client, "wrong-keep"), 400, "keep must be in (0, 1], not 1.5")


def test_kserve_health(client):
    *requests, rest = re.split(rb"(?<=\r\n\r\n)", (RECORDED / "health.http").read_bytes())
    assert (len(requests), rest) == (4, b"")
    statuses = []
    for request in requests:
        with client.raw(request) as connection:
            response = http.client.HTTPResponse(connection)
            response.begin()
            statuses.append(response.status)
    assert statuses == [200, 200, 200, 404]


def test_an_int8_model_answers_the_same_alone_and_beside_others(tmp_path):
    """Bit for bit: dynamic quantisation takes one scale of what it computes together."""
    exported(tmp_path / "narrow", keep=None, dtype="int8")
    images = pixels(1) * np.array([1, 2, 5, 10]).reshape(4, 1, 1, 1).astype(np.float32)
    fields = {"parameters": {"binary_data_output": True}}
    with services.serving(tmp_path / "narrow", "--max-batch", 4) as client:
        together = client.post(*services.binary_request(services.request(images, 0.7) | fields))
        assert together.status == 200, together.body
        for i in range(len(images)):
            alone = client.post(*services.binary_request(services.request(images[i : i + 1], 0.7) | fields))
            for name in ("last_hidden_state", "kept_ids", "logits"):
                np.testing.assert_array_equal(array(alone, name)[0], array(together, name)[i])
