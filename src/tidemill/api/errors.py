"""The one table that turns errors into HTTP statuses and JSON."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import (
    BundleError,
    ConflictError,
    ExpressionError,
    InputError,
    MissingExtraError,
    NotFoundError,
    RoleError,
    TidemillError,
    WorkspaceError,
)

_STATUSES: tuple[tuple[type[TidemillError], int], ...] = (
    (NotFoundError, 404),
    (RoleError, 403),
    (InputError, 400),
    (ConflictError, 409),
    (BundleError, 422),
    (MissingExtraError, 501),
    (WorkspaceError, 503),
)


class HttpError(TidemillError):
    """A request that can't be answered for reasons of HTTP: its path, method, size or form."""

    def __init__(
        self, status: int, message: str, *, hint: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after_s = retry_after_s


def status_of(error: TidemillError) -> int:
    """HTTP status of an error.

    Examples
    --------
    >>> status_of(NotFoundError("There is no such thing.")), status_of(TidemillError("Oh."))
    (404, 500)
    """
    own = getattr(error, "status", None)
    if isinstance(own, int):
        return own
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def body_of(error: TidemillError) -> dict[str, Any]:
    """JSON of an error: what is wrong, what to do, where; places in a condition or an objective count from 1."""
    # Of roles it names a variable that holds for the command line; here the key says who asks.
    where = None if isinstance(error, RoleError) else error.where
    if where is None and isinstance(error, ExpressionError) and error.text:
        where = f"character {error.position + 1}"
    return {"error": error.message, "hint": error.hint, "where": where}
