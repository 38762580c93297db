"""The Open Inference Protocol v2, and what the service says of itself."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

import pcae_core
from pcae_onnx.serving import bodies, tensors
from pcae_onnx.serving.service import Service, overloaded

router = APIRouter()


def service_of(request: Request) -> Service:
    """The service that `create_app` put behind the routes."""
    service: Service = request.app.state.service
    return service


@router.get("/v2")
def server() -> dict[str, Any]:
    """Name and version of the server."""
    return {"name": "pcae", "version": pcae_core.__version__, "extensions": []}


@router.get("/v2/health/live")
def live() -> dict[str, bool]:
    """Whether the process answers."""
    return {"live": True}


@router.get("/v2/health/ready")
def ready(request: Request) -> dict[str, bool]:
    """Whether requests for inference are taken; 503 where not."""
    if not service_of(request).ready:
        raise overloaded("the service is not ready")
    return {"ready": True}


@router.get("/v2/models/{name}")
def model(name: str, request: Request) -> dict[str, Any]:
    """Inputs and outputs of the model."""
    return tensors.describe(_service_with(name, request).session)


@router.get("/v2/models/{name}/ready")
def model_ready(name: str, request: Request) -> dict[str, Any]:
    """Whether the model takes requests; 503 where not."""
    return {"name": _service_with(name, request).session.name} | ready(request)


@router.post("/v2/models/{name}/infer")
async def infer(name: str, request: Request) -> Response:
    """Tensors in JSON to tensors in JSON."""
    service = _service_with(name, request)
    service.check_room()
    body = await bodies.read_json(request, service.settings, service.arrivals)
    with service.admitted():
        wanted = await service.aside(tensors.read, body, service.session, service.settings.max_batch)
        outputs = await service.infer(request, wanted.pixels, wanted.keep)
        answer = await service.aside(tensors.write, wanted, outputs, service.session)
    return Response(answer, media_type="application/json")


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Counters in Prometheus' text format."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _service_with(name: str, request: Request) -> Service:
    service = service_of(request)
    if name != service.session.name:
        raise HTTPException(404, f"there is no such model; this service has {service.session.name!r}")
    return service
