"""`pcae serve` under load: throughput, latency, answers by status, and memory, with wrong requests mixed in.

    python benchmarks/serving.py [--model vit_small_patch16_224] [--seconds 60] [--clients 8] [--keep 0.7]
                                 [--max-batch 16] [--queue 64] [--threads 1] [--growth-mb 48]

Weights are random. First each kind of request is sent alone: its size and the time to its answer. Then, of ten
requests, three are tensors in JSON, three tensors in bytes, three a JPEG file, one is wrong in one of several ways.
Exits with 1 when an answer is neither the expected one nor 503, or when the service's memory grew by more than
`--growth-mb` between the end of the warm-up (the first quarter) and the end.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import io
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
import services

from pcae_core import parameters
from pcae_core.config import DataConfig, ModelConfig
from pcae_onnx import export

WAIT_AFTER_503 = 0.05


@dataclass(frozen=True)
class Request:
    path: str
    body: bytes
    headers: dict[str, str]
    expected: int = 200


def kind(media_type: str) -> dict[str, str]:
    return {"Content-Type": media_type}


def good_requests(config: ModelConfig, keep: float, name: str) -> dict[str, Request]:
    shape = (1, config.in_chans, config.image_size, config.image_size)
    pixels = np.random.default_rng(0).normal(size=shape).round(4).astype(np.float32)
    message = services.request(pixels, keep)
    infer = f"/v2/models/{name}/infer"
    as_json = message | {"outputs": [{"name": "kept_ids"}, {"name": "last_hidden_state"}]}
    as_bytes = services.binary_request(as_json | {"parameters": {"binary_data_output": True}})
    return {
        "JSON": Request(infer, json.dumps(as_json).encode(), kind("application/json")),
        "bytes": Request(infer, *as_bytes),
        "JPEG": Request(f"/predict?keep={keep}", jpeg(), kind("image/jpeg")),
    }


def wrong_requests(config: ModelConfig, name: str) -> list[Request]:
    infer = f"/v2/models/{name}/infer"
    shape = [1, config.in_chans, config.image_size + 1, config.image_size]
    wrong_shape = {"inputs": [{"name": "pixel_values", "shape": shape, "datatype": "FP32", "data": [0.0]}]}
    large = io.BytesIO()
    Image.new("1", (1001, 1000)).save(large, "PNG")
    too_long = zlib.compress(bytes(20_000_000))
    return [
        Request(infer, b"garbage", kind("application/json"), 400),
        Request(infer, b"[" * 1000, kind("application/json"), 400),
        Request(infer, json.dumps(wrong_shape).encode(), kind("application/json"), 400),
        Request(infer, b"{}", kind("text/plain"), 400),
        Request(infer, bytes(100), {services.LENGTH: "50"}, 400),
        Request(infer, too_long, {"Content-Encoding": "deflate"}, 413),
        Request("/predict", jpeg()[:-5000], kind("image/jpeg"), 400),
        Request("/predict", large.getvalue(), kind("image/png"), 400),
        Request("/predict", bytes(17_000_000), kind("image/png"), 413),
        Request("/predict?keep=7", jpeg(), kind("image/jpeg"), 400),
    ]


def jpeg() -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).resize((640, 480)).save(file, "JPEG")
    return file.getvalue()


class Load:
    """Clients that ask as fast as they are answered."""

    def __init__(self, port: int, good: dict[str, Request], wrong: list[Request], until: float) -> None:
        self.port, self.good, self.wrong, self.until = port, list(good.values()) * 3, wrong, until
        self.statuses: collections.Counter[int] = collections.Counter()
        self.seconds: list[float] = []
        self.failures: collections.Counter[str] = collections.Counter()
        self.lock = threading.Lock()

    def client(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        count = number
        while time.monotonic() < self.until:
            count += 1
            turn, rest = divmod(count, len(self.good) + 1)
            self.ask(connection, self.good[rest] if rest < len(self.good) else self.wrong[turn % len(self.wrong)])
        connection.close()

    def ask(self, connection: http.client.HTTPConnection, request: Request) -> None:
        start = time.monotonic()
        try:
            connection.request("POST", request.path, request.body, request.headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            with self.lock:
                self.failures[f"{request.path}: {error!r}"] += 1
            return
        with self.lock:
            self.statuses[answer.status] += 1
            if answer.status == 200:
                self.seconds.append(time.monotonic() - start)
            if answer.status not in (request.expected, 503):
                self.failures[f"{request.path}: {answer.status}, not {request.expected}"] += 1
        if answer.status == 503:
            time.sleep(WAIT_AFTER_503)


def one_at_a_time(port: int, good: dict[str, Request], times: int = 20) -> None:
    """Print the size of each kind of request, and how long its answer takes while nobody else asks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for name, request in good.items():
        seconds = []
        for _ in range(times):
            start = time.monotonic()
            connection.request("POST", request.path, request.body, request.headers)
            connection.getresponse().read()
            seconds.append(time.monotonic() - start)
        print(f"{name}: {len(request.body) / 1e6:.2f} MB, {1000 * np.median(seconds):.0f} ms alone")
    connection.close()


def memory(process: subprocess.Popen[str]) -> float:
    """Resident megabytes."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kilobytes) / 1000


def run(load: Load, process: subprocess.Popen[str], chosen: argparse.Namespace) -> bool:
    """Ask, print, and say whether all was well."""
    at_start, start = memory(process), time.monotonic()
    threads = [threading.Thread(target=load.client, args=(7 * i,)) for i in range(chosen.clients)]
    for thread in threads:
        thread.start()
    time.sleep(chosen.seconds / 4)
    warm = memory(process)
    for thread in threads:
        thread.join()
    took, at_end = time.monotonic() - start, memory(process)
    p50, p99 = (1000 * np.percentile(load.seconds or [np.nan], share) for share in (50, 99))
    print(f"{chosen.clients} clients, {took:.0f} s: {len(load.seconds) / took:.1f} good answers/s")
    print(f"latency of good answers: p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {1000 * max(load.seconds):.0f} ms")
    print("answers by status: " + ", ".join(f"{status}: {n}" for status, n in sorted(load.statuses.items())))
    print(f"memory: {at_start:.0f} MB at the start, {warm:.0f} after the warm-up, {at_end:.0f} at the end")
    for text, count in load.failures.items():
        print(f"FAILED {count} x {text}")
    if at_end - warm > chosen.growth_mb:
        print(f"FAILED: memory grew by {at_end - warm:.0f} MB, more than {chosen.growth_mb}")
    return not load.failures and at_end - warm <= chosen.growth_mb


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--keep", type=float, default=0.7)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--growth-mb", type=float, default=48)
    chosen = parser.parse_args()
    config = ModelConfig.preset(chosen.model)
    with tempfile.TemporaryDirectory() as folder:
        weights = parameters.initial_parameters(config, seed=0)
        name = export.export(config, DataConfig(), weights, Path(folder), export.Options(keep=None)).info.name
        flags = {"--port": 0, "--threads": chosen.threads, "--max-batch": chosen.max_batch, "--queue": chosen.queue}
        flags["--max-pixels"] = 1_000_000
        command = [sys.executable, "-m", "pcae.cli", "serve", folder]
        command += [str(text) for flag in flags.items() for text in flag]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            good, wrong = good_requests(config, chosen.keep, name), wrong_requests(config, name)
            one_at_a_time(port, good)
            fine = run(Load(port, good, wrong, time.monotonic() + chosen.seconds), process, chosen)
            process.send_signal(signal.SIGTERM)
        print(f"exit code after SIGTERM: {process.returncode}")
    return 0 if fine and process.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
