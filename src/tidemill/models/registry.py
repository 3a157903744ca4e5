"""What the pools of nets share: families described as data, loaded when one is used.

A modality's pool is a `Registry` with the entries that come with Tidemill, and the configs that are worth a try there.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from tidemill.core.errors import NotFoundError, SpaceError
from tidemill.core.space import Categorical, Param, Space, When
from tidemill.core.task import Task, TaskKind
from tidemill.models.pretrained.architectures import Architecture

EXTRA = "deep"
"""What brings torch and the exporter."""
TASKS = tuple(kind.value for kind in TaskKind if kind.has_labels or kind is TaskKind.REGRESSION)
"""Kinds of tasks that most families learn."""


class AnyFamily(Protocol):
    """What a registry asks of a family, whatever it learns from."""

    def supports(self, task: Task, profile: Any) -> bool:
        """True where the family can learn such a task from such rows."""

    def space(self, task: Task, profile: Any) -> Space:
        """The family's own hyper-parameters."""

    def restore(self, state: dict[str, Any], task: Task) -> Any:
        """Undo the checkpoint of a trained model."""


F = TypeVar("F", bound=AnyFamily)
M = TypeVar("M")


@dataclass(frozen=True)
class Entry:
    """What is known of a family without loading it.

    Parameters
    ----------
    name : str
        The family's name.
    place : str
        ``"module:object"``.
    about : str
        One sentence.
    weights : tuple of str
        Kinds of trained weights that it can begin from; none where it begins from nothing.
    licence : str
        Of its code; weights have their own.
    packages : tuple of str
        What must be installed.
    export : str
        Form in which it leaves the house.
    origin : str
        ``"tidemill"``, or the package that registered the family.
    extra : str
        What brings the packages.
    tasks : tuple of str
        Kinds of tasks that it learns.
    architectures : tuple of Architecture
        Of the weights that it is known to work with, where it begins from those of others.
    """

    name: str
    place: str
    about: str = ""
    weights: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    packages: tuple[str, ...] = ("torch", "onnxscript")
    export: str = "onnx"
    origin: str = "tidemill"
    extra: str = EXTRA
    tasks: tuple[str, ...] = TASKS
    architectures: tuple[Architecture, ...] = ()

    @property
    def absent(self) -> str | None:
        """Why the family can't be used here; None where it can."""
        gone = [p for p in self.packages if not _is_there(p)]
        if gone:
            noun = "the package" if len(gone) == 1 else "the packages"
            named = ", ".join(repr(p) for p in gone)
            verb = "is" if len(gone) == 1 else "are"
            return f"{noun} {named} {verb} not installed; install: pip install 'tidemill[{self.extra}]'"
        return None

    def load(self) -> Any:
        """Import the family."""
        module, _, attribute = self.place.partition(":")
        return getattr(importlib.import_module(module), attribute)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


@dataclass(frozen=True)
class Registry(Generic[F, M]):
    """The families of one modality, and what their trained models are.

    Parameters
    ----------
    noun : str
        What they learn from, for messages: ``"images"``.
    group : str
        Entry point group of families outside this package.
    built_in : tuple of Entry
        In the order in which a search tries them where nothing better is known.

    Examples
    --------
    >>> registry = Registry("stones", "tidemill.no_such_group", (Entry("pebble", "nowhere:X", packages=()),))
    >>> [entry.name for entry in registry.entries()]
    ['pebble']
    """

    noun: str
    group: str
    built_in: tuple[Entry, ...]

    def entries(self) -> tuple[Entry, ...]:
        """Every known family, usable here or not (see `Entry.absent`)."""
        return (*self.built_in, *_outside(self.group))

    def families(self, names: Sequence[str] | None = None) -> dict[str, F]:
        """Load the families that can be used here.

        Parameters
        ----------
        names : sequence of str or None
            Only these; None for all that are installed.

        Raises
        ------
        NotFoundError
            For a name that no family has, or whose packages are not installed.
        """
        known = {entry.name: entry for entry in self.entries()}
        for name in names or ():
            if name not in known:
                raise NotFoundError.of(f"family for {self.noun}", name, known)
            if known[name].absent:
                raise NotFoundError(f"The family {name!r} can't be used: {known[name].absent}.")
        chosen = names or [name for name, entry in known.items() if entry.absent is None]
        return {name: known[name].load() for name in known if name in chosen}

    def able(self, task: Task, profile: Any, names: Sequence[str] | None, hint: str | None = None) -> dict[str, F]:
        """Load the families that support a task.

        Raises
        ------
        SpaceError
            If there is none; ``hint`` says what to do, by default other families or more rows.
        """
        found = {name: f for name, f in self.families(names).items() if f.supports(task, profile)}
        if not found:
            message = f"No family can learn {task.kind.value} from {profile.rows} {self.noun}."
            more = f"Allow other families, or give more {self.noun}." if names else f"Give more {self.noun}."
            raise SpaceError(message, hint=hint or more)
        return found

    def restore(self, state: Mapping[str, Any], task: Task) -> M:
        """Undo the checkpoint of a trained model, whatever family it is of."""
        name = str(state["family"])
        found: M = self.families([name])[name].restore(dict(state), task)
        return found


def joined_space(able: Mapping[str, AnyFamily], task: Task, profile: Any) -> Space:
    """Join the spaces of families; ``family`` comes first, and a family's own parameters are active for it alone."""
    params: list[Param] = [Categorical("family", tuple(able), next(iter(able)))]
    for name, family in able.items():
        own = (When("family", (name,)),)
        params += [replace(param, when=own + param.when) for param in family.space(task, profile)]
    return Space(params)


@functools.lru_cache(maxsize=8)  # reading every installed package's metadata takes 80 ms; it can't change in a run
def _outside(group: str) -> tuple[Entry, ...]:
    points = sorted(importlib.metadata.entry_points(group=group), key=lambda p: (p.name, p.value))
    return tuple(Entry(p.name, p.value, licence="", packages=(), origin=p.dist.name if p.dist else "?") for p in points)
