"""`pcae convert`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pcae.cli.parsing import parse
from pcae_core.config import EncoderName

if TYPE_CHECKING:
    from pcae_core.convert.sources import Request

DESCRIPTION = """Turn weights into the form that somebody else loads, or somebody else's ViT into ours.

SOURCE is a run, one of its checkpoints, or an encoder that this command wrote; a file with timm's names (timm, MAE,
DeiT, DINO): .safetensors, .pth, .pt, .bin, .pth.tar, Lightning's .ckpt; or a folder with a config.json: Hugging Face's
of a ViT or a ViTMAE, or timm's for the hub.
The ending of OUT chooses the form: none, an encoder's folder, for pcae evaluate, export and Encoder.from_pretrained;
.safetensors, timm's names; .pth (PyTorch), .ckpt (MindSpore), .npz (NumPy), the framework's own file. --to hf writes a
Hugging Face folder. Nothing is lost or made up in silence: tensors that are missing or surplus must be waived by name,
unless nothing depends on them, and what tensors do not tell is printed with who said it.

Examples:
  pcae convert runs/demo encoder.pth
  pcae convert runs/demo/checkpoints/step_00001000 teacher.ckpt --encoder teacher
  pcae convert mae_pretrain_vit_base.pth mae-base
  pcae convert vit-folder vit-384 --image-size 384
  pcae convert dino.pth dino --prefix teacher.backbone --num-heads 6
  pcae convert runs/demo hf-folder --to hf"""


@dataclass(frozen=True)
class Arguments:
    """What `pcae convert` takes.

    Attributes:
        source: a run, a checkpoint, an encoder's folder, a file of weights, or a folder of Hugging Face's or timm's.
        out: file or folder to write; must not exist.
        encoder: of a run, the student (encoder and decoder) or the teacher (an encoder; of a fine-tuned run the moving
            average). By default the student, and of a fine-tuned run the weights that were scored.
        to: form of OUT where its ending does not tell.
        waive: tensors that may be missing (they are drawn anew) or are left out; * stands for anything. Also what a
            refusal names, such as class_names.
        image_size: interpolate position embeddings (bicubic) for square images of this size.
        num_heads: attention heads, where SOURCE does not tell or tells otherwise; likewise the next four.
        decoder_num_heads: of its decoder.
        layer_norm_eps: assumed is 1e-6.
        mean: of the pixels, per channel or one for all; assumed are ImageNet's.
        std: likewise.
        prefix: what stands before the names of the model that is meant, where a file holds several; or a part of it.
    """

    source: Annotated[Path, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.Positional]
    encoder: EncoderName | None = None
    to: Literal["pcae", "timm", "hf"] | None = None
    waive: tuple[str, ...] = ()
    image_size: int | None = None
    num_heads: int | None = None
    decoder_num_heads: int | None = None
    layer_norm_eps: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    prefix: str | None = None


def main(arguments: Sequence[str]) -> None:
    """Parse, convert, report, say what was written."""
    chosen = parse(Arguments, "convert", arguments, description=DESCRIPTION)
    from rich.console import Console

    from pcae_core.convert import sources, targets

    form = targets.form_of(chosen.out, chosen.to)
    found, coverage = sources.read(chosen.source, _request(chosen))
    print(f"{chosen.source}: {coverage.percent:.1f}% covered")
    for remark in coverage.remarks:
        print(remark)
    Console().print(coverage.table())
    coverage.require_all()
    count = targets.write(found, chosen.out, form, coverage)
    print(f"wrote {chosen.out}: {count} tensors of {found.origin}")


def _request(chosen: Arguments) -> Request:
    from pcae_core.convert.metadata import ModelMetadata
    from pcae_core.convert.sources import Request

    metadata = ModelMetadata(
        num_heads=chosen.num_heads,
        decoder_num_heads=chosen.decoder_num_heads,
        layer_norm_eps=chosen.layer_norm_eps,
        mean=chosen.mean or None,
        std=chosen.std or None,
    )
    return Request(chosen.encoder, metadata, chosen.prefix, chosen.waive, chosen.image_size)
