"""A small client for the serving front: rows in, predictions out; it tries again without ever counting twice."""

from __future__ import annotations

import http.client
import json
import random
import secrets
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from tidemill.core.errors import OptionError, TidemillError

_AGAIN = frozenset((408, 429, 502, 503, 504))


class ServingError(TidemillError):
    """The server did not answer with predictions.

    Parameters
    ----------
    message : str
        What it said.
    status : int
        HTTP status; 0 where it was not reached.
    code : str
        For programs.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "unreachable") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Client:
    """Talks to one server over one connection; not for several threads at once.

    A request that was refused for the moment, or whose connection broke, is sent again under the same idempotency key,
    after the time that the server asks for or after a growing pause. Nothing else is tried again.

    Parameters
    ----------
    url : str
        Where the server listens.
    key : str, optional
        API key.
    attempts : int
        How often a request is sent at most.
    timeout_s : float
        For each attempt.
    deadline_ms : float, optional
        Sent along: the server refuses what it can't answer in that time.
    certificates : str, optional
        File with the certificates that are trusted, for ``https``.
    sleep : callable
        Waits for seconds.

    Examples
    --------
    >>> Client("http://127.0.0.1:8080").url
    'http://127.0.0.1:8080'
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        key: str | None = None,
        *,
        attempts: int = 5,
        timeout_s: float = 30.0,
        deadline_ms: float | None = None,
        certificates: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError(f"{url!r} is no address of a server.", hint="Give one like http://127.0.0.1:8080.")
        if attempts < 1:
            raise OptionError(f"`attempts` must be at least 1, but got {attempts}.")
        self.url = url.rstrip("/")
        self._parts = parts
        self._base = parts.path.rstrip("/")
        self._key = key
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._deadline_ms = deadline_ms
        self._tls = ssl.create_default_context(cafile=certificates) if parts.scheme == "https" else None
        self._sleep = sleep
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ------------------------------------------------------------------------------------------------------- requests

    def predict(
        self, endpoint: str, records: Sequence[Mapping[str, Any]] | Mapping[str, Any], *, sticky: str | None = None
    ) -> dict[str, Any]:
        """Predict rows.

        Parameters
        ----------
        endpoint : str
            Name of the model.
        records : sequence of mapping, or one mapping
            Rows by column name.
        sticky : str, optional
            Callers with the same key meet the same revision.

        Returns
        -------
        dict
            ``predictions`` with ``label`` (or ``labels``) and ``probabilities`` (or ``value``) for each row,
            ``request_id`` for feedback, ``model`` and ``revision``.

        Raises
        ------
        ServingError
            With the server's word.
        """
        rows = [records] if isinstance(records, Mapping) else list(records)
        headers = {} if sticky is None else {"X-Sticky-Key": sticky}
        answer: dict[str, Any] = self._post(f"/v1/predict/{quote(endpoint, safe='')}", {"records": rows}, headers)
        return answer

    def infer(self, endpoint: str, inputs: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """Send tensors by the Open Inference Protocol v2, as JSON; ``more`` are further fields of the request."""
        path = f"/v2/models/{quote(endpoint, safe='')}/infer"
        answer: dict[str, Any] = self._post(path, {"inputs": list(inputs), **more}, {})
        return answer

    def feedback(self, endpoint: str, items: Sequence[Mapping[str, Any]]) -> int:
        """Say what was right: items with ``request_id``, ``label`` and, for the later rows of a request, ``row``.

        Where a row may have several labels, ``label`` is a list or a set of all of them; an empty one says that none
        applies.

        Returns
        -------
        int
            How many are now kept durably.
        """
        sent = [{**item, "label": _listed(item["label"])} if "label" in item else dict(item) for item in items]
        answer = self._post(f"/v1/feedback/{quote(endpoint, safe='')}", {"items": sent}, {})
        return int(answer["kept"])

    def models(self) -> list[dict[str, Any]]:
        """Names, versions and states of all models."""
        found: list[dict[str, Any]] = self._post("/v2/repository/index", {}, {})
        return found

    def ready(self) -> bool:
        """True where all models can answer."""
        try:
            status, _, _ = self._once("GET", "/v2/health/ready", None, {})
        except (OSError, http.client.HTTPException):
            self.close()
            return False
        return status == 200

    # ------------------------------------------------------------------------------------------------------ attempts

    def _post(self, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        data = json.dumps(body).encode()
        sent = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16), **headers}
        if self._key is not None:
            sent["Authorization"] = f"Bearer {self._key}"
        if self._deadline_ms is not None:
            sent["X-Deadline-Ms"] = f"{self._deadline_ms:g}"
        trouble = ServingError("The server was not reached.")
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(pause_s(attempt, getattr(trouble, "retry_after_s", None)))
            try:
                status, _, answer = self._once("POST", path, data, sent)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                trouble = ServingError(
                    f"The server can't be reached at {self.url} ({str(error) or type(error).__name__})."
                )
                continue
            told = _read(answer)
            if status == 200:
                return told
            refused = told if isinstance(told, dict) else {}
            trouble = ServingError(
                str(refused.get("error") or f"The server answered with status {status}."),
                status=status,
                code=str(refused.get("code", "failed")),
            )
            if status not in _AGAIN:
                break
            trouble.retry_after_s = refused.get("retry_after_s")  # type: ignore[attr-defined]
        raise trouble

    def _once(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        if self._connection is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._tls is not None:
                self._connection = http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        self._connection.request(method, self._base + path, data, dict(headers))
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, dict(answer.getheaders()), body


def pause_s(attempt: int, asked_s: float | None) -> float:
    """Seconds before the next attempt: what the server asks for, else a growing time; never all callers at once.

    Examples
    --------
    >>> 2.0 <= pause_s(1, 2.0) <= 2.5
    True
    >>> 0.05 <= pause_s(1, None) <= 0.1
    True
    """
    if asked_s is not None:
        return float(asked_s) * (1 + 0.25 * random.random())
    return float(min(2.0, 0.1 * 2 ** (attempt - 1)) * (0.5 + 0.5 * random.random()))


def _listed(label: Any) -> Any:
    return sorted(label, key=str) if isinstance(label, (set, frozenset)) else label


def _read(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None
