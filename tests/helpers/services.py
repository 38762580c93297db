"""`pcae serve` in a process of its own, and a plain client for it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import patience
import runs
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

LENGTH = "Inference-Header-Content-Length"
JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    status: int
    body: bytes
    headers: http.client.HTTPMessage

    @property
    def json(self) -> Any:
        """All of the body, or what its header says comes before binary tensors."""
        length = self.headers[LENGTH]
        return json.loads(self.body if length is None else self.body[: int(length)])


@dataclass
class Client:
    """Of one service; each request is a connection of its own."""

    process: subprocess.Popen[str]
    name: str
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience.SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), answer.headers)

    def infer(self, pixels: np.ndarray, keep: float | None = None, **fields: object) -> Answer:
        return self.send(request(pixels, keep) | fields)

    def send(self, message: object) -> Answer:
        return self.post(json.dumps(message).encode())

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("POST", f"/v2/models/{self.name}/infer", body, JSON if headers is None else headers)

    def raw(self, data: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=patience.SECONDS)
        connection.sendall(data)
        return connection

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Value by (name, label values ...)."""
        text = self.ask("GET", "/metrics").body.decode()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def request(pixels: np.ndarray, keep: float | None = None) -> dict[str, Any]:
    """A request for inference as the protocol has it."""
    inputs = [
        {
            "name": "pixel_values",
            "shape": list(pixels.shape),
            "datatype": "FP32",
            "data": pixels.ravel().tolist(),
        }
    ]
    if keep is not None:
        inputs.append({"name": "keep", "shape": [], "datatype": "FP32", "data": [keep]})
    return {"inputs": inputs}


def binary_request(message: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """The same request with its values as bytes after the JSON; the body and its header."""
    inputs, parts = [], []
    for tensor in message["inputs"]:
        fields = dict(tensor)
        values = fields.pop("data")
        parts.append(np.array(values, {"FP16": "<f2"}.get(tensor["datatype"], "<f4")).tobytes())
        inputs.append(fields | {"parameters": {"binary_data_size": len(parts[-1])}})
    head = json.dumps(message | {"inputs": inputs}).encode()
    return b"".join([head, *parts]), {LENGTH: str(len(head))}


def array(answer: Answer, name: str) -> np.ndarray:
    """One output tensor of an answer."""
    start = int(answer.headers[LENGTH] or 0)
    for tensor in answer.json["outputs"]:
        dtype = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}[tensor["datatype"]]
        size = tensor.get("parameters", {}).get("binary_data_size", 0)
        if tensor["name"] == name:
            flat = (
                np.array(tensor["data"], dtype)
                if not size
                else np.frombuffer(answer.body[start:], dtype, size // dtype.itemsize)
            )
            return flat.reshape(tensor["shape"])
        start += size
    raise AssertionError(f"the answer has no {name}")


def assert_refused(answer: Answer, status: int, message: str) -> None:
    """One short line of JSON."""
    assert answer.status == status, answer.body
    assert list(answer.json) == ["error"]
    assert message in answer.json["error"]
    assert len(answer.json["error"]) < 320


def picture(size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


@contextlib.contextmanager
def serving(model: Path, *flags: object) -> Iterator[Client]:
    """Start, hand over once it listens, stop by SIGTERM and check that it ends well."""
    with runs.start("serve", model, "--port", 0, "--threads", 1, *flags) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("serving "), process.communicate()[1]
            yield Client(process, line.split()[1], int(line.rpartition(":")[2]))
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=patience.SECONDS)
            assert (process.returncode, out, err) == (0, "", ""), (process.returncode, out, err)
        finally:
            process.kill()
