"""API keys: who may do what, how often. Of a key only a hash is stored, and it is shown once.

A key's secret has 256 random bits. What makes slow hashes (scrypt, argon2) necessary is that people choose passwords
which can be guessed; nobody guesses 256 bits, so one BLAKE2b is as safe, and takes a microsecond instead of the 50 ms
that a request cannot afford.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tidemill.core.errors import NotFoundError, OptionError, TidemillError, nearest_hint
from tidemill.core.protocols import Change, Journal, RecordStore
from tidemill.deploy.audit import Audit, Line
from tidemill.deploy.traffic import check_name

KEY = "key"
"""Kind of the records."""
USAGE = "key_usage"
"""Kind of the records that count requests: one for each key, period and front."""

SCOPES = ("predict", "feedback", "features", "data", "deploy", "jobs", "admin")
"""What a key may be for; ``admin`` may do everything."""
_INCLUDED = {"deploy": ("data",)}
"""Scopes that a scope brings along: who may change what is served has always been let in to the data."""
PERIODS = {"hour": 3600, "day": 86_400, "week": 604_800}
"""Seconds of the periods that a quota may be for, counted from 1970-01-01 UTC."""

_PREFIX = "tm"
_TOKEN = re.compile(r"tm_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_PERSON = b"tidemill api key"
_NOBODY = "0" * 64


class AccessError(TidemillError):
    """A key that is absent, not known, or may not do this.

    Parameters
    ----------
    status : int
        401 who are you, 403 not you, 429 not so often.
    message : str
        For people.
    retry_after_s : float, optional
        When it may be tried again.
    """

    def __init__(
        self, status: int, message: str, *, hint: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = {401: "unauthorised", 403: "forbidden", 429: "too_many_requests"}[status]
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Key:
    """One API key, without its secret.

    Parameters
    ----------
    id : str
        12 hex digits, part of the token.
    name : str
        For people.
    hash : str
        Of the whole token, 64 hex digits.
    scopes : tuple of str
        See `SCOPES`.
    endpoints : tuple of str
        Endpoints that it is for; empty means all.
    rate : float
        Requests per second that it may make in the long run; 0 means any.
    burst : int
        Requests that it may make at once.
    quota : int
        Requests in each period; 0 means any.
    period : str
        See `PERIODS`.
    created_at, expires_at, revoked_at : float
        Seconds since 1970; 0 means never.
    """

    id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    endpoints: tuple[str, ...] = ()
    rate: float = 0.0
    burst: int = 0
    quota: int = 0
    period: str = "day"
    created_at: float = 0.0
    expires_at: float = 0.0
    revoked_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "scopes": list(self.scopes), "endpoints": list(self.endpoints)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Key:
        """Rebuild from `to_json`."""
        return cls(**{**data, "scopes": tuple(data["scopes"]), "endpoints": tuple(data["endpoints"])})

    def state(self, now: float) -> str:
        """``"active"``, ``"expired"`` or ``"revoked"``."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and now >= self.expires_at else "active"

    def check(self, scope: str, endpoint: str, now: float) -> None:
        """Raise `AccessError` where the key may not do this."""
        state = self.state(now)
        if state != "active":
            raise AccessError(401, f"The API key {self.id} is {state}.", hint="Ask for a new one.")
        if not opens(self.scopes, scope):
            held = ", ".join(self.scopes)
            raise AccessError(403, f"The API key {self.id} is for {held}, not for {scope}.")
        if self.endpoints and endpoint not in self.endpoints:
            what = f"the endpoint {endpoint!r}" if endpoint else "this"
            raise AccessError(403, f"The API key {self.id} is not for {what}.")


def opens(scopes: Collection[str], wanted: str) -> bool:
    """Say whether a key with some scopes is for something.

    Examples
    --------
    >>> opens(["deploy"], "data"), opens(["data"], "deploy"), opens(["admin"], "jobs")
    (True, False, True)
    """
    return wanted in scopes or "admin" in scopes or any(wanted in _INCLUDED.get(held, ()) for held in scopes)


def token_hash(token: str) -> str:
    """Hash of a token.

    Examples
    --------
    >>> len(token_hash("tm_…"))
    64
    """
    return hashlib.blake2b(token.encode(), digest_size=32, person=_PERSON).hexdigest()


def token_id(token: str | None) -> str:
    """Id of the key that a token claims to be.

    Raises
    ------
    AccessError
        Without a token, or for one that has not the form of ours.
    """
    hint = "Send it as `Authorization: Bearer tm_…`; a key is made by: tidemill keys create."
    if not token:
        raise AccessError(401, "An API key is needed.", hint=hint)
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise AccessError(401, "This is not an API key of this platform.", hint=hint)
    return match[1]


def find_key(keys: Mapping[str, Key], token: str | None) -> Key:
    """Find the key of a token; raises `AccessError` where there is none.

    The hashes are compared in constant time, and a key that is not known takes as long as one that is.
    """
    key = keys.get(token_id(token))
    standing = _NOBODY if key is None else key.hash
    if not hmac.compare_digest(standing, token_hash(token or "")) or key is None:
        raise AccessError(401, "There is no such API key.", hint="Ask for a new one.")
    return key


