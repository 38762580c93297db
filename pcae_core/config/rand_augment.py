"""Settings of RandAugment (Cubuk et al. 2020), in timm's naming.

"rand-m9-mstd0.5-inc1": magnitude 9 of 10, with normal noise of deviation 0.5 for each operation, and operations whose
severity grows with the magnitude.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from pcae_core.errors import ConfigError

MAX_MAGNITUDE = 10.0
_DEFAULTS = {"m": MAX_MAGNITUDE, "n": 2.0, "mstd": 0.0, "inc": 0.0, "p": 0.5}


@dataclass(frozen=True)
class RandAugmentPolicy:
    """Each image gets `layers` operations, drawn with replacement, each applied with `probability`.

    Attributes:
        magnitude: "m" in the name, 0 to 10; 10 by default.
        layers: "n", operations an image; 2 by default.
        noise: "mstd", standard deviation of the magnitude; 0 by default.
        increasing: "inc", whether every operation is mildest at magnitude 0; not by default.
        probability: "p", of applying an operation; 0.5 by default.
    """

    magnitude: float
    layers: int
    noise: float
    increasing: bool
    probability: float

    @classmethod
    def parse(cls, name: str) -> Self:
        """From timm's naming. Raises ConfigError."""
        head, *parts = name.split("-")
        found = [re.fullmatch(r"(m|n|mstd|inc|p)(\d+(?:\.\d+)?)", part) for part in parts]
        if head != "rand" or None in found:
            raise ConfigError(
                f"rand_augment {name!r} is not like rand-m9-mstd0.5-inc1: after rand, m n mstd inc or p with a number"
            )
        values = _DEFAULTS | {match[1]: float(match[2]) for match in found if match}
        made = cls(values["m"], int(values["n"]), values["mstd"], bool(values["inc"]), values["p"])
        if not (0 <= made.magnitude <= MAX_MAGNITUDE and made.layers >= 1 and 0 <= made.probability <= 1):
            raise ConfigError(f"rand_augment {name!r}: m must be 0 to 10, n at least 1, p 0 to 1")
        return made
