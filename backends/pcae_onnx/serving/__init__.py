"""An exported model behind HTTP: the Open Inference Protocol v2, a route for pictures, metrics.

`server.serve` runs it; `app.create_app` gives the ASGI application alone.
"""

from __future__ import annotations

import importlib.util

from pcae_core.errors import MissingExtraError

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def require() -> None:
    """Raises MissingExtraError, naming each package of the extra `serve` that is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'the service needs {", ".join(missing)}, which is not installed: pip install "pcae[serve]"'
        )
