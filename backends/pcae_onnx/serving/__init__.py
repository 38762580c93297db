"""Serve an exported model over HTTP: the Open Inference Protocol v2, a route for image files, and metrics.

`server.serve` runs the service; `app.create_app` makes the ASGI application alone.
"""

from __future__ import annotations

import importlib.util

from pcae_core.errors import MissingExtraError

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def require() -> None:
    """Raise MissingExtraError if a package of the extra `serve` is not installed. The text names all of them."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'the service needs {", ".join(missing)}, which is not installed: pip install "pcae[serve]"'
        )
