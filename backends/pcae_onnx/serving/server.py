"""uvicorn around the application: limits on connections, an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
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
_SPARE_CONNECTIONS = 200


def serve(session: InferenceSession, settings: Settings) -> None:
    """Answer requests until SIGTERM or SIGINT, then finish those underway and return.

    Prints the address once the model has computed a first batch and the port is open.

    Raises:
        ConfigError: a setting is out of range, or the address cannot be listened on.
    """
    settings.check()
    listener = _listen(settings)
    size = session.image_size
    session.run(np.zeros((1, session.in_chans, size, size), np.float32))  # the first run is a slow one
    _quieten()
    config = uvicorn.Config(
        create_app(session, settings),
        http=_protocol(settings.read_timeout / 2),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=settings.max_requests + _SPARE_CONNECTIONS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again once it has shut down; with these in place the end is an ordinary return
    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    host, port = listener.getsockname()[:2]
    print(f"serving {session.name} on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _quieten() -> None:
    """Clients must not be able to fill the log, or the memory that remembers which warnings were shown."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _listen(settings: Settings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigError(f"cannot listen on {settings.host} port {settings.port}: {reason}") from None


def _protocol(seconds: float) -> type[H11Protocol]:
    """HTTP that closes connections whose next header is not complete in time, which uvicorn leaves open."""

    class Impatient(H11Protocol):
        _before: RequestResponseCycle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(seconds, self._check)

        def _check(self) -> None:
            if self.transport.is_closing():
                return
            waiting = self.cycle is None or self.cycle.response_complete
            if waiting and self.cycle is self._before:
                self.transport.close()
                return
            self._before = self.cycle
            self.loop.call_later(seconds, self._check)

    return Impatient
