"""Kinds of jobs: what a queue can run, by name. A job is a name and plain arguments, never code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidemill.core.errors import NotFoundError, OptionError, nearest_hint

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "path": (str,),
    "data": (str,),
    "weights": (str,),
    "code": (str,),
    "objective": (str,),
    "duration": (str, int, float),
    "size": (str, int),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


@dataclass(frozen=True)
class Argument:
    """One argument of a kind.

    Parameters
    ----------
    type : str
        ``"string"``, ``"path"`` (a file or folder), ``"data"`` (a file, or the name of a dataset version),
        ``"weights"`` (a file or folder, the name of a study, or of weights elsewhere), ``"code"``
        (``FILE.py:FUNCTION``; never from another machine, ``local`` or not), ``"objective"``, ``"duration"``
        (``"2h"``, or seconds), ``"size"`` (``"4GB"``, or bytes), ``"number"``, ``"integer"``, ``"boolean"``,
        ``"object"`` or ``"array"``.
    about : str
        For people.
    required : bool
        Must be given.
    items : str
        Type of the members of an array, or of the values of an object; empty for any.
    local : bool
        Only for callers on this machine.
    """

    type: str
    about: str
    required: bool = False
    items: str = ""
    local: bool = False

    def fits(self, value: Any) -> bool:
        """Whether a value has the type; None stands for an argument that is not given."""
        if value is None:
            return not self.required
        if not _is(self.type, value):
            return False
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return not self.items or all(_is(self.items, member) for member in members)

    @property
    def wanted(self) -> str:
        """Its type in words."""
        return f"{self.type} of the type {self.items}" if self.items else self.type


def _is(form: str, value: Any) -> bool:
    if isinstance(value, bool) and form != "boolean":
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, _TYPES[form])


@dataclass(frozen=True)
class Kind:
    """Something that a queue can run.

    Parameters
    ----------
    name : str
        By which it is asked for.
    call : str
        ``"package.module:function"``; called in a process of its own with a
        `tidemill.jobs.queue.context.JobContext` and the arguments by name; gives plain JSON.
    about : str
        One line for people.
    arguments : mapping of str to Argument
        What may be given.
    cpus : int
        Cores where nobody says how many; 0 for all of the worker that takes the job.
    review : str
        ``"package.module:function"``; called with the arguments by name when a job is queued, and raises where their
        values can't be meant. Empty for none.
    """

    name: str
    call: str
    about: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    cpus: int = 1
    review: str = ""

    def check(self, given: Mapping[str, Any], *, afar: bool = False) -> dict[str, Any]:
        """Give the arguments if they fit, those that are None left out.

        Parameters
        ----------
        given : mapping
            By name.
        afar : bool
            True for a caller on another machine.

        Raises
        ------
        OptionError
            With all that is wrong.
        """
        wrong = []
        for name in given:
            if name not in self.arguments:
                wrong.append(f"there is no argument {str(name)!r} ({nearest_hint(str(name), self.arguments)})")
        for name, argument in self.arguments.items():
            if argument.required and given.get(name) is None:
                wrong.append(f"the argument {name!r} is missing")
            elif name in given and not argument.fits(given[name]):
                wrong.append(
                    f"the argument {name!r} must be of the type {argument.wanted}, but got {given[name]!r:.80}"
                )
            elif afar and argument.local and given.get(name) is not None:
                wrong.append(f"the argument {name!r} is for callers on the machine itself")
        if wrong:
            raise OptionError(f"The job can't be queued: {'; '.join(wrong)}.", where=self.name)
        return {name: value for name, value in given.items() if value is not None}


class Kinds:
    """The kinds that a program knows.

    Parameters
    ----------
    kinds : iterable of Kind
        All of them.

    Examples
    --------
    >>> kinds = Kinds([Kind("gc", "package.module:gc", "Tidies up.")])
    >>> kinds.get("gc").about
    'Tidies up.'
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._kinds = {kind.name: kind for kind in kinds}

    def get(self, name: str) -> Kind:
        """Raises `NotFoundError` with the nearest names."""
        if name not in self._kinds:
            raise NotFoundError.of("kind of job", name, self._kinds)
        return self._kinds[name]

    def all(self) -> list[Kind]:
        """All kinds by name."""
        return [self._kinds[name] for name in sorted(self._kinds)]

    @property
    def names(self) -> frozenset[str]:
        """Names of all kinds."""
        return frozenset(self._kinds)
