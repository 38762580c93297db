"""Export a configuration and parameters to a folder with an ONNX model and its JSON files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic
from numpy.typing import NDArray

from pcae_core.config import DataConfig, ModelConfig
from pcae_core.convert.preprocessing import image_processor
from pcae_core.convert.vit_config import labels, vit_config, why_no_vit
from pcae_core.errors import ConfigError, ConformanceError, describe_validation_error
from pcae_core.parameters import encoder_shapes
from pcae_core.reduction import check_keep
from pcae_onnx import model, quantize, verify, writer
from pcae_onnx.graph import Graph
from pcae_onnx.info import (
    FORMAT,
    Dtype,
    ModelInfo,
    Task,
    arrays_sha256,
    preprocessing_of,
    schedule_of,
    versions,
)
from pcae_onnx.session import InferenceSession
from pcae_onnx.staging import MODEL_FILE, publish, staging

_RANDOM_IMAGES = 16


@dataclass(frozen=True)
class Options:
    """Options of an export.

    Attributes:
        task: task of the model; None for image classification if there is a head.
        opset: ONNX opset; 20 for runtimes that lack the operator `Attention`.
        keep: share of the patch tokens that each stage keeps; None makes it an input of the model.
        keep_default: give that input the default 1. Most tools then make it the constant 1.
        atol: largest accepted difference of the float32 model from the reference.
    """

    task: Task | None = None
    opset: Literal[20, 23] = 23
    dtype: Dtype = "fp32"
    keep: float | None = 1.0
    keep_default: bool = False
    atol: float = 1e-4
    name: str | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        info: metadata of the model.
        report: report of the verification of the float32 model.
        agreement: agreement of a narrower model with the float32 model; None for float32.
    """

    path: Path
    info: ModelInfo
    report: verify.Report
    agreement: quantize.Agreement | None = None


def export(
    config: ModelConfig,
    loader: DataConfig,
    parameters: Mapping[str, NDArray[Any]],
    folder: Path,
    options: Options,
    images: NDArray[Any] | None = None,
) -> Exported:
    """Write and verify a model, then put `model.onnx`, `config.json` and `preprocessor_config.json` into `folder`.

    Files of an earlier export there do not change until then.

    Args:
        loader: settings of normalisation.
        parameters: parameters of the encoder by canonical name; each is read when it is needed.
        images: normalised images, float32 (n, C, H, W), to measure a narrower model on. Default: random pixels.

    Raises:
        ConfigError: the task needs a head, a ratio or limit is out of range, or class names do not fit the head.
        ModelFileError: the folder cannot be written.
        ConformanceError: the float32 model differs from the reference. With dtype fp32, it is written all the same.
    """
    info = describe(config, loader, parameters, folder, options)
    path = folder / MODEL_FILE
    with staging(folder) as staged:
        _write_settings(staged, info)
        if options.dtype == "fp32":
            try:
                done = Exported(path, info, _write_and_verify(info, parameters, staged / MODEL_FILE, options))
            except ConformanceError as error:
                publish(staged, folder)
                raise ConformanceError(f"{error}; {path} is kept for inspection") from None
        else:
            done = Exported(path, info, *_write_narrow(info, parameters, staged / MODEL_FILE, options, images))
        publish(staged, folder)
    return done


def _write_narrow(
    info: ModelInfo, parameters: Mapping[str, NDArray[Any]], path: Path, options: Options, images: NDArray[Any] | None
) -> tuple[verify.Report, quantize.Agreement]:
    """Verify the float32 model, then write and measure the narrower model."""
    exact = path.parent / "float32" / MODEL_FILE
    exact.parent.mkdir()
    report = _write_and_verify(info.model_copy(update={"dtype": "fp32"}), parameters, exact, options)
    if options.dtype == "int8":
        quantize.to_int8(exact, path, info)
    else:
        write_model(info, parameters, path, options.opset, "float16", options.keep_default)
    pixels = verify.random_images(info.model, _RANDOM_IMAGES) if images is None else images
    sessions = InferenceSession(exact, memory_mib=None), InferenceSession(path, memory_mib=None)
    return report, quantize.measure(*sessions, pixels)


def write_model(
    info: ModelInfo,
    parameters: Mapping[str, NDArray[Any]],
    path: Path,
    opset: int = 23,
    dtype: str = "float32",
    keep_default: bool = False,
) -> None:
    """Write the model file alone. `opset` and `keep_default` as in `Options`, dtype by NumPy's name. Raises OSError."""
    graph, logits = Graph(opset, dtype), info.task == "image-classification"
    model.encoder(graph, info.model, parameters, info.schedule.keep, logits, keep_default)
    writer.write(graph.proto(info.name, info.to_metadata()), graph.weights, path)


def _write_and_verify(
    info: ModelInfo, parameters: Mapping[str, NDArray[Any]], path: Path, options: Options
) -> verify.Report:
    write_model(info, parameters, path, options.opset, keep_default=options.keep_default)
    return verify.verify(path, info.model, parameters, info.schedule.keep, options.atol, options.opset)


def describe(
    config: ModelConfig, loader: DataConfig, parameters: Mapping[str, NDArray[Any]], folder: Path, options: Options
) -> ModelInfo:
    """The metadata of the model. Raises ConfigError."""
    task = options.task or ("image-classification" if config.num_classes else "feature-extraction")
    if task == "image-classification" and not config.num_classes:
        raise ConfigError("the checkpoint has no label head; export it with --task feature-extraction")
    if options.keep is not None:
        check_keep(options.keep)
        if options.keep_default:
            raise ConfigError("only a keep ratio that is an input can have a default; set keep to None for one")
    if not options.atol > 0.0:
        raise ConfigError(f"atol must be positive, not {options.atol}")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.resolve().name).lstrip("_.-")
    try:
        return ModelInfo(
            format=FORMAT,
            name=options.name or name or "model",
            task=task,
            dtype=options.dtype,
            model=config,
            preprocessing=preprocessing_of(config, loader),
            schedule=schedule_of(config, options.keep),
            versions=versions(),
            weights_sha256=arrays_sha256(parameters, encoder_shapes(config)),
            class_names=options.class_names if task == "image-classification" else None,
        )
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation_error(error)) from None


def _write_settings(folder: Path, info: ModelInfo) -> None:
    prepared = info.preprocessing
    processor = image_processor(prepared.size, prepared.in_chans, prepared.mean, prepared.std)
    for name, values in (("config.json", _config_json(info)), ("preprocessor_config.json", processor)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _config_json(info: ModelInfo) -> dict[str, object]:
    """Settings of a ViT if that gives the same answers. PCAE's settings have their own key, as some names clash."""
    described = info.to_dict()
    keys = ("name", "task", "dtype", "model", "schedule", "versions", "weights_sha256")
    ours = {"pcae": {key: described[key] for key in keys}}
    features = {"num_classes": 0} if info.task == "feature-extraction" else {}
    answering = info.model.model_copy(update=features)
    if info.schedule.keep == 1.0 and why_no_vit(answering) is None:
        return vit_config(answering, info.class_names) | ours
    return {"model_type": "pcae"} | (labels(info.class_names) if info.class_names else {}) | ours
