"""What of a source has found its place in a model, and what has not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pcae_core.convert.names import DIFFERENCES, HARMLESS, OUTPUTS
from pcae_core.errors import CheckpointError

if TYPE_CHECKING:
    from rich.table import Table

_MOST_BESIDE = 20


@dataclass(frozen=True)
class Entry:
    """A tensor that was not simply loaded.

    Attributes:
        note: what happened, or why.
        allowed: whether it stands in nobody's way; advised: whether to waive it leaves the features what they are.
    """

    name: str
    note: str
    allowed: bool
    advised: bool = False


@dataclass
class Coverage:
    """Counts and exceptions of one conversion.

    Attributes:
        source: where the tensors are from; waive: patterns of names that may be missing or surplus.
        loaded: our tensors that were filled as they are, or by joining the source's.
        reshaped: filled with other values or another shape, on request or by an exact rewriting.
        missing: ours that the source lacks; surplus: the source's that ours has no place for.
        harmless: surplus ones on which nothing depends; beside: beginning of a name -> how many tensors of the file are
            no part of the model.
        remarks: lines for the user.
        names: of all tensors, the source's and ours, which a pattern may stand for.
    """

    source: str
    waive: Sequence[str] = ()
    loaded: int = 0
    reshaped: list[Entry] = field(default_factory=list)
    missing: list[Entry] = field(default_factory=list)
    surplus: list[Entry] = field(default_factory=list)
    harmless: list[Entry] = field(default_factory=list)
    beside: Mapping[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
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

    def add_missing(self, name: str, unread: bool = False) -> None:
        """One of ours; `unread` when logits do not depend on it."""
        zeros = name.endswith(".bias") and not unread
        note = "only last_hidden_state reads it" if unread else "zeros" if zeros else "drawn anew"
        elsewhere = name.startswith(("head.", "decoder_", "mask_token"))
        self.missing.append(Entry(name, note, self.waived(name), unread or zeros or elsewhere))

    def add_surplus(self, name: str, note: str = "", waived: bool = False) -> None:
        """One of the source's; `waived` when the user named it otherwise."""
        harmless, outputs, different = (_reason(name, table) for table in (HARMLESS, OUTPUTS, DIFFERENCES))
        if harmless and not note:
            self.harmless.append(Entry(name, harmless, True))
        else:
            note = note or outputs or different or "no place for it"
            self.surplus.append(Entry(name, note, waived or self.waived(name), bool(outputs)))

    @property
    def percent(self) -> float:
        """Of all tensors, ours and surplus ones that matter, those that were filled; rounded down to a tenth."""
        filled = self.loaded + len(self.reshaped)
        return 1000 * filled // max(1, filled + len(self.missing) + len(self.surplus)) / 10

    def table(self) -> Table:
        """Rows: loaded, then each kind of exception, block numbers shown as `*`."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("", "tensors", "which")
        table.add_row("loaded", str(self.loaded), "")
        for kind, entries in (("reshaped", self.reshaped), ("missing", self.missing), ("surplus", self.surplus)):
            for (name, note, allowed, _), count in _grouped(entries).items():
                mark = "" if kind == "reshaped" else "waived: " if allowed else "not waived: "
                table.add_row(kind, str(count), escape(f"{name}: {mark}{note}"))
        for (name, note, _, _), count in _grouped(self.harmless).items():
            table.add_row("left out", str(count), escape(f"{name}: {note}"))
        for name, count in itertools.islice(self.beside.items(), _MOST_BESIDE):
            table.add_row("left out", str(count), escape(f"{name}: no part of this model"))
        if len(self.beside) > _MOST_BESIDE:
            table.add_row("left out", "", f"and {len(self.beside) - _MOST_BESIDE} more that are no part of it")
        return table

    def require_all(self) -> None:
        """Raises CheckpointError naming every tensor that is missing or surplus and was not waived."""
        wrong = {kind: [e for e in entries if not e.allowed] for kind, entries in self._exceptions().items()}
        if not any(wrong.values()):
            return
        parts = []
        for kind, entries in wrong.items():
            parts += [f"{kind} {name} ({note})" for name, note, _, _ in _grouped(entries)]
        raise CheckpointError(
            f"{self.source} is covered to {self.percent:.1f}% only: {'; '.join(parts)}; {self._advice(wrong)}"
        )

    def refuse_differences(self) -> None:
        """Raises CheckpointError when the source is known to have what ours has not, which is not waived."""
        known = [entry for entry in self.surplus if not entry.allowed and _reason(entry.name, DIFFERENCES)]
        if known:
            parts = [f"{name} ({note})" for name, note, _, _ in _grouped(known)]
            raise CheckpointError(f"{self.source} is no model that ours can be, since it has {'; '.join(parts)}")

    def _advice(self, wrong: Mapping[str, Sequence[Entry]]) -> str:
        entries = [entry for found in wrong.values() for entry in found]
        if not all(entry.advised for entry in entries):
            return "features depend on these, or may, so no waiver is suggested"
        names = [entry.name for entry in entries]
        return f"to convert it all the same, waive each by name: --waive {' '.join(self._flags(names))}"

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


def _reason(name: str, table: Sequence[tuple[str, str]]) -> str:
    """What a table says of a name, or ""."""
    return next((reason for pattern, reason in table if fnmatchcase(name, pattern)), "")


def _grouped(entries: Sequence[Entry]) -> dict[tuple[str, str, bool, bool], int]:
    """(name with block numbers as `*`, note, allowed, advised) -> how many."""
    groups: dict[tuple[str, str, bool, bool], int] = {}
    for entry in entries:
        key = (_pattern(entry.name), entry.note, entry.allowed, entry.advised)
        groups[key] = groups.get(key, 0) + 1
    return groups


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)
