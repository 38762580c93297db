"""Tokens that a run's encoder keeps of the same images at several steps, from the checkpoints that still exist.

Letters: B images, C channels, H = W pixels, k patches that stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from pcae.report import page, panels, pictures
from pcae.report.figure import Figure, Panel
from pcae.report.pictures import Shown
from pcae.report.stages import Ids
from pcae_core import parameters
from pcae_core.config import ModelConfig
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import Array, Backend, Floats
from pcae_core.data import normalize
from pcae_core.errors import CheckpointError, ConfigError, DataError
from pcae_core.evaluation.encoding import LoadedEncoder
from pcae_core.storage.run import Run
from pcae_core.storage.stored_encoder import StoredEncoder
from pcae_core.training.finetune import first_state


def section(
    run: Run,
    backend: Backend,
    data: Path | None,
    count: int,
    keep: float | None,
) -> tuple[list[str], list[str]]:
    """HTML with a card for each image, or the reason why there is none; and warnings.

    Args:
        data: images to draw; None for the run's own data set, if it still exists.
        count: number of images to draw.
        keep: share of the patch tokens that each stage keeps; None for that of pre-training.

    Raises:
        DataError: `data` cannot be read.
    """
    source, model = data or run.data, run.model
    try:
        if source is None:
            raise DataError("the run names no data set")
        shown = pictures.read_images([source], model, count, run.loader.reading)
    except DataError as error:
        if data is not None:
            raise
        return [page.paragraph(f"No pictures: {error}. Name images with --data.")], []
    share = model.reduction.keep if keep is None else keep
    pixels = normalize(shown.pixels, *run.loader.normalization(model.in_chans))
    kept, warnings = _kept_by_step(run, backend, pixels, share)
    warnings += [f"a picture cannot be read: {name}" for name in shown.unreadable]
    text = f"Tokens of whole images that the encoder keeps after its last stage, at keep {share:g}."
    return [page.paragraph(text, "faint"), page.figures(_figures(shown, model, kept), small=True)], warnings


def _kept_by_step(run: Run, backend: Backend, pixels: Floats, keep: float) -> tuple[dict[str, Ids], list[str]]:
    """Title -> kept ids (B, k), first those of the encoder before training; and warnings about omitted encoders."""
    model = run.model

    def kept(encoder: Mapping[str, Array]) -> Ids:
        out = LoadedEncoder(backend, model, run.loader, encoder).encode(pixels, keep)
        ids: Ids = backend.to_numpy(out.kept_ids)
        return ids

    found, warnings = {}, []
    try:
        before = _before(run)
        if before is not None:
            found["before training"] = kept(before)
    except (CheckpointError, ConfigError) as error:
        warnings.append(f"the encoder before training is not drawn: {error}")
    for path in run.checkpoints:
        try:
            stored = StoredEncoder(run.only(path))
            if stored.config.model != model:
                raise CheckpointError(f"{path} is a checkpoint of another architecture than that in config.yaml")
            found[f"step {stored.step}"] = kept(stored)
        except (CheckpointError, ConfigError, OSError) as error:  # a run that goes on deletes old ones
            warnings.append(str(error))
    return found, warnings


def _before(run: Run) -> Mapping[str, Array] | None:
    """The encoder that training started from; None if the configuration names no seed.

    Raises:
        CheckpointError, ConfigError: the pre-trained encoder of a fine-tuned run is missing or has changed.
    """
    if "pretrained" in run.settings:
        return first_state(FinetuneConfig.from_dict(run.settings)).student
    return None if run.seed is None else parameters.initial_parameters(run.model, run.seed)


def _figures(shown: Shown, model: ModelConfig, kept: Mapping[str, Ids]) -> Sequence[Figure]:
    figures = []
    for row, (name, pixels) in enumerate(zip(shown.names, shown.pixels, strict=True)):
        image = panels.picture(pixels)
        drawn = [Panel("input", Image.fromarray(image), f"{model.num_patches} tokens")]
        for title, ids in kept.items():
            stay = panels.on_grid(ids[row], model.grid_size)
            drawn.append(Panel(title, panels.tokens(image, stay), f"{stay.sum()} stay"))
        figures.append(Figure(name, (tuple(drawn),)))
    return figures
