"""One thing that can be asked over HTTP, as data: the table of routes is also the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidemill.api.context import Context
from tidemill.api.shapes import Shape


@dataclass(frozen=True)
class Call:
    """A request after all checks.

    Parameters
    ----------
    context : Context
        What there is.
    actor : str
        Who asks, for the audit log.
    path, query, body : mapping
        Checked values.
    file : Path or None
        What was sent, where it came as a file.
    form : str
        Media type of the file.
    accept : str
        The header Accept.
    """

    context: Context
    actor: str
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    file: Path | None = None
    accept: str = ""
    form: str = ""


@dataclass(frozen=True)
class Content:
    """An answer that is no JSON of ours.

    Parameters
    ----------
    data : bytes
        As it is sent.
    type : str
        Its media type.
    """

    data: bytes
    type: str


@dataclass(frozen=True)
class Route:
    """One thing that can be asked.

    Parameters
    ----------
    method, path : str
        ``"GET"``, ``"/api/v1/endpoints/{endpoint}"``.
    scope : str
        What a key must be for; empty lets everybody in.
    about : str
        One line for people.
    answer : callable
        Gives plain JSON, `Content`, or a Starlette response; runs in a thread.
    body, query : Shape
        Fields that may be sent.
    status : int
        Of an answer.
    files : tuple of str
        Media types of files that the body may be; beside JSON where there are fields in ``body``.
    quick : bool
        True where an answer takes microseconds: it is then given before routing and without a thread, see
        `tidemill.api.quick`. Gives `Content`; its path has no parameters, and all methods of a path are quick or none.
    types : tuple of str
        Media types of its answers, among which the header Accept chooses.
    """

    method: str
    path: str
    scope: str
    about: str
    answer: Callable[[Call], Any]
    body: Shape = field(default_factory=dict)
    query: Shape = field(default_factory=dict)
    status: int = 200
    files: tuple[str, ...] = ()
    quick: bool = False
    types: tuple[str, ...] = ("application/json",)

    @property
    def id(self) -> str:
        """Name in the OpenAPI document."""
        return self.answer.__name__.strip("_")
