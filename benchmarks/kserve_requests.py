"""The kserve client, as it comes, against a service; run by kserve_client.py where kserve is, but not PCAE.

    .venv-kserve/bin/python benchmarks/kserve_requests.py URL MODEL PIXELS.npy RESULTS.npz

What each call gave goes to RESULTS.npz as "call/output"; what it said is printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import kserve
import numpy as np
from kserve.protocol.infer_type import RequestedOutput

Call = tuple[list[kserve.InferInput], dict[str, Any]]


def inputs(pixels: np.ndarray, keep: float | None = None, binary: bool = True) -> list[kserve.InferInput]:
    datatype = "FP16" if pixels.dtype == np.float16 else "FP32"
    given = [kserve.InferInput("pixel_values", list(pixels.shape), datatype)]
    given[0].set_data_from_numpy(pixels, binary_data=binary)
    if keep is not None:
        given.append(kserve.InferInput("keep", [1], "FP32"))
        given[1].set_data_from_numpy(np.array([keep], np.float32), binary_data=binary)
    return given


def calls(pixels: np.ndarray) -> dict[str, Call]:
    """Inputs of a request and what else it has, by a name."""
    chosen = [RequestedOutput("logits", {"binary_data": True}), RequestedOutput("kept_ids", {"binary_data": False})]
    every = {"parameters": {"binary_data_output": True}}
    return {
        "json": (inputs(pixels, 0.7, binary=False), {}),
        "binary-in": (inputs(pixels, 0.7), {}),
        "binary": (inputs(pixels, 0.7), every),
        "json-in": (inputs(pixels, binary=False), every),
        "fp16": (inputs(pixels.astype(np.float16), 0.7), every),
        "chosen": (inputs(pixels, 0.7), {"request_outputs": chosen}),
        "wrong-shape": (inputs(pixels[:, :, 1:], 0.7), every),
        "wrong-keep": (inputs(pixels, 1.5, binary=False), {}),
    }


async def main(url: str, model: str, pixels: str, path: str) -> None:
    config, said, arrays = kserve.RESTConfig(protocol="v2"), {}, {}
    async with kserve.InferenceRESTClient(config) as client:
        said["live"], said["ready"] = await client.is_server_live(url), await client.is_server_ready(url)
        said["model-ready"] = await client.is_model_ready(url, model)
        said["other-ready"] = await client.is_model_ready(url, "other")
    for name, (given, fields) in calls(np.load(pixels)).items():
        request = kserve.InferRequest(model, given, request_id=name, **fields)
        async with kserve.InferenceRESTClient(config) as client:  # a connection for each, which can be recorded
            try:
                answer = await client.infer(url, request, model_name=model)
            except httpx.HTTPStatusError as error:
                said[name] = str(error)
                continue
        said[name] = answer.id
        arrays |= {f"{name}/{output.name}": output.as_numpy() for output in answer.outputs}
    np.savez(path, **arrays)
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
