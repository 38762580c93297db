"""`pcae pretrain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pcae.cli.parsing import parse_config, split_off
from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.errors import ConfigError

DESCRIPTION = """Pre-train PCAE on images, or continue a run.

Each of these overrides the settings of the ones before it:
  the defaults: ViT-B/16 at 224 px with the recipe of the authors' release
  --config FILE: a YAML file of settings
  --preset NAME: all settings of the model
  the flags below

Use --resume RUN to continue the run in that folder with its own settings. If the folder --out already holds a run, that
run is continued too.

Examples:
  pcae pretrain --data photos --out runs/photos --preset vit_small_patch16_224
  pcae pretrain --config examples/fashion_mnist.yaml --data data/fashion-mnist --steps 500
  pcae pretrain --resume runs/photos
  torchrun --nproc_per_node=2 -m pcae.cli pretrain --config my.yaml"""


FLAGS = ("config", "preset", "resume")


def main(arguments: Sequence[str]) -> None:
    """Parse, then train."""
    chosen, rest = split_off(arguments, *FLAGS)
    config = parse_config(_default(**chosen), "pretrain", rest, DESCRIPTION, FLAGS)
    from pcae_core.training.pretrain import pretrain

    pretrain(config)


def _default(config: str | None, preset: str | None, resume: str | None) -> PretrainConfig:
    if resume is not None:
        if config or preset:
            raise ConfigError("--resume takes its settings from the run; leave out --config and --preset")
        from pcae_core.storage.run import Run

        return Run.open(Path(resume)).continued(PretrainConfig)
    base = PretrainConfig.from_yaml(Path(config)) if config else PretrainConfig()
    return base.model_copy(update={"model": ModelConfig.preset(preset)}) if preset else base
