"""The share of patch tokens kept at each stage: its check, and the one knob of an encoder in somebody else's code."""

from __future__ import annotations

from pcae_core.errors import ConfigError


def check_keep(keep: float, name: str = "keep") -> None:
    """Raises ConfigError unless `keep`, which messages call `name`, is in (0, 1]."""
    if not 0.0 < keep <= 1.0:
        raise ConfigError(f"{name} must be in (0, 1], not {keep}")


class Reduction:
    """`encoder.reduction.keep = 0.7` takes effect at the next forward pass; at first all tokens stay."""

    def __init__(self) -> None:
        self.keep = 1.0

    @property
    def keep(self) -> float:
        """Share of the patch tokens that stays at each stage, in (0, 1].

        Raises:
            ConfigError: set to something else.
        """
        return self._keep

    @keep.setter
    def keep(self, keep: float) -> None:
        check_keep(keep, "reduction.keep")
        self._keep = float(keep)
