"""What bodies `pcae serve` takes: binary tensors, packed bodies, odd fields; versions of a model, HEAD."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
import services
from onnx_models import pixels
from services import JSON, LENGTH, array, assert_refused, picture, request

IMAGE = {"Content-Type": "image/png"}
INFER = "/v2/models/small/infer"


@pytest.fixture(scope="module")
def client(folder):
    with services.serving(folder, "--max-batch", 4, "--max-body-mb", 1, "--read-timeout", 600) as client:
        yield client


def assert_right(answer, session, keep: float = 0.7) -> None:
    """The answer to a request with `pixels(2)`."""
    assert answer.status == 200, answer.body
    expected = session.run(pixels(2), keep)
    np.testing.assert_array_equal(array(answer, "kept_ids"), expected.kept_ids)
    np.testing.assert_allclose(array(answer, "logits"), expected.logits, rtol=0, atol=1e-6)


def good(**fields: object) -> tuple[bytes, dict[str, str]]:
    return services.binary_request(request(pixels(2), 0.7) | fields)


def test_bytes_in_and_out(client, session):
    for fields in (
        {},
        {"parameters": {"binary_data_output": False}},
        {"parameters": None, "outputs": None, "id": None},
    ):
        answer = client.post(*good(**fields))
        assert_right(answer, session)
        assert LENGTH not in answer.headers
        assert answer.headers["Content-Type"] == "application/json"
    chosen = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "kept_ids"}]
    for fields in ({"outputs": chosen}, {"outputs": [chosen[0], {"name": "kept_ids", "parameters": None}]}):
        answer = client.post(*good(**fields))
        assert_right(answer, session)
        assert len(answer.body) == int(answer.headers[LENGTH]) + 2 * 5 * 4
        assert answer.headers["Content-Type"] == "application/octet-stream"
    every = {"parameters": {"binary_data_output": True}}
    answer = client.post(
        *good(**every, outputs=[{"name": "logits", "parameters": {"binary_data": False}}, *chosen[1:]])
    )
    assert_right(answer, session)
    assert len(answer.body) == int(answer.headers[LENGTH]) + answer.json["outputs"][1]["parameters"]["binary_data_size"]


def test_bytes_and_json_in_one_request_in_any_order(client, session):
    whole = request(pixels(2), 0.7)
    body = whole["inputs"][0]["data"]
    for order in (1, -1):
        inputs = [dict(tensor) for tensor in whole["inputs"]]
        del inputs[0]["data"]
        inputs[0]["parameters"] = {"binary_data_size": 4 * len(body)}
        head = json.dumps({"inputs": inputs[::order]}).encode()
        answer = client.post(head + np.array(body, "<f4").tobytes(), {LENGTH: str(len(head))})
        assert_right(answer, session)
    both, header = services.binary_request({"inputs": whole["inputs"][::-1]})
    assert_right(client.post(both, header), session)


def test_half_precision(client, session):
    message = request(pixels(2).astype(np.float16), 0.7)
    message["inputs"][0]["datatype"] = "FP16"
    answer = client.post(*services.binary_request(message))
    expected = session.run(pixels(2).astype(np.float16), 0.7)
    np.testing.assert_allclose(array(answer, "logits"), expected.logits, rtol=0, atol=1e-6)
    assert_refused(client.send(message), 400, "in JSON must have the datatype FP32")


def changed(name: str, **fields: object) -> tuple[bytes, dict[str, str]]:
    """A good binary request with fields of one input replaced, or taken away where they are None."""
    body, header = good()
    head, rest = body[: int(header[LENGTH])], body[int(header[LENGTH]) :]
    message = json.loads(head)
    (tensor,) = [tensor for tensor in message["inputs"] if tensor["name"] == name]
    tensor |= fields
    for field in [field for field, value in fields.items() if value is None]:
        del tensor[field]
    head = json.dumps(message).encode()
    return head + rest, {LENGTH: str(len(head))}


def sized(size: object) -> dict[str, object]:
    return {"parameters": {"binary_data_size": size}}


SIZE = 2 * 3 * 24 * 24 * 4


@pytest.mark.parametrize(
    ("body", "header", "text"),
    [
        (*changed("pixel_values", **sized(SIZE - 4)), "make 13824 bytes, but 13828 follow the JSON"),
        (*changed("pixel_values", **sized(10**30)), "follow the JSON"),
        (*changed("pixel_values", **sized(-1)), "greater than or equal to 0"),
        (*changed("pixel_values", **sized("6912")), "valid integer"),
        (*changed("pixel_values", **sized(True)), "valid integer"),
        (*changed("pixel_values", parameters=None), "give either data or the parameter binary_data_size"),
        (*changed("pixel_values", data=[0.0]), "give either data or the parameter binary_data_size"),
        (*changed("pixel_values", parameters={"shared_memory_region": "x"}), "does not have it"),
        (*changed("pixel_values", datatype="FP64"), "must have the datatype FP32 or FP16, not FP64"),
        (*changed("pixel_values", datatype="FP16"), "takes 6912 bytes of FP16, not 13824"),
        (*changed("pixel_values", datatype="BYTES"), "must have the datatype FP32 or FP16, not BYTES"),
        (*changed("pixel_values", shape=[1, 3, 24, 24]), "takes 6912 bytes of FP32, not 13824"),
        (*changed("pixel_values", shape=[2, 3, 24, 25]), "must have the shape"),
        (*changed("keep", shape=[2]), "keep must have the shape"),
        (good()[0] + b"x", good()[1], "13828 bytes, but 13829 follow the JSON"),
        (good()[0][:-1], good()[1], "13828 bytes, but 13827 follow the JSON"),
        (good()[0], {}, "Invalid JSON"),
        (good()[0], {LENGTH: "0"}, "Invalid JSON"),
        (good()[0], {LENGTH: "9"}, "Invalid JSON"),
        (good()[0], {LENGTH: "99999999"}, "is 99999999, but the body has"),
        (good()[0], {LENGTH: "9" * 5000}, "must be a number of bytes"),
        (good()[0], {LENGTH: "-1"}, "must be a number of bytes"),
        (good()[0], {LENGTH: "1e2"}, "must be a number of bytes"),
        (good()[0], {LENGTH: ""}, "must be a number of bytes"),
        (good()[0], {"Content-Type": "application/octet-stream"}, "whose length the header"),
        (json.dumps(request(pixels(2))).encode(), {"Content-Type": "text/plain"}, "must be application/json"),
        (*services.binary_request(request(pixels(2) * np.nan)), "must be finite"),
        (*services.binary_request(request(pixels(2), np.inf)), "must be finite"),
        (*good(parameters={"binary_data_output": "yes"}), "valid boolean"),
        (*good(outputs=[{"name": "logits", "parameters": {"classification": 3}}]), "does not have it"),
    ],
)  # fmt: skip
def test_wrong_bytes(client, body, header, text):
    assert_refused(client.post(body, header), 400, text)


def test_bytes_that_are_only_json(client, session):
    """A length that is the whole body's, as some clients send it."""
    body = json.dumps(request(pixels(2), 0.7)).encode()
    for kind in ({}, JSON, {"Content-Type": "application/octet-stream"}):
        assert_right(client.post(body, {LENGTH: str(len(body))} | kind), session)
    assert_refused(client.post(body, {LENGTH: str(len(body) - 1)}), 400, "Invalid JSON")


