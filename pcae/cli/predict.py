"""`pcae predict`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pcae.cli.parsing import parse
from pcae_core.config import DataConfig, Reading
from pcae_core.errors import ConfigError, DataError, ImageError, IncompleteError, listed
from pcae_onnx import MEMORY_MIB

if TYPE_CHECKING:
    from PIL import Image

    from pcae_onnx.session import InferenceSession, Prediction

DESCRIPTION = """Run an exported model on pictures. Prints how many patches survive, and the most probable classes, or a
summary of the features where the model has no label head.

Pictures that cannot be read are named with the reason, on stderr and with --json as {"image", "error"} in their place;
the others are predicted, and the exit code is 1, or 2 where there are no others.

Example:
  pcae predict models/demo cat.jpg dog.jpg --keep 0.7 --json"""

BATCH_SIZE = 32


@dataclass(frozen=True)
class Arguments:
    """What `pcae predict` takes.

    Attributes:
        model: a folder written by pcae export, or its model.onnx.
        images: files of any size.
        keep: share of the patch tokens that each stage keeps; only for models exported with --dynamic-keep.
        topk: classes to print.
        json: print JSON, kept patches and all.
        provider: cpu, cuda, or another of ONNX Runtime's; an error when it is not there.
        threads: by default as many as there are cores.
        memory_mib: the most that a run on CPUs may take beside the weights, in MiB; "None" for no limit.
    """

    model: Annotated[Path, tyro.conf.Positional]
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    keep: float | None = None
    topk: int = 5
    reading: Annotated[Reading, tyro.conf.arg(name="")] = field(default_factory=Reading)
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    provider: str = "cpu"
    threads: int | None = None
    memory_mib: int | None = MEMORY_MIB


def main(arguments: Sequence[str]) -> None:
    """Parse, predict, print."""
    chosen = parse(Arguments, "predict", arguments, description=DESCRIPTION)
    if not chosen.images:
        raise ConfigError("name at least one picture")
    import pcae_onnx

    pcae_onnx.require("onnx", "onnxruntime")
    from pcae_onnx.session import InferenceSession

    session = InferenceSession(chosen.model, chosen.provider, chosen.threads, chosen.memory_mib)
    found: list[Prediction | ImageError] = []
    for start in range(0, len(chosen.images), BATCH_SIZE):  # so that few pictures are in memory
        found += predict_part(session, chosen, chosen.images[start : start + BATCH_SIZE], announce=start == 0)
    named = [(str(path), one) for path, one in zip(chosen.images, found, strict=True)]
    if chosen.json:
        print(json.dumps([as_json(*one) for one in named], indent=2))
    else:
        for path, one in named:
            if not isinstance(one, ImageError):
                print("\n".join(as_text(path, one, session.info.model.num_patches)))
    unreadable = [f"{path} ({one.reason})" for path, one in named if isinstance(one, ImageError)]
    if unreadable:
        count = f"{len(unreadable)} of {len(named)} pictures cannot be read"
        raise (DataError if len(unreadable) == len(named) else IncompleteError)(f"{count}: {listed(unreadable)}")


def predict_part(
    session: InferenceSession, chosen: Arguments, paths: Sequence[Path], announce: bool
) -> Sequence[Prediction | ImageError]:
    """What each picture gives, or why it cannot be read; `announce`: say how 16-bit greys are scaled."""
    from pcae_core.data import greys, images

    how = chosen.reading.over(DataConfig(grey_bits=session.info.preprocessing.grey_bits))
    chans = session.in_chans if session.in_chans in images.MODES else 3  # preprocess says what is wrong
    read: list[Image.Image | ImageError] = []
    for path in paths:
        try:
            read.append(images.read(path, str(path), chans, how.max_pixels, how.grey_bits))
        except ImageError as error:
            read.append(error)
    pictures = [one for one in read if not isinstance(one, ImageError)]
    if announce:
        greys.announce_pictures(pictures)
    predicted = iter(session.predict(pictures, chosen.keep, topk=chosen.topk) if pictures else ())
    return [one if isinstance(one, ImageError) else next(predicted) for one in read]


def as_json(image: str, prediction: Prediction | ImageError) -> dict[str, Any]:
    """Plain data of one picture."""
    if isinstance(prediction, ImageError):
        return {"image": image, "error": prediction.reason}
    found: dict[str, Any] = {"image": image, "kept_ids": prediction.kept_ids.tolist()}
    if prediction.classes is not None:
        found["classes"] = [vars(score) for score in prediction.classes]
    else:
        found["features"] = {
            "shape": list(prediction.last_hidden_state.shape),
            "cls": prediction.last_hidden_state[0].tolist(),
        }
    return found


def as_text(image: str, prediction: Prediction, num_patches: int) -> list[str]:
    """Lines about one picture."""
    lines = [f"{image}: {len(prediction.kept_ids)} of {num_patches} patches survive"]
    if prediction.classes is None:
        hidden = prediction.last_hidden_state
        lines.append(
            f"  features {hidden.shape[0]} x {hidden.shape[1]}, mean {hidden.mean():.3f}, std {hidden.std():.3f}"
        )
        lines.append(f"  kept patches {' '.join(map(str, prediction.kept_ids))}")
        return lines
    return lines + [f"  {score.probability:7.2%}  {score.name or score.index}" for score in prediction.classes]
