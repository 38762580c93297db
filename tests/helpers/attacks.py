"""Clients that mean harm to `pcae serve`, beside one that asks good requests."""

from __future__ import annotations

import contextlib
import gzip
import json
import selectors
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import services
from fuzz import mutation, pictures
from fuzz.kind import choose, stream
from onnx_models import pixels

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
GOOD_EVERY_SECONDS = 0.1
GROWN = (5_000_000, 20_000_000)
"""Bytes that some bodies unpack to; the services under attack take fewer."""


@dataclass
class Found:
    """What a good client met while an attack went on.

    Attributes:
        good: seconds of each good request.
        answers: of the attack, by status; 0 where the connection was closed without a word.
        failures: what must not be.
        memory_mb: of the service at its end.
    """

    good: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    memory_mb: float = 0.0

    def __str__(self) -> str:
        p50, p99 = (1000 * np.percentile(self.good or [np.nan], share) for share in (50, 99))
        answers = ", ".join(f"{status or 'closed'}: {count}" for status, count in sorted(self.answers.items()))
        line = f"{len(self.good)} good answers, p50 {p50:.0f} ms, p99 {p99:.0f} ms; {self.memory_mb:.0f} MB; {answers}"
        return "\n".join([line, *(f"  FAILED {failure}" for failure in self.failures[:5])])


Attack = Callable[[services.Client, float, int, Counter], None]


def under(client: services.Client, attack: Attack, seconds: float, connections: int) -> Found:
    """Ask good requests while `attack` goes on for so long."""
    found, over = Found(), threading.Event()
    asking = threading.Thread(target=_ask, args=(client, found, over))
    asking.start()
    try:
        attack(client, time.monotonic() + seconds, connections, found.answers)
    finally:
        over.set()
        asking.join()
    if client.process.poll() is not None:
        found.failures.append(f"the service ended with {client.process.returncode}")
        return found
    found.memory_mb = client.metrics()["process_resident_memory_bytes",] / 1e6
    if found.answers[500]:
        found.failures.append(f"{found.answers[500]} answers are 500")
    if not found.good:
        found.failures.append("no good request was answered")
    return found


def _ask(client: services.Client, found: Found, over: threading.Event) -> None:
    while True:  # once at least, however short the attack
        start = time.monotonic()
        try:
            answer = client.infer(pixels(1), 0.7, outputs=[{"name": "kept_ids"}])
            if answer.status != 200:
                found.failures.append(f"a good request got {answer.status}: {answer.body[:200]!r}")
            found.good.append(time.monotonic() - start)
        except Exception as error:  # a refused or closed connection, no answer in time
            found.failures.append(f"a good request met {error!r}")
        if over.wait(GOOD_EVERY_SECONDS):
            return


def hostile_bodies(client: services.Client, until: float, connections: int, answers: Counter[int]) -> None:
    """The fuzzer's pictures and JSON, one after another."""
    message, number = services.request(pixels(1), 0.7), 0
    message["inputs"][0] |= {"shape": [1, 3, 24, 24]}
    while time.monotonic() < until:
        rng, number = stream("service", number, 0), number + 1
        if rng.random() < 0.6:
            answer = client.ask("POST", "/predict", pictures.hostile(rng)[0], {"Content-Type": "image/png"})
        elif rng.random() < 0.5:
            answer = client.post(mutation.json_text(rng, message))
        else:
            answer = client.post(mutation.mutated(rng, json.dumps(message).encode()))
        answers[answer.status] += 1


def hostile_tensors(client: services.Client, until: float, connections: int, answers: Counter[int]) -> None:
    """Binary tensors and packed bodies, each a little wrong, one after another."""
    good = services.request(pixels(1), 0.7) | {"parameters": {"binary_data_output": True}}
    body, header = services.binary_request(good)
    length, number = int(header[services.LENGTH]), 0
    while time.monotonic() < until:
        rng, number = stream("tensors", number, 0), number + 1
        head = mutation.json_text(rng, json.loads(body[:length])) if rng.random() < 0.6 else body[:length]
        rest = mutation.mutated(rng, body[length:]) if rng.random() < 0.5 else body[length:]
        told = choose(rng, (len(head), len(head), len(head), choose(rng, mutation.NUMBERS), "", "x", "1e3"))
        encoding = choose(rng, ("", "gzip", "deflate", "gzip, gzip", "br"))
        sent = packed(head + rest, encoding)
        sent = mutation.mutated(rng, sent) if rng.random() < 0.3 else sent
        headers = {services.LENGTH: str(told)} | ({"Content-Encoding": encoding} if encoding else {})
        answers[client.post(sent, headers).status] += 1


