"""Settings of RandAugment (Cubuk et al. 2020), in timm's naming.

"rand-m9-mstd0.5-inc1" means: magnitude 9 of 10, plus normal noise of standard deviation 0.5 for each operation. The
severity of every operation increases with the magnitude.
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
    """RandAugment draws `layers` operations for each image, with replacement, and applies each with `probability`.

    Attributes:
        magnitude: "m" in the name, 0 to 10. Default: 10.
        layers: "n", number of operations for an image. Default: 2.
        noise: "mstd", standard deviation of the magnitude. Default: 0.
        increasing: "inc", whether every operation is mildest at magnitude 0. Default: no.
        probability: "p", probability of applying an operation. Default: 0.5.
    """

    magnitude: float
    layers: int
    noise: float
    increasing: bool
    probability: float

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parse a policy in timm's naming. Raises ConfigError."""
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
