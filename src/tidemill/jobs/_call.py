"""How a step's function is found and called, and how its error is told; the same in every executor."""

from __future__ import annotations

import importlib
import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from tidemill.core.errors import OptionError, TrialError, TrialMemoryError


@dataclass(frozen=True)
class Answer:
    """What a call came to: a value, or an error with its traceback."""

    value: Any = None
    error: Exception | None = None
    traceback: str | None = None


def resolve(call: str) -> Callable[..., Any]:
    """Find the function that ``"package.module:function"`` names.

    Examples
    --------
    >>> resolve("math:floor")(2.5)
    2
    """
    module, colon, name = call.partition(":")
    if not (module and colon and name):
        raise OptionError(f"A step's call reads 'package.module:function', but got {call!r}.")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise OptionError(f"There is no function {name!r} in {module}.")
    function: Callable[..., Any] = found
    return function


def answer(call: str, arguments: Mapping[str, Any]) -> Answer:
    """Call, and turn whatever happens into an answer; only ``KeyboardInterrupt`` goes through."""
    try:
        return Answer(value=resolve(call)(**arguments))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  a worker's edge: every failure becomes an outcome
        return failure(error)


def failure(error: BaseException) -> Answer:
    """Describe an error: memory by its own type, an attempt to leave the process as a failed step."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if isinstance(error, MemoryError):
        return Answer(
            error=TrialMemoryError(f"It ran out of memory: {str(error) or 'an allocation failed'}."), traceback=text
        )
    if not isinstance(error, Exception):
        return Answer(error=TrialError(f"It tried to leave its process: {error!r}."), traceback=text)
    return Answer(error=error, traceback=text)


def write_answer(given: Answer, file: BinaryIO) -> None:
    """Pickle an answer into a file; what can't cross to another process becomes a `TrialError` that says so."""
    if given.error is not None and not _returns_alike(given.error):
        given = Answer(error=TrialError(f"{type(given.error).__name__}: {given.error}"), traceback=given.traceback)
    try:
        pickle.dump(given, file, protocol=5)  # straight into the file: no second copy of a large result
    except Exception as error:  # noqa: BLE001  a worker's edge: pickling runs code of the value's own
        told = failure(TrialError(f"It returned a {type(given.value).__name__} that can't be sent back: {error}"))
        file.seek(0)
        file.truncate()
        pickle.dump(told, file, protocol=5)


def _returns_alike(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error, protocol=5))) is type(error)  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  a worker's edge: many errors of libraries can't be rebuilt from their arguments
        return False
