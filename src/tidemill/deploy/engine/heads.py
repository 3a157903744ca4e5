"""What the headers of a request say."""

from __future__ import annotations

from collections.abc import Mapping

from tidemill.deploy.engine.refusal import bad_request

JSON_BYTES = b"inference-header-content-length"
MOST_DEADLINE_MS = 600_000.0
_NO_FLOAT = float("nan")


def key_of(headers: Mapping[bytes, bytes]) -> str | None:
    """API key; None where there is none."""
    given = headers.get(b"authorization", b"")
    if given[:7].lower() == b"bearer ":
        return given[7:].strip().decode("latin-1")
    key = headers.get(b"x-api-key")
    return None if key is None else key.decode("latin-1")


def json_bytes_of(headers: Mapping[bytes, bytes]) -> int | None:
    """Where the JSON ends and binary tensors begin; None where all of it is JSON."""
    given = headers.get(JSON_BYTES)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12:
        raise bad_request("Inference-Header-Content-Length must be a whole number.")
    return int(given)


def request_id_of(headers: Mapping[bytes, bytes]) -> str | None:
    """Name that the caller gave to the request."""
    given = headers.get(b"x-request-id")
    if given is None:
        return None
    if not 0 < len(given) <= 128 or any(not 33 <= c <= 126 for c in given):
        raise bad_request("X-Request-Id must have 1 to 128 visible ASCII characters.")
    return given.decode("ascii")


def deadline_ms_of(headers: Mapping[bytes, bytes], default: float) -> float:
    """How long the answer may take."""
    given = headers.get(b"x-deadline-ms")
    if given is None:
        return default
    try:
        ms = float(given)
    except ValueError:
        ms = _NO_FLOAT
    if not 0 < ms <= MOST_DEADLINE_MS:
        raise bad_request(f"X-Deadline-Ms must be a number above 0 and at most {MOST_DEADLINE_MS:,.0f}.")
    return ms


def parent_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's span; empty where there is none, or nobody follows it."""
    return headers.get(b"traceparent", b"").decode("latin-1")
