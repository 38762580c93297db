"""The kserve client, unchanged, against `pcae serve`: health, tensors in JSON and in bytes, errors.

    make bench-clients
    python benchmarks/kserve_client.py [--python .venv-kserve/bin/python] [--record tests/recorded/kserve]

Prints what the client said of each call, and exits with 1 when an answer is not that of the session. `--record` writes
down the bytes of each request that the client sends, which tests/onnx/test_serve_clients.py sends again.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
import services
from onnx_models import exported, pixels

from pcae_onnx.session import InferenceSession

PYTHON = Path(__file__).parents[1] / ".venv-kserve" / "bin" / "python"
HEALTH = {"live": True, "ready": True, "model-ready": True, "other-ready": False}


class Recorder:
    """Hands each connection on to a service, and keeps what the client sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            service = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._hand_on, args=(service, client), daemon=True).start()
            self.sent.append(self._hand_on(client, service))

    @staticmethod
    def _hand_on(source: socket.socket, target: socket.socket) -> bytes:
        seen = b""
        while data := source.recv(65_536):
            seen += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
        return seen


def right(said: dict, results: dict[str, np.ndarray], session: InferenceSession) -> bool:
    """Whether the client met what it should."""
    fine = {name: said[name] for name in HEALTH} == HEALTH
    fine = fine and "pixel_values must have the shape [n, 3, 24, 24]" in said["wrong-shape"]
    fine = fine and "keep must be in (0, 1], not 1.5" in said["wrong-keep"]
    for name, values in results.items():
        call, _, output = name.partition("/")
        given = np.round(pixels(1))
        expected = getattr(session.run(given, 1.0 if call == "json-in" else 0.7), output)
        close = np.allclose(values.reshape(expected.shape), expected, rtol=0, atol=1e-5)
        fine = fine and said[call] == call and close
    return fine and len(results) == 17


def record(requests: list[bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for request in requests:
        if request.startswith(b"POST"):
            name = json.loads(request.partition(b'{"id":')[2].partition(b",")[0])
            (folder / f"{name}.http").write_bytes(request)
        else:
            (folder / "health.http").write_bytes(request)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=PYTHON)
    parser.add_argument("--record", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exported(folder / "small", keep=None)
        np.save(folder / "pixels.npy", np.round(pixels(1)))
        with services.serving(folder / "small") as client:
            recorder = Recorder(client.port)
            url = f"http://localhost:{recorder.port}"
            script = [chosen.python, Path(__file__).with_name("kserve_requests.py")]
            command = [*script, url, client.name, folder / "pixels.npy", folder / "results.npz"]
            done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
        said = json.loads(done.stdout)
        for call, text in said.items():
            print(f"{call:<12} {text}")
        with np.load(folder / "results.npz") as results:
            fine = right(said, dict(results), InferenceSession(folder / "small", threads=1))
    if chosen.record:
        record(recorder.sent, chosen.record)
    print("all answers are right" if fine else "FAILED: an answer is wrong")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
