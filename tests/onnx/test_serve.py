"""The HTTP service: the protocol, batches, limits, and what it answers to nonsense."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import patience
import pytest
import services
from onnx_models import pixels
from PIL import Image
from services import JSON, array, assert_refused, picture, request

FLAGS = shlex.split("--max-batch 4 --max-wait-ms 150 --queue 8 --max-body-mb 1 --max-pixels 1000000 --read-timeout 600")


@pytest.fixture(scope="module")
def client(folder):
    with services.serving(folder, *FLAGS) as client:
        yield client


@pytest.fixture(scope="module")
def impatient(folder):
    """A service that waits three seconds for a body or a header."""
    with services.serving(folder, "--read-timeout", 3) as client:
        yield client


def assert_well(client, session) -> None:
    """A good request is answered as the session answers."""
    answer = client.infer(pixels(1), 0.7)
    assert answer.status == 200, answer.body
    np.testing.assert_allclose(array(answer, "logits"), session.run(pixels(1), 0.7).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("keep", [None, 1.0, 0.7, 0.5])
@pytest.mark.parametrize("batch", [1, 3])
def test_inference_equals_the_session(client, session, batch, keep):
    answer = client.infer(pixels(batch), keep, id="mine")
    assert (answer.status, answer.json["id"], answer.json["model_name"]) == (200, "mine", "small")
    expected = session.run(pixels(batch), keep)
    np.testing.assert_array_equal(array(answer, "kept_ids"), expected.kept_ids)
    for name in ("last_hidden_state", "logits"):
        np.testing.assert_allclose(array(answer, name), getattr(expected, name), rtol=0, atol=1e-6)


def test_wanted_outputs_nested_data_and_whole_numbers(client, session):
    message = request(np.round(pixels(2)), 1.0)
    message["inputs"][0]["data"] = np.round(pixels(2)).astype(int).tolist()
    message["outputs"] = [{"name": "logits"}]
    answer = client.send(message)
    assert [tensor["name"] for tensor in answer.json["outputs"]] == ["logits"]
    np.testing.assert_allclose(array(answer, "logits"), session.run(np.round(pixels(2))).logits, rtol=0, atol=1e-6)


def test_metadata_and_health(client):
    assert client.ask("GET", "/v2").json["name"] == "pcae"
    assert client.ask("GET", "/v2/health/live").json == {"live": True}
    assert client.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert client.ask("GET", "/v2/models/small/ready").json == {"name": "small", "ready": True}
    described = client.ask("GET", "/v2/models/small").json
    assert [(tensor["name"], tensor["shape"]) for tensor in described["inputs"]] == [
        ("pixel_values", [-1, 3, 24, 24]),
        ("keep", []),
    ]
    assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in described["outputs"]] == [
        ("last_hidden_state", "FP32", [-1, -1, 32]),
        ("kept_ids", "INT64", [-1, -1]),
        ("logits", "FP32", [-1, 5]),
    ]
    assert_refused(client.ask("GET", "/v2/models/other"), 404, "there is no such model")
    assert_refused(client.ask("GET", "/nowhere"), 404, "Not Found")
    assert_refused(client.ask("GET", "/predict"), 405, "Method Not Allowed")


def test_pictures_as_body_and_as_form(client, session):
    image = Image.open(io.BytesIO(picture()))
    (expected,) = session.predict([image], 0.6, topk=2)
    form = b"--x\r\nContent-Disposition: form-data; name=image; filename=a.png\r\n\r\n" + picture() + b"\r\n--x--\r\n"
    for body, kind in ((picture(), "image/png"), (form, "multipart/form-data; boundary=x")):
        answer = client.ask("POST", "/predict?keep=0.6&topk=2", body, {"Content-Type": kind})
        assert answer.status == 200, answer.body
        assert answer.json["kept_ids"] == expected.kept_ids.tolist()
        assert [c["name"] for c in answer.json["classes"]] == [c.name for c in expected.classes]
        assert answer.json["classes"][0]["probability"] == pytest.approx(expected.classes[0].probability, abs=1e-6)


def changed(**fields: object) -> dict:
    message = request(pixels(1))
    message["inputs"][0] |= fields
    return message


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([], "Input should be an object"),
        ({}, "inputs: Field required"),
        ({"inputs": []}, "at least 1 item"),
        ({"inpus": []}, "inputs: Field required"),
        (request(pixels(1)) | {"outputs": [{"name": "scores"}]}, "outputs must be some of"),
        (request(pixels(5)), "with n from 1 to 4"),
        (request(pixels(1)[:0]), "with n from 1 to 4"),
        (request(pixels(1), 1.5), "keep must be in (0, 1]"),
        (request(pixels(1), 0.0), "keep must be in (0, 1]"),
        (changed(name="pixels"), "inputs must be pixel_values"),
        (changed(name="keep"), "pixel_values is required"),
        (changed(datatype="FP64"), "must have the datatype FP32"),
        (changed(shape=[1, 3, 25, 25]), "must have the shape [n, 3, 24, 24]"),
        (changed(shape=[10**30, 3, 24, 24]), "must have the shape"),
        (changed(shape=[4, 3, 24, 24], data=[0.5]), "do not fill its shape"),
        (changed(shape=[-1, 3, 24, 24]), "greater than or equal to 0"),
        (changed(shape=[1] * 1000), "at most 8 items"),
        (changed(data=None), "give either data or"),
        (changed(data=[[0.0], [0.0, 1.0]]), "nested data"),
        (changed(data=["0"] * 1728), "must be numbers"),
        (changed(data=[True] * 1728), "must be numbers"),
        (changed(data=[None] * 1728), "must be numbers"),
        (changed(data=[1e300] * 1728), "finite"),
        (changed(data=[10**400] * 1728), "beyond FP32"),
        (changed(data=[3e38] * 1728), "no finite result"),
    ],
)
def test_wrong_tensors(client, session, message, text):
    assert_refused(client.send(message), 400, text)
    assert_well(client, session)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"garbage", b'{"inputs": "\xff\xfe"}', b"[" * 1000, b'{"a":' * 1000, b"1" * 100_000,
        json.dumps(changed(data=[float("nan")] * 1728)).encode(),
        json.dumps(changed(data=[float("inf")] * 1728)).encode(),
        json.dumps({"x" * 100_000: 1}).encode(),
    ],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_garbage(client, session, body):
    assert_refused(client.post(body), 400, "")
    assert_well(client, session)


def test_wrong_content_types(client, session):
    body = json.dumps(request(pixels(1))).encode()
    assert_refused(client.post(body, {"Content-Type": "text/plain"}), 400, "application/json")
    assert_refused(client.ask("POST", "/predict", picture(), JSON), 400, "Content-Type must be an image's")
    assert_well(client, session)


def large() -> bytes:
    """A PNG of a few kB with 1000 x 1001 black pixels, one row more than FLAGS allow."""
    file = io.BytesIO()
    Image.new("1", (1000, 1001)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "cannot identify"),
        (b"garbage", "cannot identify"),
        (picture()[:-200], "cannot read"),
        (picture(kind="JPEG")[:-200], "truncated"),
        (large(), "pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
    ],
    ids=["empty", "garbage", "half a PNG", "half a JPEG", "many pixels", "EPS"],
)
def test_wrong_pictures(client, session, body, text):
    assert_refused(client.ask("POST", "/predict", body, {"Content-Type": "application/octet-stream"}), 400, text)
    assert_well(client, session)


@pytest.mark.parametrize(
    ("query", "text"),
    [("keep=2", "keep: "), ("keep=nan", "keep: "), ("keep=x", "keep: "), ("topk=0", "topk: ")],
)
def test_wrong_queries(client, query, text):
    assert_refused(client.ask("POST", f"/predict?{query}", picture(), {"Content-Type": "image/png"}), 400, text)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"garbage"),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'),
    ],
)
def test_wrong_forms(client, session, kind, body):
    assert_refused(client.ask("POST", "/predict", body, {"Content-Type": kind}), 400, "")
    assert_well(client, session)


def test_bodies_that_are_too_large(client, session):
    assert_refused(client.post(b" " * 1_000_001), 413, "larger than 1 MB")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with client.raw(head + b"Transfer-Encoding: chunked\r\n\r\n") as connection:
        for _ in range(11):
            connection.sendall(b"%x\r\n%b\r\n" % (100_000, bytes(100_000)))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    with client.raw(head + b"Content-Length: 5\r\n\r\nmore than five bytes") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    with client.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert_well(client, session)


def test_bodies_that_do_not_come(impatient):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with impatient.raw(head + b"Content-Length: 500\r\n\r\nlittle") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
    assert impatient.ask("GET", "/v2/health/ready").status == 200


def test_headers_that_do_not_come(impatient):
    client = impatient
    partial = client.raw(b"GET / HT")
    second = client.raw(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        answer += (part := second.recv(1000))
        assert part, answer
    assert answer.startswith(b"HTTP/1.1 200 ")
    with contextlib.suppress(ConnectionError):  # on a busy machine the three seconds are over
        second.sendall(b"GET /v2 HT")
    for connection in (partial, second):
        with connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""
    assert client.ask("GET", "/v2/health/ready").status == 200


def test_requests_share_batches(folder, session):
    """Two full batches, unless the machine is so slow that the first picture of one has waited ten seconds."""
    different = [np.roll(pixels(1), i, axis=3) for i in range(4)]
    flags = ("--max-batch", 4, "--max-wait-ms", 10_000)
    with services.serving(folder, *flags) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.infer, different * 2, [0.6] * 4 + [0.8] * 4))
        found = client.metrics()
    for answer, image, keep in zip(answers, different * 2, [0.6] * 4 + [0.8] * 4, strict=True):
        np.testing.assert_allclose(array(answer, "logits"), session.run(image, keep).logits, rtol=0, atol=1e-5)
    assert found["pcae_batch_images_sum",] == 8
    assert found["pcae_batch_images_count",] < 8


def test_client_that_goes_away(client, session):
    body = json.dumps(request(pixels(1), 0.9)).encode()
    head = "POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    key = ("pcae_requests_total", "/v2/models/{name}/infer", "499")
    before = client.metrics().get(key, 0)
    client.raw(whole).close()
    client.raw(whole[:-50]).close()
    assert_well(client, session)
    patience.wait_for(lambda: client.metrics().get(key, 0) == before + 2)
    found = client.metrics()
    assert found["pcae_open_requests",] == found["pcae_queue_images",] == 0


def test_metrics(client, session):
    assert_well(client, session)
    found = client.metrics()
    assert found["pcae_requests_total", "/v2/models/{name}/infer", "200"] >= 1
    assert found["pcae_request_seconds_count", "/v2/models/{name}/infer"] >= 1
    assert found["process_resident_memory_bytes",] > 1e6
    client.ask("BREW", "/a/b/c")
    names = {key[1:] for key in client.metrics() if key[0] == "pcae_requests_total"}
    assert ("none", "404") in names
    assert not any("/a/b/c" in key for key in names)