def packed(body: bytes, encoding: str) -> bytes:
    """Packed as `encoding` says, where it is one that the service takes."""
    return {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(body)


def growing_bodies(client: services.Client, until: float, connections: int, answers: Counter[int]) -> None:
    """Small bodies that are larger than allowed once unpacked, and others that are just not, eight at a time."""
    plain = json.dumps(services.request(pixels(1), 0.7)).encode()
    bodies = [packed(plain + b" " * size, "gzip") for size in (900_000 - len(plain), *GROWN)]

    def send(number: int) -> None:
        while time.monotonic() < until:
            answers[client.post(bodies[number % len(bodies)], {"Content-Encoding": "gzip"}).status] += 1
            number += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))


def slow_headers(client: services.Client, until: float, connections: int, answers: Counter[int]) -> None:
    """Headers that never end, on all connections at once."""
    _drip(client, until, connections, answers, lambda sent: (HEAD + b"X-A: " + b"b" * 10**6)[sent : sent + 1])


def slow_bodies(client: services.Client, until: float, connections: int, answers: Counter[int]) -> None:
    """Bodies that never end, on all connections at once."""
    start = HEAD + b"Content-Length: 1000000\r\n\r\n"
    _drip(client, until, connections, answers, lambda sent: b"x" if sent else start)


def silence(client: services.Client, until: float, connections: int, answers: Counter[int]) -> None:
    """Connections without a word."""
    _drip(client, until, connections, answers, lambda sent: b"")


def large_headers(client: services.Client, until: float, connections: int, answers: Counter[int]) -> None:
    """A megabyte of headers, many at once."""
    _drip(
        client, until, connections // 10, answers, lambda sent: (HEAD + b"X-A: " + b"b" * 10**6)[sent : sent + 65_536]
    )


def unread_answers(client: services.Client, until: float, connections: int, answers: Counter[int]) -> None:
    """Many requests on each connection, and answers that nobody takes."""
    body = json.dumps(services.request(pixels(1), 0.7)).encode()
    head = f"POST /v2/models/{client.name}/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with contextlib.ExitStack() as stack:
        for _ in range(connections // 50):
            connection = stack.enter_context(client.raw(b""))
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                for _ in range(100):
                    connection.send(whole)
            answers[0] += 1
        time.sleep(max(0.0, until - time.monotonic()))


ATTACKS: tuple[Attack, ...] = (
    hostile_bodies, hostile_tensors, growing_bodies, slow_headers, slow_bodies, silence, large_headers, unread_answers,
)  # fmt: skip


def _drip(
    client: services.Client, until: float, connections: int, answers: Counter[int], piece: Callable[[int], bytes]
) -> None:
    """Keep so many connections, each of which sends `piece(bytes sent)` now and then; those that end are replaced."""
    with selectors.DefaultSelector() as selector:
        sent: dict[socket.socket, int] = {}
        while time.monotonic() < until:
            for _ in range(min(50, connections - len(sent))):
                with contextlib.suppress(OSError):
                    connection = client.raw(b"")
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ)
                    sent[connection] = 0
            for connection in list(sent):
                with contextlib.suppress(OSError):
                    sent[connection] += connection.send(data) if (data := piece(sent[connection])) else 0
            for key, _ in selector.select(timeout=0.05):
                answers[_status(key.fileobj)] += 1
                selector.unregister(key.fileobj)
                key.fileobj.close()
                del sent[key.fileobj]
        for connection in sent:
            connection.close()


def _status(connection: socket.socket) -> int:
    try:
        return int(connection.recv(100).split(b" ")[1])
    except (OSError, IndexError, ValueError):
        return 0