def test_unknown_fields_and_parameters_are_ignored(client, session):
    message = request(pixels(2), 0.7) | {
        "model_name": "other",
        "model_version": "7",
        "inpus": 1,
        "parameters": {"a": 1},
    }
    message["inputs"][0]["parameters"] = {"mine": "x"}
    message["outputs"] = [{"name": name, "parameters": {"mine": 1}} for name in ("logits", "kept_ids")]
    answer = client.send(message | {"id": "mine"})
    assert_right(answer, session)
    assert (answer.json["id"], answer.json["model_name"], answer.json["model_version"]) == ("mine", "small", "1")
    assert len(client.send(message | {"outputs": []}).json["outputs"]) == 3
    message["inputs"][0]["shapes"] = [1]
    assert_refused(client.send(message), 400, "inputs.0.shapes: Extra inputs")


def test_no_content_type(client, session):
    body = json.dumps(request(pixels(2), 0.7)).encode()
    assert_right(client.post(body, {}), session)
    assert client.ask("POST", "/predict", picture(), {}).status == 200
    curls = {"Content-Type": "application/x-www-form-urlencoded"}
    for answer in (client.post(body, curls), client.ask("POST", "/predict", picture(), curls)):
        assert_refused(answer, 400, "not 'application/x-www-form-urlencoded'")


