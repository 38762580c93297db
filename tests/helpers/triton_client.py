"""tritonclient, as it comes, against a running service; for an environment that has it, but not PCAE.

    .venv-peers/bin/python tests/helpers/triton_client.py PORT MODEL PIXELS.npy RESULTS.npz

What each call gave goes to RESULTS.npz as "call/output", what it said is printed as JSON: {call: text or metadata}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
import patience
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

NAMES = ("last_hidden_state", "kept_ids", "logits")


def inputs(pixels: np.ndarray, keep: float | None = None, binary: bool = True, binary_keep: bool = True) -> list:
    datatype = "FP16" if pixels.dtype == np.float16 else "FP32"
    given = [triton.InferInput("pixel_values", list(pixels.shape), datatype)]
    given[0].set_data_from_numpy(pixels, binary_data=binary)
    if keep is not None:
        given.append(triton.InferInput("keep", [], "FP32"))
        given[1].set_data_from_numpy(np.array(keep, np.float32), binary_data=binary_keep)
    return given


def outputs(*names: str, binary: bool = True) -> list:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def calls(pixels: np.ndarray) -> dict[str, dict[str, Any]]:
    """Arguments of `infer`, by a name."""
    odd = {"priority": 1, "timeout": 10**6, "sequence_id": 7, "sequence_start": True, "parameters": {"mine": "x"}}
    return {
        "default": {"inputs": inputs(pixels, 0.7)},
        "no keep": {"inputs": inputs(pixels)},
        "json": {"inputs": inputs(pixels, 0.7, False, False), "outputs": outputs(*NAMES, binary=False)},
        "json in, bytes out": {"inputs": inputs(pixels, 0.7, False, False)},
        "mixed in": {"inputs": inputs(pixels, 0.7, True, False), "outputs": outputs(*NAMES)},
        "mixed out": {"inputs": inputs(pixels, 0.7, False), "outputs": outputs("kept_ids", "logits")
                      + outputs("last_hidden_state", binary=False)},
        "chosen": {"inputs": inputs(pixels, 0.7), "outputs": outputs("logits")},
        "fp16": {"inputs": inputs(pixels.astype(np.float16), 0.7)},
        "gzip": {"inputs": inputs(pixels, 0.7), "request_compression_algorithm": "gzip",
                 "response_compression_algorithm": "gzip"},
        "deflate": {"inputs": inputs(pixels, 0.7, False), "request_compression_algorithm": "deflate",
                    "response_compression_algorithm": "deflate"},
        "version": {"inputs": inputs(pixels, 0.7), "model_version": "1"},
        "parameters": {"inputs": inputs(pixels, 0.7), "request_id": "mine", **odd},
    }  # fmt: skip


def wrong_calls(pixels: np.ndarray) -> dict[str, dict[str, Any]]:
    shared = outputs("logits")
    shared[0].set_shared_memory("region", 100)
    return {
        "wrong shape": {"inputs": inputs(pixels[:, :, 1:])},
        "wrong shape, json": {"inputs": inputs(pixels[:, :, 1:], None, False), "outputs": outputs(binary=False)},
        "too many": {"inputs": inputs(np.repeat(pixels, 5, axis=0))},
        "wrong datatype": {"inputs": wrong_datatype(pixels)},
        "wrong keep": {"inputs": inputs(pixels, 1.5)},
        "wrong output": {"inputs": inputs(pixels), "outputs": outputs("scores")},
        "wrong version": {"inputs": inputs(pixels), "model_version": "2"},
        "shared memory": {"inputs": inputs(pixels), "outputs": shared},
        "classification": {"inputs": inputs(pixels), "outputs": [triton.InferRequestedOutput("logits", class_count=3)]},
    }


def wrong_datatype(pixels: np.ndarray) -> list:
    given = triton.InferInput("pixel_values", list(pixels.shape), "FP64")
    return [given.set_data_from_numpy(pixels.astype(np.float64))]


class Results:
    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.said: dict[str, Any] = {}

    def keep(self, call: str, result: triton.InferResult) -> None:
        for tensor in result.get_response()["outputs"]:
            self.arrays[f"{call}/{tensor['name']}"] = result.as_numpy(tensor["name"])
        self.said[call] = result.get_response().get("id")


def ask(client: triton.InferenceServerClient, model: str, pixels: np.ndarray, results: Results) -> None:
    said = results.said
    said["live"], said["ready"] = client.is_server_live(), client.is_server_ready()
    said["models ready"] = [client.is_model_ready(*model) for model in ((model,), (model, "1"), (model, "2"), ("no",))]
    said["server"], said["model"] = client.get_server_metadata(), client.get_model_metadata(model)
    said["model 1"] = client.get_model_metadata(model, "1")
    for name, call in calls(pixels).items():
        results.keep(name, client.infer(model, **call))
    underway = [client.async_infer(model, inputs(pixels, keep)) for keep in (0.5, 0.7, 1.0)]
    for keep, request in zip((0.5, 0.7, 1.0), underway, strict=True):
        results.keep(f"async {keep}", request.get_result())
    for name, call in wrong_calls(pixels).items():
        try:
            client.infer(model, **call)
        except InferenceServerException as error:
            said[name] = [error.status(), error.message()]


async def ask_asyncio(port: str, model: str, pixels: np.ndarray, results: Results) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{port}", conn_timeout=patience.SECONDS) as client:
        results.said["asyncio ready"] = await client.is_model_ready(model)
        found = await asyncio.gather(*(client.infer(model, inputs(pixels, keep)) for keep in (0.5, 0.7)))
        for keep, result in zip((0.5, 0.7), found, strict=True):
            results.keep(f"asyncio {keep}", result)
        call = calls(pixels)["gzip"]
        results.keep("asyncio gzip", await client.infer(model, **call))


def main(port: str, model: str, pixels: str, path: str) -> None:
    results = Results()
    limits = {"connection_timeout": patience.SECONDS, "network_timeout": patience.SECONDS}
    with triton.InferenceServerClient(f"127.0.0.1:{port}", concurrency=3, **limits) as client:
        ask(client, model, np.load(pixels), results)
    asyncio.run(ask_asyncio(port, model, np.load(pixels), results))
    np.savez(path, **results.arrays)
    print(json.dumps(results.said))


if __name__ == "__main__":
    main(*sys.argv[1:])
