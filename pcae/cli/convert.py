"""`pcae convert`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pcae.cli.parsing import parse
from pcae_core.config import Activation, EncoderName

if TYPE_CHECKING:
    from pcae_core.convert.sources import Request

DESCRIPTION = """Convert weights of other projects to PCAE's form, or PCAE's weights to theirs.

SOURCE is one of:
  a run, a checkpoint of a run, or an encoder folder that this command wrote
  a file with timm's parameter names (timm, MAE, DeiT, DINO) or OpenCLIP's: .safetensors, .pth, .pt, .bin, .pth.tar,
    Lightning's .ckpt
  a folder with a config.json: a ViT, ViTMAE or CLIP of Hugging Face, or a timm model as on the Hugging Face Hub

The suffix of OUT chooses the format:
  none          an encoder folder, for pcae evaluate, pcae export and Encoder.from_pretrained
  .safetensors  timm's parameter names
  .pth          PyTorch's own format
  .ckpt         MindSpore's own format
  .npz          NumPy's own format

Use --to hf to write a Hugging Face folder.

Missing and unexpected tensors are errors unless you name them with --waive, or nothing depends on them. The command
prints each setting that the tensors do not show, and its origin.

Examples:
  pcae convert runs/demo encoder.pth
  pcae convert runs/demo/checkpoints/step_00001000 teacher.ckpt --encoder teacher
  pcae convert mae_pretrain_vit_base.pth mae-base
  pcae convert vit-folder vit-384 --image-size 384
  pcae convert dino.pth dino --prefix teacher.backbone --num-heads 6
  pcae convert runs/demo hf-folder --to hf"""


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae convert`.

    Attributes:
        source: run, checkpoint, encoder folder, weights file, or folder of Hugging Face or timm.
        out: file or folder to write; must not exist.
        encoder: student (with its decoder) or teacher of a run. Of a fine-tuned run, the teacher is the moving average
            of the weights. Default: the student; of a fine-tuned run, the weights that were scored.
        to: format of OUT, where its suffix does not decide it.
        waive: names of tensors that may be missing (they are initialised at random) or unexpected (they are left out).
            * matches anything. Other errors name what to put here, such as class_names.
        image_size: interpolate the position embeddings (bicubic) to square images of this size.
        num_heads: number of attention heads. Give this and the next five to add or override what SOURCE says.
        decoder_num_heads: number of attention heads of the decoder.
        layer_norm_eps: epsilon of every LayerNorm. Assumed: 1e-6.
        activation: of every MLP. Assumed: gelu.
        mean: mean of the pixels, one number per channel or one for all. Assumed: ImageNet's.
        std: standard deviation of the pixels, one number per channel or one for all. Assumed: ImageNet's.
        prefix: prefix, or a part of it, of the parameter names to read, where a file holds several models.
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
    activation: Activation | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    prefix: str | None = None


def main(arguments: Sequence[str]) -> None:
    """Parse, convert, print the coverage and the path written."""
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
        activation=chosen.activation,
        mean=chosen.mean or None,
        std=chosen.std or None,
    )
    return Request(chosen.encoder, metadata, chosen.prefix, chosen.waive, chosen.image_size)
