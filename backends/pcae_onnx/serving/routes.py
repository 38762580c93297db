"""Routes of the Open Inference Protocol v2, and of the service's own state."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

import pcae_core
from pcae_onnx.serving import binary, bodies, tensors
from pcae_onnx.serving.service import Service, overloaded

router = APIRouter()


def service_of(request: Request) -> Service:
    """The service of the application that `create_app` made."""
    service: Service = request.app.state.service
    return service


@router.get("/v2")
def server() -> dict[str, Any]:
    """Name and version of the server."""
    return {"name": "pcae", "version": pcae_core.__version__, "extensions": [binary.EXTENSION]}


@router.head("/v2/health/live", include_in_schema=False)
@router.get("/v2/health/live")
def live() -> dict[str, bool]:
    """Whether the process answers."""
    return {"live": True}


@router.head("/v2/health/ready", include_in_schema=False)
@router.get("/v2/health/ready")
def ready(request: Request) -> dict[str, bool]:
    """Whether the service accepts inference requests; status 503 if not."""
    if not service_of(request).ready:
        raise overloaded("the service is not ready")
    return {"ready": True}


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Counters in Prometheus' text format."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


def model(request: Request) -> dict[str, Any]:
    """Inputs and outputs of the model."""
    return tensors.describe(_service_with_model(request).session)


def model_ready(request: Request) -> dict[str, Any]:
    """Whether the model accepts requests; status 503 if not."""
    return {"name": _service_with_model(request).session.name} | ready(request)


async def infer(request: Request) -> Response:
    """Run the model. Each tensor is in JSON, or in bytes after it."""
    service = _service_with_model(request)
    service.check_room()
    body, json_length = await bodies.read_tensors(request, service.settings, service.arrivals)
    with service.admitted():
        wanted = await service.aside(tensors.read, body, json_length, service.session, service.settings.max_batch)
        outputs = await service.infer(request, wanted.pixels, wanted.keep)
        answer, json_length = await service.aside(tensors.write, wanted, outputs, service.session)
    if json_length is None:
        return Response(answer, media_type="application/json")
    return Response(answer, headers={binary.LENGTH_HEADER: str(json_length)}, media_type="application/octet-stream")


for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
    router.get(path)(model)
    router.get(f"{path}/ready")(model_ready)
    router.head(f"{path}/ready", include_in_schema=False)(model_ready)
    router.post(f"{path}/infer")(infer)


def _service_with_model(request: Request) -> Service:
    """The service, if the path has the name of its model, and the model's version or none."""
    service, asked = service_of(request), request.path_params
    if asked["name"] != service.session.name:
        raise HTTPException(404, f"there is no such model; this service has {service.session.name!r}")
    if asked.get("version", tensors.VERSION) != tensors.VERSION:
        raise HTTPException(404, f"there is no such version; {service.session.name!r} has version {tensors.VERSION}")
    return service
