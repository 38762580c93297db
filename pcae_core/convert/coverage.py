"""Record which tensors of a source were loaded into a model, and which were not."""

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
        note: what happened to it, or why.
        allowed: whether the conversion may go on in spite of it.
        advised: whether to suggest a waiver, because features do not depend on the tensor.
    """

    name: str
    note: str
    allowed: bool
    advised: bool = False


@dataclass
class Coverage:
    """Counts and exceptions of one conversion.

    Attributes:
        source: name of the source in messages.
        waive: patterns of tensor names that may be missing or surplus.
        loaded: number of our tensors that were filled unchanged, or by joining tensors of the source.
        reshaped: our tensors that were filled with other values or another shape, on request or by an exact rewriting.
        missing: our tensors that the source lacks.
        surplus: tensors of the source that our model has no place for.
        harmless: surplus tensors that nothing depends on.
        beside: prefix -> number of tensors with it in the file that do not belong to the model.
        remarks: lines for the user.
        names: names of all tensors, the source's and ours, that a pattern can match.
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
        """Whether a pattern of the user matches this tensor."""
        return any(fnmatchcase(name, pattern) for pattern in self.waive)

    def add_reshaped(self, name: str, note: str) -> None:
        """Add one of our tensors that was filled with other values or another shape."""
        self.reshaped.append(Entry(name, note, True))

    def add_resized(self, name: str, note: str) -> None:
        """Note that one of our tensors, which was added already, was resized."""
        before = [entry for entry in self.reshaped if entry.name == name]
        self.reshaped = [entry for entry in self.reshaped if entry.name != name]
        self.loaded -= 0 if before else 1
        self.add_reshaped(name, "; ".join([*(entry.note for entry in before), note]))

    def add_missing(self, name: str, unread: bool = False) -> None:
        """Add one of our tensors that the source lacks. `unread` means that logits do not depend on it."""
        zeros = name.endswith(".bias") and not unread
        note = "only last_hidden_state reads it" if unread else "zeros" if zeros else "drawn anew"
        elsewhere = name.startswith(("head.", "decoder_", "mask_token"))
        self.missing.append(Entry(name, note, self.waived(name), unread or zeros or elsewhere))

    def add_surplus(self, name: str, note: str = "", waived: bool = False) -> None:
        """Add a tensor of the source without a place in our model. `waived` means that the user waived it already."""
        harmless, outputs, different = (_reason(name, table) for table in (HARMLESS, OUTPUTS, DIFFERENCES))
        if harmless and not note:
            self.harmless.append(Entry(name, harmless, True))
        else:
            note = note or outputs or different or "no place for it"
            self.surplus.append(Entry(name, note, waived or self.waived(name), bool(outputs)))

    @property
    def percent(self) -> float:
        """Filled tensors in percent of all tensors, ours and the surplus ones that matter; rounded down to 0.1."""
        filled = self.loaded + len(self.reshaped)
        return 1000 * filled // max(1, filled + len(self.missing) + len(self.surplus)) / 10

    def table(self) -> Table:
        """A table with a row for the loaded tensors and for each kind of exception. Block numbers are shown as `*`."""
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
        """Raise CheckpointError if a tensor is missing or surplus and was not waived. The text names all of them."""
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
        """Raise CheckpointError if the source has a tensor of a known difference (`DIFFERENCES`) that is not waived."""
        known = [entry for entry in self.surplus if not entry.allowed and _reason(entry.name, DIFFERENCES)]
        if known:
            parts = [f"{name} ({note})" for name, note, _, _ in _grouped(known)]
            raise CheckpointError(f"{self.source} cannot become a PCAE model, because it has {'; '.join(parts)}")

    def _advice(self, wrong: Mapping[str, Sequence[Entry]]) -> str:
        entries = [entry for found in wrong.values() for entry in found]
        if not all(entry.advised for entry in entries):
            return "features depend on these, or may, so no waiver is suggested"
        names = [entry.name for entry in entries]
        return f"to convert it all the same, waive each by name: --waive {' '.join(self._flags(names))}"

    def _flags(self, names: Sequence[str]) -> list[str]:
        """Values of --waive for these names: a pattern if it matches no other name, as waived tensors are left out."""
        flags: dict[str, None] = {}
        for name in names:
            pattern = _pattern(name)
            alone = all(other in names for other in self.names if fnmatchcase(other, pattern))
            flags[f"'{pattern}'" if alone and pattern != name else name] = None
        return list(flags)

    def _exceptions(self) -> dict[str, list[Entry]]:
        return {"missing": self.missing, "surplus": self.surplus}


def _reason(name: str, table: Sequence[tuple[str, str]]) -> str:
    """The reason that a table gives for a name, or ""."""
    return next((reason for pattern, reason in table if fnmatchcase(name, pattern)), "")


def _grouped(entries: Sequence[Entry]) -> dict[tuple[str, str, bool, bool], int]:
    """(name with block numbers as `*`, note, allowed, advised) -> number of such entries."""
    groups: dict[tuple[str, str, bool, bool], int] = {}
    for entry in entries:
        key = (_pattern(entry.name), entry.note, entry.allowed, entry.advised)
        groups[key] = groups.get(key, 0) + 1
    return groups


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)
