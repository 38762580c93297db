"""`pcae finetune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pcae.cli.parsing import parse_config, split_off
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.errors import ConfigError

DESCRIPTION = """Fine-tune a pre-trained encoder as a classifier that drops tokens, or continue a run.

The pre-trained RUN decides the model, and --data the classes. The test (or val) split is scored after each epoch. With
--from-scratch the same network starts from random initialisation.

Each of these overrides the settings of the ones before it:
  the defaults: MAE's recipe for ViT-B
  --preset NAME: MAE's recipe for that model
  --config FILE: a YAML file of settings
  the flags below

Use --resume OUT to continue the run in that folder with its own settings. If the folder --out already holds a run, that
run is continued too.

Examples:
  pcae finetune runs/photos --data photos --out runs/photos-ft --keep 0.8
  pcae finetune runs/demo --data data/fashion-mnist --config examples/fashion_mnist_finetune.yaml
  pcae finetune --resume runs/photos-ft
  pcae evaluate runs/photos-ft --data photos --keep 1.0 0.9 0.8 0.7 0.6"""


FLAGS = ("config", "preset", "resume", "drop")
WITHOUT = ("model", "pretrained", "class_names")
"""Settings without flags: the pre-trained run and the data decide them."""


def main(arguments: Sequence[str]) -> None:
    """Parse, then train."""
    run, rest = (arguments[0], arguments[1:]) if arguments and not arguments[0].startswith("-") else (None, arguments)
    chosen, rest = split_off(rest, *FLAGS)
    drop = chosen.pop("drop")
    if drop is not None:
        if any(word.partition("=")[0] == "--keep" for word in rest):
            raise ConfigError("--drop is 1 - --keep; give one of them")
        rest = [*rest, f"--keep={_kept(drop)}"]
    default = _default(run, **chosen)
    config = parse_config(default, "finetune [RUN]", rest, DESCRIPTION, FLAGS, WITHOUT)
    from pcae_core.training.finetune import finetune

    if drop is not None:
        print(f"--drop {drop} is taken as --keep {config.keep:g}")
    finetune(config)


def _kept(drop: str) -> str:
    """The value of `--keep` that a value of `--drop` stands for."""
    try:
        return str(round(1.0 - float(drop), 6))
    except ValueError:
        raise ConfigError(f"--drop must be a number, not {drop!r}; or give --keep, which is 1 - drop") from None


def _default(run: str | None, config: str | None, preset: str | None, resume: str | None) -> FinetuneConfig:
    if resume is not None:
        if run or config or preset:
            raise ConfigError("--resume takes its settings from the run; leave out RUN, --config and --preset")
        from pcae_core.storage.run import Run

        return Run.open(Path(resume)).continued(FinetuneConfig)
    base = FinetuneConfig()
    if preset is not None:
        base = FinetuneConfig.preset(preset)
    if config is not None:
        base = base.overlaid(Path(config))
    return base.model_copy(update={"pretrained": Path(run)}) if run else base
