"""`pcae profile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcae.cli.parsing import parse_config, split_off
from pcae_core import cost
from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.evaluation.costs import inference_costs, pretraining_costs

if TYPE_CHECKING:
    from rich.table import Table

DESCRIPTION = """Count a model's multiply-accumulates and tokens from its shapes, without a framework or weights.

The model is --preset NAME or the `model` of --config FILE. The flags below override its settings.

Example:
  pcae profile --preset vit_base_patch16_224 --mask-ratio 0.85"""


FLAGS = ("config", "preset")


def main(arguments: Sequence[str]) -> None:
    """Parse, count, print."""
    chosen, rest = split_off(arguments, *FLAGS)
    default = PretrainConfig.from_yaml(Path(chosen["config"])).model if chosen["config"] else ModelConfig()
    if chosen["preset"]:
        default = ModelConfig.preset(chosen["preset"])
    config = parse_config(default, "profile", rest, DESCRIPTION, FLAGS)
    from rich.console import Console

    console = Console()
    for table in (pretraining_table(config), tokens_table(config), inference_table(config)):
        console.print(table)


def pretraining_table(config: ModelConfig) -> Table:
    """MACs of one image in one pre-training step, by part, and their ratio to a MAE step."""
    from rich.table import Table

    table = Table("part", "forward GMACs", "passes", "GMACs a step", title="pre-training, one image")
    for part in pretraining_costs(config):
        table.add_row(part.name, f"{part.forward / 1e9:.3f}", str(part.passes), f"{part.step / 1e9:.3f}")
    total, mae = cost.pretraining_macs(config), cost.mae_macs(config)
    table.add_section()
    table.add_row("PCAE step", "", "", f"{total / 1e9:.3f}")
    table.add_row("MAE step, same encoder and decoder", "", "", f"{mae / 1e9:.3f}")
    table.add_row("PCAE / MAE", "", "", f"{total / mae:.3f}")
    return table


def tokens_table(config: ModelConfig) -> Table:
    """Tokens that enter each block."""
    from rich.table import Table

    seen = config.num_prefix_tokens + config.num_visible
    rows = {
        "teacher, masked patches": config.tokens_per_block(config.num_masked),
        "student, CLS and visible": [seen] * config.depth,
        "decoder": [seen + config.num_targets] * config.decoder_depth,
    }
    table = Table("", "tokens entering each block", title=f"{config.num_patches} patches, {config.num_targets} targets")
    for name, counts in rows.items():
        table.add_row(name, " ".join(map(str, counts)))
    return table


def inference_table(config: ModelConfig) -> Table:
    """MACs of encoding one whole image at several keep ratios."""
    from rich.table import Table

    table = Table("keep", "GMACs", "speed-up", "tokens left", title="inference, one image")
    for found in inference_costs(config):
        table.add_row(f"{found.keep:.1f}", f"{found.macs / 1e9:.2f}", f"{found.speedup:.2f}", str(found.tokens))
    return table
