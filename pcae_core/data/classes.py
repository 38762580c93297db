"""Matching of classes: translate the labels of a data set to numbers of a model's outputs.

Classes are matched by name if the data set and the model both have class names, else by number.

Letters: n images.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pcae_core.data.sources.base import Source, Subset
from pcae_core.data.sources.kinds import words
from pcae_core.data.sources.labels import NO_CLASS, repeated
from pcae_core.errors import DataError, listed

_logger = logging.getLogger("pcae")

ADVICE = "rename or remove them, choose another split with --split, or leave them out with --ignore-unknown-classes"


@dataclass(frozen=True)
class Labelled:
    """Images that all have a class.

    Attributes:
        labels: int64 (n,), from 0.
        names: names of the classes; None if they have none.
        notes: lines that the user should see.
    """

    source: Source
    labels: NDArray[np.int64]
    names: Sequence[str] | None
    notes: tuple[str, ...] = ()


def labelled(source: Source) -> Labelled:
    """The images of a source that have a class. Raises DataError when there are none."""
    labels = source.labels
    if labels is None:
        raise DataError(f"{source.path} has no labels: {source.no_labels}; classification needs {words('labels')}")
    return _where(Labelled(source, labels, source.class_names), labels != NO_CLASS, "have no class")


def match(
    found: Labelled,
    names: Sequence[str] | None,
    num_classes: int,
    whose: str,
    ignore_unknown: bool = False,
    advice: str = ADVICE,
) -> Labelled:
    """The images of `found`, labelled with the model's class numbers.

    Classes are matched by name if both sides have names, else by number.

    Args:
        names: names of the model's classes, or None.
        num_classes: number of the model's classes.
        whose: words for the model in a message.
        ignore_unknown: leave out images of classes that the model does not have, instead of raising.
        advice: advice about such classes in a message.

    Raises:
        DataError: the model does not have a class, or has its name twice; or no image is left.
    """
    present, places = np.unique(found.labels, return_inverse=True)
    path, absent = found.source.path, []
    if names is None or found.names is None:
        lacking = path if found.names is None else whose
        found = _noted(found, f"{path}: classes are matched by number, because {lacking} has no class names")
        titles = [f"class {label}" for label in present]
        numbers = np.where(present < num_classes, present, NO_CLASS)
    else:
        titles = [found.names[label] for label in present]
        _refuse_ambiguous(titles, names, whose)
        place = {name: number for number, name in enumerate(names)}
        numbers = np.array([place.get(title, NO_CLASS) for title in titles], dtype=np.int64)
        absent = sorted(set(names) - set(titles))
    unknown = [title for title, number in zip(titles, numbers, strict=True) if number == NO_CLASS]
    lacks = f"no images of {listed(absent)}" if absent else ""
    if unknown and not ignore_unknown:
        raise DataError(
            f"{path} has classes that {whose} does not have: {listed(unknown)}{lacks and f' (and {lacks})'}; {advice}"
        )
    if lacks:
        found = _noted(found, f"{path} has {lacks}")
    found, wanted = replace(found, labels=numbers[places], names=names), numbers[places] != NO_CLASS
    return _where(found, wanted, f"have classes that {whose} does not have ({listed(unknown)})")


def warn(notes: Sequence[str]) -> None:
    """Log each note as a warning."""
    for note in notes:
        _logger.warning("warning: %s", note)


def _refuse_ambiguous(titles: Sequence[str], names: Sequence[str], whose: str) -> None:
    twice = set(repeated(names)) & set(titles)
    if twice:
        raise DataError(f"{whose} has two classes of one name, which cannot be told apart: {listed(sorted(twice))}")


def _noted(found: Labelled, note: str) -> Labelled:
    return replace(found, notes=(*found.notes, note))


def _where(found: Labelled, wanted: NDArray[np.bool_], reason: str) -> Labelled:
    """The wanted images, with a note that counts and names the others. Raises DataError when none is wanted."""
    if wanted.all():
        return found
    source, ids, others = found.source, np.flatnonzero(wanted), np.flatnonzero(~wanted)
    if not len(ids):
        raise DataError(f"all {len(source)} images in {source.path} {reason}")
    names = listed([source.name(int(index)) for index in others[:20]], len(others))
    note = f"{len(others)} of {len(source)} images in {source.path} {reason} and are left out: {names}"
    return _noted(replace(found, source=Subset(source, ids), labels=found.labels[ids]), note)