class Keys:
    """The keys of a workspace.

    Parameters
    ----------
    records, journal : RecordStore, Journal
        Of the workspace.
    actor : str
        Who makes changes, for the audit log.
    clock : callable
        Gives the time in seconds since 1970.
    """

    def __init__(
        self, records: RecordStore, journal: Journal, *, actor: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._records = records
        self._audit = Audit(records, journal, clock=clock)
        self._actor = actor
        self._clock = clock

    def create(
        self,
        name: str,
        scopes: Sequence[str] = ("predict",),
        *,
        endpoints: Sequence[str] = (),
        rate: float = 0.0,
        burst: int = 0,
        quota: int = 0,
        period: str = "day",
        expires_s: float = 0.0,
    ) -> tuple[Key, str]:
        """Make a key.

        Parameters
        ----------
        name : str
            For people: who uses it, for what.
        scopes : sequence of str
            See `SCOPES`.
        endpoints : sequence of str
            Endpoints that it is for; empty means all.
        rate : float
            Requests per second in the long run; 0 means any.
        burst : int
            Requests at once; default one second's worth.
        quota : int
            Requests in each period; 0 means any.
        period : str
            ``"hour"``, ``"day"`` or ``"week"``.
        expires_s : float
            Seconds from now after which it is void; 0 means never.

        Returns
        -------
        tuple
            The key, and its token: it is not stored, this is the only time that it is seen.

        Raises
        ------
        OptionError
            For a scope, period or number that can't be used.
        """
        _check(name, scopes, endpoints, period, {"rate": rate, "burst": burst, "quota": quota, "expires": expires_s})
        now = self._clock()
        ident = secrets.token_hex(6)
        token = f"{_PREFIX}_{ident}_{secrets.token_urlsafe(32)}"
        key = Key(
            ident, name, token_hash(token), tuple(dict.fromkeys(scopes)), tuple(endpoints), float(rate),
            int(burst) or (max(1, round(rate)) if rate else 0), int(quota), period, now,
            now + expires_s if expires_s else 0.0,
        )  # fmt: skip
        facts = {k: v for k, v in key.to_json().items() if k != "hash"}
        self._audit.change([Change(KEY, ident, key.to_json(), 0)], [self._line("key_create", ident, facts)])
        return key, token

    def all(self) -> list[Key]:
        """All keys, oldest first, revoked ones too."""
        found = [Key.from_json(r.body) for r in self._records.find(KEY)]
        return sorted(found, key=lambda k: (k.created_at, k.id))

    def revoke(self, key: str) -> Key:
        """End a key, by its id or a name that only one active key has. It ends everywhere within a second.

        Raises
        ------
        NotFoundError
            With the nearest.
        OptionError
            For a name of several keys.
        """
        found = [k for k in self.all() if k.id == key]
        found = found or [k for k in self.all() if k.name == key and not k.revoked_at]
        if not found:
            raise NotFoundError.of("key", key, [n for k in self.all() for n in (k.id, k.name)])
        if len(found) > 1:
            raise OptionError(f"{len(found)} keys are called {key!r}.", hint="Give the id; see: tidemill keys list.")
        after = replace(found[0], revoked_at=found[0].revoked_at or self._clock())
        line = self._line("key_revoke", after.id, {"name": after.name})
        self._audit.change([Change(KEY, after.id, after.to_json())], [line])
        return after

    def used(self) -> dict[str, int]:
        """Requests of each key in its running period, by id."""
        now = self._clock()
        counts: dict[str, int] = {}
        for key in self.all():
            mark = f"{key.id}/{period_number(key.period, now)}/"
            counts[key.id] = sum(int(r.body["count"]) for r in self._records.find(USAGE, mark))
        return counts

    def _line(self, kind: str, subject: str, facts: Mapping[str, Any]) -> Line:
        return Line(kind, subject, facts, actor=self._actor)


def period_number(period: str, now: float) -> int:
    """Number of the period that a moment lies in.

    Examples
    --------
    >>> period_number("day", 86_400 * 3 + 5)
    3
    """
    return int(now // PERIODS[period])


def _check(
    name: str, scopes: Collection[str], endpoints: Collection[str], period: str, numbers: Mapping[str, float]
) -> None:
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise OptionError("A key's name has 1 to 100 printable characters.", where="--name")
    if not scopes:
        raise OptionError("A key needs a scope.", hint=f"Known: {', '.join(SCOPES)}.", where="--scope")
    for scope in scopes:
        if scope not in SCOPES:
            raise OptionError(f"There is no scope {scope!r}.", hint=nearest_hint(scope, SCOPES), where="--scope")
    for endpoint in endpoints:
        check_name(endpoint)
    if period not in PERIODS:
        raise OptionError(f"There is no period {period!r}.", hint=nearest_hint(period, PERIODS), where="--period")
    for what, value in numbers.items():
        if not 0 <= value < 1e15:
            raise OptionError(f"{what} must be at least 0 and finite, but got {value}.", where=f"--{what}")
