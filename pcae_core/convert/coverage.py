"""What of a source has found its place in a model, and what has not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pcae_core.convert.names import DIFFERENCES
from pcae_core.errors import CheckpointError

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Entry:
    """A tensor that was not simply loaded: its name, what happened, and whether that is allowed."""

    name: str
    note: str
    allowed: bool


@dataclass
class Coverage:
    """Counts and exceptions of one conversion.

    Attributes:
        source: where the tensors are from; waive: patterns of names that may be missing or surplus.
        loaded: our tensors that were filled as they are, or by joining the source's.
        reshaped: filled with other values or another shape, on request or by an exact rewriting.
        missing: ours that the source lacks; surplus: the source's that ours has no place for.
        names: of all tensors, the source's and ours, which a pattern may stand for.
    """

    source: str
    waive: Sequence[str] = ()
    loaded: int = 0
    reshaped: list[Entry] = field(default_factory=list)
    missing: list[Entry] = field(default_factory=list)
    surplus: list[Entry] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def waived(self, name: str) -> bool:
        """Whether the user named this tensor, or a pattern of it."""
        return any(fnmatchcase(name, pattern) for pattern in self.waive)

    def add_reshaped(self, name: str, note: str) -> None:
        """One of ours."""
        self.reshaped.append(Entry(name, note, True))

    def add_resized(self, name: str, note: str) -> None:
        """One of ours that was covered already."""
        before = [entry for entry in self.reshaped if entry.name == name]
        self.reshaped = [entry for entry in self.reshaped if entry.name != name]
        self.loaded -= 0 if before else 1
        self.add_reshaped(name, "; ".join([*(entry.note for entry in before), note]))

    def add_missing(self, name: str, note: str = "drawn anew") -> None:
        """One of ours."""
        self.missing.append(Entry(name, note, self.waived(name)))

    def add_surplus(self, name: str, note: str = "") -> None:
        """One of the source's."""
        reasons = [reason for pattern, reason in DIFFERENCES if fnmatchcase(name, pattern)]
        self.surplus.append(Entry(name, note or (reasons or ["no place for it"])[0], self.waived(name)))

    @property
    def percent(self) -> float:
        """Of all tensors, ours and surplus ones, those that were filled; rounded down to a tenth."""
        filled = self.loaded + len(self.reshaped)
        return 1000 * filled // max(1, filled + len(self.missing) + len(self.surplus)) / 10

    def table(self) -> Table:
        """Rows: loaded, then each kind of exception, block numbers shown as `*`."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("", "tensors", "which")
        table.add_row("loaded", str(self.loaded), "")
        for kind, entries in (("reshaped", self.reshaped), ("missing", self.missing), ("surplus", self.surplus)):
            for (name, note, allowed), count in _grouped(entries).items():
                mark = "" if kind == "reshaped" else "waived: " if allowed else "not waived: "
                table.add_row(kind, str(count), escape(f"{name}: {mark}{note}"))
        return table

    def require_all(self) -> None:
        """Raises CheckpointError naming every tensor that is missing or surplus and was not waived."""
        wrong = {kind: [e for e in entries if not e.allowed] for kind, entries in self._exceptions().items()}
        if not any(wrong.values()):
            return
        parts = []
        for kind, entries in wrong.items():
            parts += [f"{kind} {name} ({note})" for name, note, _ in _grouped(entries)]
        flags = " ".join(self._flags([entry.name for entries in wrong.values() for entry in entries]))
        raise CheckpointError(
            f"{self.source} is covered to {self.percent:.1f}% only: {'; '.join(parts)}; to convert it all the "
            f"same, waive each by name: --waive {flags}"
        )

    def _flags(self, names: Sequence[str]) -> list[str]:
        """What to waive: patterns where they stand for nothing else, since what is waived is left out."""
        flags: dict[str, None] = {}
        for name in names:
            pattern = _pattern(name)
            alone = all(other in names for other in self.names if fnmatchcase(other, pattern))
            flags[f"'{pattern}'" if alone and pattern != name else name] = None
        return list(flags)

    def _exceptions(self) -> dict[str, list[Entry]]:
        return {"missing": self.missing, "surplus": self.surplus}


def _grouped(entries: Sequence[Entry]) -> dict[tuple[str, str, bool], int]:
    """(name with block numbers as `*`, note, allowed) -> how many."""
    groups: dict[tuple[str, str, bool], int] = {}
    for entry in entries:
        key = (_pattern(entry.name), entry.note, entry.allowed)
        groups[key] = groups.get(key, 0) + 1
    return groups


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)
