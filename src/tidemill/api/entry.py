"""Who is let in: the check that every request passes before anything of it is read."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import QueryParams

from tidemill.api.context import Context
from tidemill.api.errors import HttpError

LOCAL = "local"
"""Who asks where no keys are demanded."""
JSON = "application/json"

_HERE = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.ASCII | re.IGNORECASE)


def let_in(context: Context, scope: str, endpoint: str, *, host: str, authorization: str, key: str | None) -> str:
    """Say who asks.

    Parameters
    ----------
    context : Context
        Whose ring checks the key.
    scope : str
        What the key must be for; empty lets everybody in.
    endpoint : str
        Which endpoint it must be for; empty for none.
    host, authorization : str
        Headers, empty where absent.
    key : str or None
        The header x-api-key.

    Raises
    ------
    TidemillError
        401, 403 or 429, see `tidemill.deploy.keyring.KeyRing.identify`.
    """
    if context.ring is None:
        # A page from elsewhere, open in a browser on this machine, may send requests here under its own name.
        if not _HERE.fullmatch(host):
            raise HttpError(403, "Without keys only this machine may ask.", hint="Use the address 127.0.0.1.")
        return LOCAL
    if not scope:
        return ""
    token = authorization[7:].strip() if authorization[:7].lower() == "bearer " else key
    return f"key:{context.ring.identify(token, scope, endpoint).id}"


def need_type(content_type: str, wanted: str) -> None:
    """Refuse a body of another type: pages from elsewhere can send forms and text without being asked, but not ours."""
    if content_type != wanted and content_type.partition(";")[0].strip().lower() != wanted:
        raise HttpError(415, f"The body must be of the type {wanted}.", hint=f"Send Content-Type: {wanted}.")


def file_type(content_type: str, files: Collection[str], *, json: bool) -> str:
    """Say as which kind of file a body comes; empty for JSON.

    Parameters
    ----------
    content_type : str
        The header.
    files : collection of str
        Media types of files that may be sent.
    json : bool
        Whether JSON may be sent, too.

    Raises
    ------
    HttpError
        415 for a body of another type.
    """
    given = content_type.partition(";")[0].strip().lower()
    if given in files:
        return given
    if json and given == JSON:
        return ""
    known = [*([JSON] if json else []), *files]
    hint = f"Send Content-Type: {known[0]}."
    raise HttpError(415, f"The body must be of the type {' or '.join(known)}.", hint=hint)


def once(query: QueryParams) -> dict[str, str]:
    """Give the parameters of a query, each of which may be given once."""
    found: dict[str, str] = {}
    for name, value in query.multi_items():
        if name in found:
            raise HttpError(400, f"The parameter {name!r} is given twice.")
        found[name] = value
    return found
