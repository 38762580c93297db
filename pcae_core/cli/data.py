"""`pcae data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pcae_core.cli.parsing import parse

DESCRIPTION = """Fetch a data set: Fashion-MNIST (70,000 grey 28 px images of clothes in ten classes, MIT licence).

It comes from Debian's package dataset-fashion-mnist where there is apt-get, else from the address that its authors
publish; or hand over the four files. Checksums are verified either way.

Examples:
  pcae data fashion-mnist data/fashion-mnist
  pcae data fashion-mnist data/fashion-mnist --files train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz \\
      t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz"""


@dataclass(frozen=True)
class Arguments:
    """What `pcae data` takes.

    Attributes:
        name: which data set.
        directory: where to put it.
        files: the set's own files, instead of fetching them.
    """

    name: Annotated[Literal["fashion-mnist"], tyro.conf.Positional]
    directory: Annotated[Path, tyro.conf.Positional]
    files: tuple[Path, ...] = ()


def main(arguments: Sequence[str]) -> None:
    """Parse, fetch."""
    chosen = parse(Arguments, "data", arguments, description=DESCRIPTION)
    from pcae_core.data import fashion_mnist

    fashion_mnist.fetch(chosen.directory, list(chosen.files) or None)
    print(f"{chosen.name}: {chosen.directory}")
