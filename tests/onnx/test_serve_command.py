"""`pcae serve` from start to end: overload, the last requests, wrong settings in one line; and the batcher alone."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import subprocess
import sys
import threading
import zlib
from concurrent.futures import Future, ThreadPoolExecutor

import attacks
import numpy as np
import patience
import pytest
import runs
import services
from onnx_models import HEADLESS, exported, pixels
from PIL import Image
from services import assert_refused, picture

from pcae.cli import main as cli
from pcae_onnx.serving.batching import Batcher, OverloadedError
from pcae_onnx.serving.bodies import Arrivals
from pcae_onnx.serving.encodings import Unpacker
from pcae_onnx.serving.settings import Settings
from pcae_onnx.session import InferenceSession, Outputs


def wait_until_queued(client: services.Client, requests: list[Future[services.Answer]]) -> None:
    """All at once; or until one has its answer, since the queue keeps none for ever."""
    queued = ("pcae_queue_images",)
    patience.wait_for(lambda: client.metrics()[queued] >= len(requests) or any(each.done() for each in requests))


def test_overload_is_503_and_passes(folder):
    flags = ("--max-batch", 3, "--queue", 3, "--max-wait-ms", 10_000)
    with services.serving(folder, *flags) as client, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(client.infer, pixels(1), keep) for keep in (0.5, 0.6, 0.7)]
        wait_until_queued(client, waiting)
        answer = client.infer(pixels(1))
        assert_refused(answer, 503, "try again")
        assert answer.headers["Retry-After"] == "1"
        assert client.ask("GET", "/v2/health/ready").status == 200
        assert [future.result().status for future in waiting] == [200] * 3
        assert client.infer(pixels(1)).status == 200


def test_features_of_a_fixed_model_and_requests_underway_at_the_end(tmp_path):
    exported(tmp_path / "fixed", HEADLESS, keep=0.7)
    session = InferenceSession(tmp_path / "fixed", threads=1)
    with services.serving(tmp_path / "fixed", "--max-wait-ms", 5000) as client, ThreadPoolExecutor(1) as pool:
        answer = client.ask("POST", "/predict", picture(), {"Content-Type": "image/png"})
        (expected,) = session.predict([Image.open(io.BytesIO(picture()))])
        assert answer.json["features"]["shape"] == list(expected.last_hidden_state.shape)
        np.testing.assert_allclose(answer.json["features"]["cls"], expected.last_hidden_state[0], atol=1e-6)
        refused = client.ask("POST", "/predict?keep=0.5", picture(), {"Content-Type": "image/png"})
        assert_refused(refused, 400, "is fixed at 0.7")
        assert_refused(client.infer(pixels(1), 0.5), 400, "inputs must be pixel_values")
        underway = pool.submit(client.infer, pixels(1))
        wait_until_queued(client, [underway])
        client.process.send_signal(signal.SIGINT)
        assert underway.result().status == 200


@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=lambda attack: attack.__name__)
def test_good_requests_are_answered_under_attack(attacked, attack):
    client, memory = attacked
    found = attacks.under(client, attack, seconds=0.8, connections=300)
    assert not found.failures, found
    assert found.memory_mb < memory + 100, found


@pytest.fixture(scope="module")
def attacked(folder):
    with services.serving(folder, "--read-timeout", 600, "--max-body-mb", 1, "--max-pixels", 10**6) as client:
        assert client.infer(pixels(1)).status == 200
        yield client, client.metrics()["process_resident_memory_bytes",] / 1e6


def test_batcher_keeps_order_ratios_and_bounds():
    go, seen = threading.Event(), []

    def run(images: np.ndarray, keep: float | None) -> Outputs:
        go.wait(patience.SECONDS)
        seen.append((images[:, 0].tolist(), keep))
        if keep == 0.1:
            raise ValueError("broken")
        return Outputs(images, images.astype(np.int64), None)

    batcher = Batcher(run, max_batch=3, max_wait=0.0, queue=6, on_batch=lambda images, seconds: None)
    first = batcher.submit(np.full((1, 1), 0.0), 0.5)
    patience.wait_for(lambda: not batcher.images_waiting)
    futures = [batcher.submit(np.full((1, 1), i), keep) for i, keep in enumerate([0.5, 0.9, 0.5, 0.1, 0.5, 0.5], 1)]
    with pytest.raises(OverloadedError, match="too many pictures"):
        batcher.submit(np.zeros((1, 1)), 0.5)
    assert futures[2].cancel()
    last = batcher.submit(np.full((1, 1), 7.0), 0.5)
    go.set()
    assert [future.result().last_hidden_state.item() for future in (first, *futures[:2], *futures[4:], last)] == [
        0, 1, 2, 5, 6, 7,
    ]  # fmt: skip
    assert str(futures[3].exception()) == "broken"
    assert seen == [([0], 0.5), ([1, 5, 6], 0.5), ([2], 0.9), ([4], 0.1), ([7], 0.5)]
    batcher.close()
    assert not batcher.ready
    with pytest.raises(OverloadedError, match="shutting down"):
        batcher.submit(np.zeros((1, 1)), 0.5)


@pytest.mark.parametrize("encoding", ["", "deflate"])
def test_bodies_that_arrive_together_are_bounded(encoding):
    """Seventeen of the largest size: the largest makes room, small ones come through; those refused take none."""
    arrivals, slow = Arrivals(Settings(max_body_mb=0.001, read_timeout=60.0)), 0

    async def body(size: int, done: asyncio.Event):
        nonlocal slow
        packer = zlib.compressobj() if encoding else None
        yield packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH) if packer else bytes(size)
        slow += 1
        await done.wait()
        yield packer.compress(b"end") + packer.flush() if packer else b"end"

    async def arrive() -> list[object]:
        def read(size: int) -> asyncio.Future[bytes]:
            return asyncio.ensure_future(arrivals.read(body(size, done), Unpacker(encoding)))

        done = asyncio.Event()
        refused = await asyncio.gather(*(read(1001) for _ in range(20)), return_exceptions=True)
        assert [error.status_code for error in refused] == [413] * 20
        sizes = (995, *[990] * 15, 500, 10)
        reading = [read(size) for size in sizes]
        while slow < len(sizes):
            await asyncio.sleep(0)
        done.set()
        return await asyncio.gather(*reading, return_exceptions=True)

    first, *others = asyncio.run(arrive())
    assert isinstance(first, TimeoutError)
    assert [len(body) for body in others] == [993] * 15 + [503, 13]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--queue", "3"], "--queue must be from 16 (--max-batch) to"),
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--max-wait-ms", "nan"], "--max-wait-ms must be from 0"),
        (["--host", "300.0.0.1"], "cannot listen on 300.0.0.1"),
        (["--host", "a..b"], "'a..b' is not the name of a host"),
        (["--provider", "abacus"], "unknown provider"),
    ],
)
def test_wrong_settings_are_one_line(folder, capsys, flags, message):
    assert cli.run(["serve", str(folder), *flags]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_port_that_is_taken(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.run(["serve", str(folder), "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in capsys.readouterr().err


def test_missing_packages_name_the_extra(folder):
    code = (
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name in ('uvicorn', 'fastapi') else find(name, *rest)\n"
        "from pcae.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "serve", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=runs.environment())
    assert done.returncode == 2
    assert 'the service needs fastapi, uvicorn, which is not installed: pip install "pcae[serve]"' in done.stderr
    assert done.stderr.count("\n") == 1
