"""Match a data set's classes to a model's: by name where both have names, by number, or by a common order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from distill.data.root import LABELS, split_labels


class Classes(Protocol):
    """The part of an `ImageSet` that says what its classes are."""

    @property
    def name(self) -> str:
        """The data set's name."""
        ...

    @property
    def root(self) -> str:
        """The data set's folder or URI."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Readable names, in the data set's order."""
        ...

    @property
    def class_folders(self) -> tuple[str, ...]:
        """Names in the data set's own files; empty where they are the readable ones."""
        ...

    @property
    def label_spaces(self) -> Mapping[int, tuple[int, ...]]:
        """Number of classes of a model -> its label of each class."""
        ...

    @property
    def official(self) -> bool:
        """Whether the order of classes is official."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClassMatch:
    """The label that a model gives to each class of a data set."""

    labels: tuple[int, ...]
    """One per class of the data set."""
    how: str
    """How they were matched, for people: "name", "number", "WordNet id", "order"."""


def match_classes(data: Classes, num_classes: int, model_names: Sequence[str] | None = None) -> ClassMatch:
    """Find the label of each class of `data` in a model with `num_classes` classes.

    Names are compared without regard to case, `_`, `-` and a leading number as in `001.Black_footed_Albatross`. A
    model without names is taken to have the data set's order, or ImageNet's where classes are named by WordNet ids;
    folders that are named by numbers are the model's class indices.

    Raises:
        ValueError: the number of classes does not fit, or names on both sides that are not the same.
    """
    by_name = _match_names(data, model_names) if model_names else [None] * len(data.class_names)
    labels = [label for label in by_name if label is not None]
    if len(labels) == len(by_name) and len(set(labels)) == len(labels):
        return ClassMatch(labels=tuple(labels), how="name")
    order = _match_order(data, num_classes)
    if order is None:
        raise _no_match(data, num_classes, model_names, by_name)
    agrees = all(label in (None, other) for label, other in zip(by_name, order.labels, strict=True))
    known_order = data.official or num_classes in data.label_spaces or order.how == "number"
    if model_names and not (agrees and (known_order or _are_placeholders(model_names))):
        raise _no_match(data, num_classes, model_names, by_name)
    return order


def _match_names(data: Classes, model_names: Sequence[str]) -> list[int | None]:
    """Find each class's name among the model's; None where it is not there, or there twice."""
    index: dict[str, int | None] = {}
    for label, name in enumerate(model_names):
        for key in {_exact(name), _plain(name)}:
            index[key] = None if key in index else label
    sides = [data.class_names] + ([data.class_folders] if data.class_folders else [])
    matches = []
    for names in zip(*sides, strict=True):
        keys = [key(name) for key in (_exact, _plain) for name in names]
        matches.append(next((index[key] for key in keys if index.get(key) is not None), None))
    return matches


def _match_order(data: Classes, num_classes: int) -> ClassMatch | None:
    """Take the labels that the data set's own numbers or order give; None where they do not fit the model."""
    folders = data.class_folders or data.class_names
    if num_classes in data.label_spaces:
        return ClassMatch(labels=data.label_spaces[num_classes], how="WordNet id")
    in_order = tuple(range(len(data.class_names)))
    if _are_numbers(folders) and len({int(name) for name in folders}) == len(folders):
        numbers = tuple(int(name) for name in folders)
        if max(numbers) < num_classes:
            return ClassMatch(labels=numbers, how="number")
        if len(numbers) == num_classes:
            return ClassMatch(labels=in_order, how="the order of their numbers")
        return None
    if len(data.class_names) != num_classes:
        return None
    how = f"the order of {data.name}'s classes" if data.official else "the sorted order of class folders"
    return ClassMatch(labels=in_order, how=how)


def _no_match(
    data: Classes, num_classes: int, model_names: Sequence[str] | None, by_name: Sequence[int | None]
) -> ValueError:
    where = f"the labels of {data.name!r} ({data.root})"
    advice = "take the images out of their class folders to go without labels"
    if split_labels(data.root)[1]:
        advice = f"choose other labels: {', '.join(f'#{labels}' for labels in LABELS)} behind the data's name"
    sizes = sorted({len(data.class_names), *data.label_spaces})
    if model_names and (num_classes in sizes or any(label is not None for label in by_name)):
        missing = [name for name, label in zip(data.class_names, by_name, strict=True) if label is None]
        reason = f"{len(missing)} of {len(by_name)} classes of {where} are not among the model's, such as {missing[:1]}"
        if not missing:
            reason = f"several classes of {where} have one name in the model"
        shown = ", ".join(map(repr, model_names[:5])) + (", ..." if len(model_names) > 5 else "")
        return ValueError(
            f"{reason}; the model's: {shown}; name the class folders, or `classes` in teacher.toml, as the other side "
            f"does (without `classes` the sorted order of folders counts), or {advice}"
        )
    return ValueError(
        f"the model has {num_classes} classes, but {where} fit a model with "
        f"{' or '.join(map(str, sizes))}; choose another teacher, or {advice}"
    )


def _are_numbers(names: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[0-9]{1,9}", name) for name in names)


def _are_placeholders(names: Sequence[str]) -> bool:
    """Tell names that only count, such as `3`, `class 3` or `LABEL_3`."""
    return all(re.fullmatch(r"((class|label)?[ _-]*)[0-9]{1,9}", name, re.IGNORECASE) for name in names)


def _exact(name: str) -> str:
    return f"={_one_form(name).strip()}"


def _one_form(name: str) -> str:
    """Write letters with accents as one character: some file systems keep them as two."""
    return unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    """Reduce a name to its words: `001.Black_footed_Albatross` and `black-footed albatross` are the same."""
    words = re.sub(r"^\d+[._ -]+(?=\D)", "", _one_form(name).strip())
    return " ".join(re.sub(r"[\s_-]+", " ", words).casefold().split())
