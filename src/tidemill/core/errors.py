"""The error tree of Tidemill, drawn before the code that raises it.

::

    TidemillError                     something a person must know; ``exit_code`` 1
    ├── InputError                    fix what you gave us; ``exit_code`` 2
    │   ├── DataError                 a file, a row, a column
    │   ├── ExpressionError           a text in one of our small languages, with the position
    │   │   ├── ObjectiveError        an objective
    │   │   └── PredicateError        a condition on rows
    │   ├── SpaceError                a search space or a config
    │   ├── OptionError               an option or an argument
    │   │   └── RoleError             somebody lacks the role that this needs
    │   └── NotFoundError             no such column, study, dataset, bundle; offers the nearest
    ├── ConflictError                 somebody else changed it in the meantime
    ├── WorkspaceError                the workspace cannot be used (read-only, newer version, locked)
    ├── BundleError                   a bundle that is broken, or could not be proven
    │   └── ParityError               the graph and the trained model disagree
    ├── SearchError                   a search that could not end with a candidate
    ├── TrialError                    one trial failed; the search goes on
    │   ├── TrialMemoryError          it wanted more memory than the limit
    │   └── TrialTimeoutError         it ran past its limit
    ├── MissingExtraError             an optional package is absent; says what to install; ``exit_code`` 2
    └── InternalError                 ours; please report it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_BEFORE, _AFTER = 60, 50
"""Characters of an expression that are shown around a mistake."""


class TidemillError(Exception):
    """What is wrong, where, and what to do about it.

    Parameters
    ----------
    message : str
        What is wrong, with the facts: ``"`low <= high` must hold, but got (low=3, high=1)."``
    hint : str, optional
        What to do about it, one sentence.
    where : str, optional
        File, row, column, or option the message is about.

    Examples
    --------
    >>> str(TidemillError("The file is empty.", where="a.csv", hint="Give a file with a header."))
    'a.csv: The file is empty. Give a file with a header.'
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head} {self.hint}" if self.hint else head

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders; the keyword arguments must survive the trip.
        return (_rebuild, (type(self), self.message, self.hint, self.where, self.__dict__))


def _rebuild(
    kind: type[TidemillError], message: str, hint: str | None, where: str | None, state: dict[str, object]
) -> TidemillError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class InputError(TidemillError):
    """What was given can't be used as it is."""

    exit_code = 2


class DataError(InputError):
    """A file, a row or a column can't be used."""


class ExpressionError(InputError):
    """A text in one of our small languages can't be read; ``position`` is the 0-based offset in it."""

    def __init__(self, message: str, *, text: str = "", position: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.position = position

    def __str__(self) -> str:
        if not self.text:
            return super().__str__()
        # One line, however the text was laid out, and of a long one only the surroundings.
        start = max(0, self.position - _BEFORE)
        shown = "".join(" " if c.isspace() or not c.isprintable() else c for c in self.text)
        shown = shown[start : self.position + _AFTER]
        return f"{super().__str__()}\n  {shown}\n  {' ' * (self.position - start)}^"


class ObjectiveError(ExpressionError):
    """The text of an objective can't be read."""


class PredicateError(ExpressionError):
    """A condition on rows can't be read, fits no column, or does more than ask."""


class SpaceError(InputError):
    """A search space or a config that contradicts itself."""


class OptionError(InputError):
    """An option or an argument that can't be used."""


class RoleError(OptionError):
    """Somebody lacks the role that this needs."""


class NotFoundError(InputError):
    """There is nothing of that name; the nearest names are offered."""

    @classmethod
    def of(cls, noun: str, name: str, known: Iterable[str], *, hint: str | None = None) -> NotFoundError:
        """Build the message with the nearest known names.

        Examples
        --------
        >>> str(NotFoundError.of("column", "incme", ["age", "income"]))
        "There is no column 'incme'. Did you mean 'income'?"
        """
        names = [str(k) for k in known]
        return cls(f"There is no {noun} {name!r}.", hint=hint or nearest_hint(name, names))


class WorkspaceError(TidemillError):
    """The workspace can't be used: read-only, written by a newer version, or locked."""


class ConflictError(TidemillError):
    """Somebody else has changed it in the meantime; read again and repeat."""


class BundleError(TidemillError):
    """A bundle that is broken or incomplete."""


class ParityError(BundleError):
    """The exported graph and the trained model give different answers."""


class SearchError(TidemillError):
    """A search that could not end with a candidate."""


class TrialError(TidemillError):
    """One trial failed; the search goes on without it."""


class TrialMemoryError(TrialError):
    """A trial wanted more memory than its limit."""


class TrialTimeoutError(TrialError):
    """A trial ran past its time limit."""


class MissingExtraError(TidemillError):
    """An optional package is absent.

    Examples
    --------
    >>> str(MissingExtraError.of("catboost", "to train CatBoost models", extra="catboost"))
    "The package 'catboost' is needed to train CatBoost models. Install it with: pip install 'tidemill[catboost]'"
    """

    exit_code = 2

    @classmethod
    def of(cls, package: str, why: str, *, extra: str) -> MissingExtraError:
        """Build the message from the package, the reason it is needed and the extra that brings it."""
        return cls(
            f"The package {package!r} is needed {why}.", hint=f"Install it with: pip install 'tidemill[{extra}]'"
        )


class InternalError(TidemillError):
    """A law of ours is broken; this is a bug in Tidemill."""


def nearest_hint(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Say which known names are nearest to a mistyped one.

    Examples
    --------
    >>> nearest_hint("roc_acu", ["roc_auc", "rmse"])
    "Did you mean 'roc_auc'?"
    >>> nearest_hint("zzz", ["b", "a"])
    "Known: 'a', 'b'."
    """
    names = sorted({str(k) for k in known})
    folded: dict[str, list[str]] = {}
    for n in names:  # upper and lower case are the same slip
        folded.setdefault(n.casefold(), []).append(n)
    near = difflib.get_close_matches(name.casefold(), folded, n=limit, cutoff=0.6)
    close = [n for key in near for n in folded[key]][:limit]
    if close:
        return "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not names:
        return "There are none yet."
    shown = ", ".join(repr(n) for n in names[:12])
    return f"Known: {shown}{', …' if len(names) > 12 else ''}."
