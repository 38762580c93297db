"""`POST /predict`: an image file in, classes or features out."""

from __future__ import annotations

import io
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray

from pcae_core.data import images
from pcae_onnx.serving import bodies
from pcae_onnx.serving.routes import service_of
from pcae_onnx.serving.tensors import check_finite
from pcae_onnx.session import InferenceSession, Outputs

router = APIRouter()


@router.post("/predict")
async def predict(
    request: Request,
    keep: Annotated[float | None, Query(gt=0.0, le=1.0, allow_inf_nan=False)] = None,
    topk: Annotated[int, Query(ge=1, le=1000)] = 5,
) -> dict[str, Any]:
    """The most probable classes of an image, or its features, and the surviving patches."""
    service = service_of(request)
    service.check_room()
    file = await bodies.read_picture(request, service.settings, service.arrivals)
    with service.admitted():
        pixels = await service.aside(_prepare, file, service.session, service.settings.max_pixels)
        outputs = await service.infer(request, pixels, keep)
    return _answer(service.session, outputs, topk)


def _prepare(file: bytes, session: InferenceSession, max_pixels: int) -> NDArray[Any]:
    """float32 (1, C, H, W). Raises DataError."""
    chans = session.in_chans if session.in_chans in images.MODES else 3  # preprocess says what is wrong
    grey_bits = session.info.preprocessing.grey_bits
    return session.preprocess([images.read(io.BytesIO(file), "in the body", chans, max_pixels, grey_bits)])


def _answer(session: InferenceSession, outputs: Outputs, topk: int) -> dict[str, Any]:
    """Plain data about the only image in `outputs`. Raises DataError when a result is not finite."""
    hidden, kept = outputs.last_hidden_state[0], outputs.kept_ids[0]
    check_finite(hidden)
    answer: dict[str, Any] = {
        "model_name": session.name,
        "num_patches": session.info.model.num_patches,
        "kept_ids": kept.tolist(),
    }
    if outputs.logits is not None:
        return answer | {"classes": [vars(score) for score in session.best_classes(outputs.logits[0], topk)]}
    summary = {"shape": list(hidden.shape), "mean": float(hidden.mean()), "std": float(hidden.std())}
    return answer | {"features": summary | {"cls": hidden[0].tolist()}}
