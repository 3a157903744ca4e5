"""The problem: its kind, its target, its classes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from tidemill.core.errors import OptionError

JOINT = ";"
"""Stands between the labels of a row where a task has several and they are written as one text."""


class TaskKind(str, Enum):
    """What kind of answer is wanted."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"
    MULTILABEL = "multilabel"
    RECOGNITION = "recognition"
    """The answer is a transcript: any sequence of characters; see `tidemill.core.transcripts`."""

    @property
    def is_classification(self) -> bool:
        """True where the answer is one of a set of labels."""
        return self in (TaskKind.BINARY, TaskKind.MULTICLASS)

    @property
    def has_labels(self) -> bool:
        """True where answers are made of labels: one of a set, or any number of them."""
        return self.is_classification or self is TaskKind.MULTILABEL


FOLDED = "folded"
"""Labels of lines of text whose case counts nothing."""


@dataclass(frozen=True)
class Task:
    """A problem: predict ``target`` from the other columns.

    Parameters
    ----------
    kind : TaskKind
        Binary, multiclass, regression, recognition, or multi-label: any number of the classes, none included.
    target : str
        Name of the target column.
    classes : tuple of str
        Labels in the order of their codes ``0..K-1``; empty for regression and recognition. For a binary task
        ``classes[1]`` is the positive class. Of a multi-label task one is enough.
    positive : str or None
        The positive class of a binary task: ``classes[1]``, which is also filled in where it is None.
    label_type : str
        How labels looked in the data, so that predictions look the same: ``"string"``, ``"integer"``,
        ``"number"`` or ``"boolean"``. For regression ``"number"`` or ``"integer"``. For recognition ``"string"``, or
        ``"folded"`` where upper and lower case are the same: what is read comes in lower case.

    Examples
    --------
    >>> Task(TaskKind.BINARY, "income", ("<=50K", ">50K"), positive=">50K").n_outputs
    2
    """

    kind: TaskKind
    target: str
    classes: tuple[str, ...] = ()
    positive: str | None = None
    label_type: str = "string"

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise OptionError(f"The classes of a task must be distinct, but got {self.classes}.")
        if self.kind is TaskKind.MULTILABEL:
            self._check_labels()
            return
        if not self.kind.is_classification:
            if self.classes or self.positive is not None:
                raise OptionError(f"A {self.kind.value} task has no classes, but got {self.classes}.")
            return
        if len(self.classes) < 2 or (self.kind is TaskKind.BINARY and len(self.classes) != 2):
            wanted = "exactly 2" if self.kind is TaskKind.BINARY else "at least 2"
            raise OptionError(f"A {self.kind.value} task needs {wanted} classes, but got {self.classes}.")
        if self.kind is TaskKind.MULTICLASS:
            if self.positive is not None:
                raise OptionError("A multiclass task has no positive class.", hint="Make it binary, or leave it out.")
        elif self.positive is None:
            object.__setattr__(self, "positive", self.classes[1])
        elif self.positive != self.classes[1]:
            raise OptionError(
                f"The positive class must be the second one, but got {self.positive!r} for {self.classes}."
            )

    def _check_labels(self) -> None:
        if not self.classes or self.positive is not None:
            raise OptionError("A multi-label task needs at least one label, and has no positive one.")
        wrong = [c for c in self.classes if not c.strip() or JOINT in c]
        if wrong:
            raise OptionError(
                f"A label must not be empty or hold {JOINT!r}, which stands between labels, but got {wrong[0]!r}.",
                hint="Rename the label.",
            )

    @property
    def ignores_case(self) -> bool:
        """True where lines of text are read in lower case."""
        return self.label_type == FOLDED

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.classes)

    @property
    def n_outputs(self) -> int:
        """Width of a raw score: number of classes, or 1 for regression; transcripts are as wide as they are long."""
        return len(self.classes) if self.kind.has_labels else 1

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "kind": self.kind.value,
            "target": self.target,
            "classes": list(self.classes),
            "positive": self.positive,
            "label_type": self.label_type,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        """Rebuild from `to_json`."""
        return cls(
            kind=TaskKind(data["kind"]),
            target=data["target"],
            classes=tuple(data["classes"]),
            positive=data["positive"],
            label_type=data["label_type"],
        )
