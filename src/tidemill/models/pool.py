"""The pool: every family there is, and the space of all of them.

Families of this package are named here and loaded when first asked for; packages outside register theirs under the
entry point group ``tidemill.families``::

    [project.entry-points."tidemill.families"]
    mine = "mypackage.family:FAMILY"
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tidemill.core.errors import NotFoundError, SpaceError
from tidemill.core.space import Categorical, Param, Space, When
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.tabular._base import Family, TableProfile

GROUP = "tidemill.families"
"""Entry point group of families outside this package."""
_HOME = "tidemill.models.tabular.families"


@dataclass(frozen=True)
class Entry:
    """Where a family comes from, and what it needs.

    Parameters
    ----------
    name : str
        The family's name.
    place : str
        ``"module:object"``.
    package : str or None
        A package that must be installed.
    extra : str or None
        The extra of this package that brings it; None for a core dependency.
    origin : str
        ``"tidemill"``, or the package that registered the family.
    """

    name: str
    place: str
    package: str | None = None
    extra: str | None = None
    origin: str = "tidemill"

    @property
    def absent(self) -> str | None:
        """Why the family can't be used here; None where it can."""
        if self.package is not None and not _is_there(self.package):
            wanted = f"tidemill[{self.extra}]" if self.extra else self.package
            return f"the package {self.package!r} is not installed; install it with: pip install '{wanted}'"
        module = self.place.partition(":")[0]
        return None if _is_there(module) else f"{self.origin} registers it, but has no module {module!r}"

    def load(self) -> Family:
        """Import the family."""
        module, _, attribute = self.place.partition(":")
        family: Family = getattr(importlib.import_module(module), attribute)
        return family


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


# The order is the one in which a search tries them where nothing better is known.
_BUILT_IN = (
    Entry("lightgbm", f"{_HOME}.lightgbm:FAMILY", "lightgbm"),
    Entry("xgboost", f"{_HOME}.xgboost:FAMILY", "xgboost"),
    Entry("catboost", f"{_HOME}.catboost:FAMILY", "catboost", "catboost"),
    Entry("forest", f"{_HOME}.forest:FAMILY", "sklearn"),
    Entry("linear", f"{_HOME}.linear:FAMILY", "sklearn"),
    Entry("neighbours", f"{_HOME}.neighbours:FAMILY", "sklearn"),
    Entry("bayes", f"{_HOME}.bayes:FAMILY", "sklearn"),
    Entry("mlp", f"{_HOME}.mlp:FAMILY"),
    Entry("tabm", f"{_HOME}.tabm:FAMILY"),
)


def entries() -> tuple[Entry, ...]:
    """Return every known family, usable here or not (see `Entry.absent`).

    Examples
    --------
    >>> "lightgbm" in [entry.name for entry in entries()]
    True
    """
    return (*_BUILT_IN, *_outside())


@functools.lru_cache(maxsize=1)  # reading every installed package's metadata takes 80 ms; it can't change in a run
def _outside() -> tuple[Entry, ...]:
    return tuple(
        Entry(point.name, point.value, origin=point.dist.name if point.dist else "?")
        for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: (p.name, p.value))
    )


def families(names: Sequence[str] | None = None) -> dict[str, Family]:
    """Load the families that can be used here.

    Parameters
    ----------
    names : sequence of str or None
        Only these; None for all that are installed.

    Returns
    -------
    dict
        Families by name, in the order of the pool.

    Raises
    ------
    NotFoundError
        For a name that no family has, or whose package is not installed.

    Examples
    --------
    >>> list(families(["lightgbm"]))
    ['lightgbm']
    """
    known = {entry.name: entry for entry in entries()}
    for name in names or ():
        if name not in known:
            raise NotFoundError.of("family", name, known)
        if known[name].absent:
            raise NotFoundError(f"The family {name!r} can't be used: {known[name].absent}.")
    return {
        name: entry.load()
        for name, entry in known.items()
        if (names is None and entry.absent is None) or (names is not None and name in names)
    }


def listing() -> str:
    """Return a readable list of the families, with the reason for those that can't be used.

    Examples
    --------
    >>> listing().splitlines()[0]
    'lightgbm    tidemill'
    """
    width = max(len(entry.name) for entry in entries())
    return "\n".join(
        f"{entry.name:<{width}}  {entry.origin}{f' (not usable: {entry.absent})' if entry.absent else ''}"
        for entry in entries()
    )


def space(task: Task, profile: TableProfile, names: Sequence[str] | None = None) -> Space:
    """Join the spaces of the families that support a task.

    The parameter ``family`` comes first. A family's own parameters follow, ``"<family>.…"``, and its choices of
    treatment, ``"<family>.treatment.…"``, since each family has its own list; all are active for their family only.

    Parameters
    ----------
    task : Task
        The problem.
    profile : TableProfile
        The encoded table.
    names : sequence of str or None
        Only these families.

    Returns
    -------
    Space
        Of whole pipelines.

    Raises
    ------
    SpaceError
        If no family supports the task.
    """
    able = {name: f for name, f in families(names).items() if f.supports(task, profile)}
    if not able:
        raise SpaceError(
            f"No family can learn {task.kind.value} from {profile.rows} rows and {len(profile.features)} columns.",
            hint="Allow other families." if names else None,
        )
    params: list[Param] = [Categorical("family", tuple(able), next(iter(able)))]
    for name, family in able.items():
        own = (When("family", (name,)),)
        for treatment, choices in family.treatment(task, profile).items():
            params.append(Categorical(f"{name}.{treatment}", choices, choices[0], own))
        params += [replace(param, when=own + param.when) for param in family.space(task, profile)]
    return Space(params)


def default_config(family: str, task: Task, profile: TableProfile) -> Config:
    """Return a family's default config, its treatment included.

    Raises
    ------
    NotFoundError
        For a family that isn't there.
    SpaceError
        For a family that doesn't support the task.
    """
    return space(task, profile, [family]).default()
