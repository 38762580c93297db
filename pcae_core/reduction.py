"""The one knob of an encoder that somebody else's code holds: the share of patch tokens kept at each stage."""

from __future__ import annotations

from pcae_core.errors import ConfigError


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
        if not 0.0 < keep <= 1.0:
            raise ConfigError(f"reduction.keep must be in (0, 1], not {keep}")
        self._keep = float(keep)
