"""Run the application on uvicorn, with limits on connections and a clean shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import warnings
from types import FrameType

import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from pcae_core.errors import ConfigError
from pcae_onnx.serving.app import create_app
from pcae_onnx.serving.settings import Settings
from pcae_onnx.session import InferenceSession

_SHUTDOWN_SECONDS = 30
_SPARE_CONNECTIONS = 2000
_OTHER_FILES = 64
_LEAST_PROGRESS = 65_536
"""Bytes of an answer that a client must receive between two checks."""


def serve(session: InferenceSession, settings: Settings) -> None:
    """Answer requests until SIGTERM or SIGINT, then finish the current requests and return.

    Prints the address when the model has computed a first batch and the port is open.

    Raises:
        ConfigError: a setting is out of range, or the service cannot listen on the address.
    """
    settings.check()
    listener = _listen(settings)
    size = session.image_size
    session.run(np.zeros((1, session.in_chans, size, size), np.float32))  # the first run is slow
    _quieten()
    config = uvicorn.Config(
        create_app(session, settings),
        http=_protocol(settings.read_timeout / 2, _most_connections(settings)),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after its shutdown. These handlers turn that into an ordinary return
    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    host, port = listener.getsockname()[:2]
    print(f"serving {session.name} on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _quieten() -> None:
    """Silence messages with which clients could fill the log, or the memory of warnings that were shown."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _listen(settings: Settings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except UnicodeError:
        raise ConfigError(f"{settings.host!r} is not the name of a host") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigError(f"cannot listen on {settings.host} port {settings.port}: {reason}") from None


def _most_connections(settings: Settings) -> int:
    """Largest number of connections: enough for all requests and some more, within the system's limit on open files."""
    wanted = settings.max_requests + _SPARE_CONNECTIONS
    if sys.platform == "win32":  # Windows has no such limit
        return wanted
    import resource

    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < wanted + _OTHER_FILES:
        unlimited = most == resource.RLIM_INFINITY
        allowed = wanted + _OTHER_FILES if unlimited else min(wanted + _OTHER_FILES, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return wanted if allowed == resource.RLIM_INFINITY else max(1, min(wanted, allowed - _OTHER_FILES))


def _protocol(seconds: float, most: int) -> type[H11Protocol]:
    """HTTP protocol that limits connections. uvicorn alone keeps idle ones for ever, and refuses all above a limit.

    It closes a connection whose next header is not complete in time, or whose client does not receive its answer. Above
    `most` connections, it closes the one that has waited for a header longest.
    """

    class Impatient(H11Protocol):
        _before: RequestResponseCycle | None = None
        _unsent = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP has no other
            super().connection_made(transport)
            self._since = self.loop.time()
            self._timer = self.loop.call_later(seconds, self._check)
            alive = [other for other in self.connections if not other.transport.is_closing()]
            if len(alive) > most:  # the new connection is waiting too
                waiting = (other for other in alive if isinstance(other, Impatient) and other.is_waiting)
                min(waiting, key=lambda other: other._since).transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()  # a running timer would keep the received data in memory
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._since = self.loop.time()
            super().on_response_complete()

        @property
        def is_waiting(self) -> bool:
            """Whether the connection has no current request."""
            return self.cycle is None or self.cycle.response_complete

        def _check(self) -> None:
            unsent, same = self.transport.get_write_buffer_size(), self.cycle is self._before
            if same and unsent and self._unsent and unsent > self._unsent - _LEAST_PROGRESS:
                self.transport.abort()
            elif same and not unsent and self.is_waiting:
                self.transport.close()
            self._before, self._unsent = self.cycle, unsent
            self._timer = self.loop.call_later(seconds, self._check)

    return Impatient
