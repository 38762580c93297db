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

DESCRIPTION = """Run an exported model on images. Prints how many patches survive and the most probable classes, or a
summary of the features if the model has no label head.

An unreadable image does not stop the others. Its reason is printed on stderr; --json has {"image", "error"} in its
place. The exit code is then 1, or 2 if no image can be read.

Example:
  pcae predict models/demo cat.jpg dog.jpg --keep 0.7 --json"""

BATCH_SIZE = 32


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae predict`.

    Attributes:
        model: folder that pcae export wrote, or its model.onnx.
        images: image files of any size.
        keep: share of the patch tokens that each stage keeps; only for models exported with --dynamic-keep.
        topk: number of classes to print.
        json: print JSON, with the positions of the kept patches.
        provider: execution provider of ONNX Runtime, such as cpu or cuda. It is an error if it is not available.
        threads: number of threads of one operator. Default: the number of cores.
        memory_mib: memory limit of a run on CPUs, in MiB, without the weights; "None" for no limit.
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
    for start in range(0, len(chosen.images), BATCH_SIZE):  # few images are in memory at once
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
    """The prediction for each image, or the error that it cannot be read.

    Args:
        announce: log how 16-bit greys are scaled.
    """
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
    """Plain data about one image, for JSON."""
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
    """Lines of text about one image."""
    lines = [f"{image}: {len(prediction.kept_ids)} of {num_patches} patches survive"]
    if prediction.classes is None:
        hidden = prediction.last_hidden_state
        lines.append(
            f"  features {hidden.shape[0]} x {hidden.shape[1]}, mean {hidden.mean():.3f}, std {hidden.std():.3f}"
        )
        lines.append(f"  kept patches {' '.join(map(str, prediction.kept_ids))}")
        return lines
    return lines + [f"  {score.probability:7.2%}  {score.name or score.index}" for score in prediction.classes]