@pytest.mark.parametrize("parts", [("image", "keep"), ("keep",), ("image", "image"), ()])
def test_forms_of_more_or_less_than_a_file(client, parts):
    head = 'Content-Disposition: form-data; name="{}"{}\r\n\r\n'
    kinds = {"image": ('; filename="a.png"', picture()), "keep": ("", b"0.5")}
    body = b"".join(
        b"--x\r\n" + head.format(name, kinds[name][0]).encode() + kinds[name][1] + b"\r\n" for name in parts
    )
    answer = client.ask("POST", "/predict", body + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"})
    assert_refused(answer, 400, "the form must hold one file and nothing else; keep and topk go into the address")


def test_versions(client, session):
    model = "/v2/models/small/versions/1"
    assert client.ask("GET", model).json == client.ask("GET", "/v2/models/small").json
    assert client.ask("GET", model).json["versions"] == ["1"]
    assert client.ask("GET", f"{model}/ready").json == {"name": "small", "ready": True}
    assert_right(client.ask("POST", f"{model}/infer", *good()), session)
    for rest in ("", "/ready"):
        assert_refused(client.ask("GET", f"/v2/models/small/versions/2{rest}"), 404, "'small' has version 1")
    assert_refused(client.ask("POST", "/v2/models/small/versions/0/infer", *good()), 404, "'small' has version 1")
    assert_refused(client.ask("GET", "/v2/models/other/versions/1"), 404, "there is no such model")


def test_head_asks_for_health(client):
    model = "/v2/models/small"
    for path in ("/v2/health/live", "/v2/health/ready", f"{model}/ready", f"{model}/versions/1/ready"):
        answer = client.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
    assert client.ask("HEAD", "/v2/models/other/ready").status == 404


PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "x-gzip": gzip.compress,
    "identity": bytes,
    "GZIP": gzip.compress,
}


@pytest.mark.parametrize("encoding", PACKERS)
def test_packed_bodies(client, session, encoding):
    body, header = good()
    packed = {"Content-Encoding": encoding}
    assert_right(client.post(PACKERS[encoding](body), header | packed), session)
    assert_right(client.post(PACKERS[encoding](json.dumps(request(pixels(2), 0.7)).encode()), packed), session)
    assert client.ask("POST", "/predict", PACKERS[encoding](picture()), IMAGE | packed).status == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status", "text"),
    [
        (b"{}", "br", 415, "the Content-Encoding must be gzip or deflate, not 'br'"),
        (b"{}", "gzip, gzip", 415, "the Content-Encoding must be gzip or deflate"),
        (b"{}", "x" * 1000, 415, "the Content-Encoding must be gzip or deflate"),
        (b"{}", "gzip", 400, "cannot be read as gzip, its Content-Encoding"),
        (b"", "gzip", 400, "its end is missing"),
        (gzip.compress(b"{}")[:-1], "gzip", 400, "its end is missing"),
        (gzip.compress(b"{}")[:-8] + bytes(8), "gzip", 400, "or damaged"),
        (gzip.compress(b"{}") + b"x", "gzip", 400, "there is more after its end"),
        (gzip.compress(b"{}"), "deflate", 400, "cannot be read as deflate"),
        (zlib.compress(b"{}"), "gzip", 400, "cannot be read as gzip"),
        (gzip.compress(b" " * 999_998 + b"{}"), "gzip", 400, "inputs: Field required"),
        (gzip.compress(b" " * 1_000_001), "gzip", 413, "larger than 1 MB, or is so once it is unpacked"),
        (zlib.compress(bytes(20_000_000)), "deflate", 413, "larger than 1 MB, or is so once it is unpacked"),
        (gzip.compress(gzip.compress(bytes(5_000_000))), "gzip", 400, "Invalid JSON"),
    ],
    ids=range(14),
)  # fmt: skip
def test_wrong_packed_bodies(client, session, body, encoding, status, text):
    answer = client.post(body, {"Content-Encoding": encoding})
    assert_refused(answer, status, text)
    assert (answer.headers["Accept-Encoding"] == "gzip, deflate") == (status == 415)
    assert_right(client.post(*good()), session)


def test_packed_bytes_that_unpack_to_nothing_are_counted(client):
    """Empty blocks without end, of a length that nothing says."""
    packer = zlib.compressobj()
    start = packer.compress(b"") + packer.flush(zlib.Z_SYNC_FLUSH)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n"
    with client.raw(head.encode() + b"%x\r\n%b\r\n" % (len(start), start)) as connection:
        for _ in range(11):
            connection.sendall(b"%x\r\n%b\r\n" % (100_000, b"\0\0\0\xff\xff" * 20_000))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
