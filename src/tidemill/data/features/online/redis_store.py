"""Packed rows in Redis (or a server that speaks like it): one string for a row, one for its patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis

from tidemill.core.errors import OptionError, WorkspaceError
from tidemill.data.features.online._base import (
    Cell,
    Change,
    Span,
    check_items,
    check_key,
    cut,
)

TIMEOUT_S = 10.0
"""How long one answer of the server may take."""
_SCAN_ROWS = 256
_FEW_SPANS = 4
"""Up to so many pieces are asked for one by one; of more, the whole row travels faster."""
_ATTEMPTS = 20

_PUT = """
local function older(old, new)
  for i = 1, 16 do
    local a, b = string.byte(old, i), string.byte(new, i)
    if a ~= b then return b < a end
  end
  return false
end
for _, key in ipairs(KEYS) do
  local old = redis.call('GETRANGE', key, 0, 15)
  if #old == 16 and older(old, ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
"""


class RedisStore:
    """An `OnlineStore` on a Redis server.

    Every call is one transaction (``MULTI``/``EXEC``): a connection that breaks leaves it done or not done, and it can
    be repeated. What a power cut leaves is up to the server: ``appendonly yes`` with ``appendfsync always`` keeps
    what was acknowledged.

    Parameters
    ----------
    url : str
        ``redis://[user:password@]host:port/number`` or ``rediss://…`` for TLS.
    namespace : str
        First part of every key, so that workspaces can share a server. The virtual shard is the hash tag behind it:
        on a cluster the rows of a shard lie in one slot.
    timeout_s : float
        How long one answer may take.
    """

    def __init__(self, url: str, *, namespace: str = "tidemill", timeout_s: float = TIMEOUT_S) -> None:
        try:
            self._client = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        except ValueError as error:
            raise OptionError(f"This is no Redis URL: {error}", hint="Give redis://host:port/0.") from error
        place = self._client.connection_pool.connection_kwargs
        self.where = f"redis://{place.get('host', 'localhost')}:{place.get('port', 6379)}/{place.get('db', 0)}"
        self._namespace = namespace.encode()
        try:
            self._put = self._client.script_load(_PUT)
        except redis.RedisError as error:
            self.close()
            raise self._refused(error) from error

    def __repr__(self) -> str:
        return f"RedisStore({self.where!r})"

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Write whole rows in one transaction; older ones are left out. See `OnlineStore`."""
        check_items(items)
        if not items:
            return 0
        try:
            return self._put_many(items)
        except redis.exceptions.NoScriptError:  # the server was started anew
            self._put = self._client.script_load(_PUT)
            return self._put_many(items)
        except redis.RedisError as error:
            raise self._refused(error) from error

    def _put_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        with self._client.pipeline(transaction=True) as pipe:
            for key, row in items:
                pipe.evalsha(self._put, 2, self._row(key), self._patch(key), row)
            return sum(pipe.execute())

    def get(self, key: bytes) -> Cell:
        """Read one cell. See `OnlineStore`."""
        return self.get_many((key,))[0]

    def get_many(self, keys: Sequence[bytes]) -> list[Cell]:
        """Read the cells of keys with one question. See `OnlineStore`."""
        if not keys:
            return []
        try:
            return self._cells(self._client, keys)
        except redis.RedisError as error:
            raise self._refused(error) from error

    def _cells(self, client: Any, keys: Sequence[bytes]) -> list[Cell]:
        found = client.mget([self._row(k) for k in keys] + [self._patch(k) for k in keys])
        return list(zip(found[: len(keys)], found[len(keys) :], strict=True))

    def get_columns(self, keys: Sequence[bytes], spans: Sequence[Span]) -> list[Cell]:
        """Read pieces of rows; a few are cut by the server, of many the whole row travels. See `OnlineStore`."""
        if len(spans) > _FEW_SPANS:
            return [(None if row is None else cut(row, spans), patch) for row, patch in self.get_many(keys)]
        try:
            with self._client.pipeline(transaction=True) as pipe:
                for key in keys:
                    for start, size in spans:
                        pipe.getrange(self._row(key), start, start + size - 1)
                    pipe.exists(self._row(key))
                    pipe.get(self._patch(key))
                flat = pipe.execute()
        except redis.RedisError as error:
            raise self._refused(error) from error
        width = len(spans) + 2
        answers = [flat[i : i + width] for i in range(0, len(flat), width)]
        return [(b"".join(a[:-2]) if a[-2] else None, a[-1]) for a in answers]

    def update_many(self, keys: Sequence[bytes], change: Change) -> None:
        """Change cells in one transaction; begins again where somebody else was first. See `OnlineStore`."""
        for key in keys:
            check_key(key)
        if not keys:
            return
        try:
            for _ in range(_ATTEMPTS):
                if self._try_update(keys, change):
                    return
        except redis.RedisError as error:
            raise self._refused(error) from error
        raise WorkspaceError(
            f"Others changed the same entities {_ATTEMPTS} times in between.",
            hint="Nothing of this write was kept; repeat it.",
            where=self.where,
        )

    def _try_update(self, keys: Sequence[bytes], change: Change) -> bool:
        names = [name for key in keys for name in (self._row(key), self._patch(key))]
        with self._client.pipeline(transaction=True) as pipe:
            pipe.watch(*names)  # type: ignore[no-untyped-call]
            cells = dict(zip(keys, self._cells(pipe, keys), strict=True))
            pipe.multi()
            for key in keys:
                cells[key] = new = change(key, cells[key])
                for name, value in zip((self._row(key), self._patch(key)), new, strict=True):
                    if value is None:
                        pipe.delete(name)
                    else:
                        pipe.set(name, value)
            try:
                pipe.execute()
            except redis.WatchError:
                return False
        return True

    def delete(self, keys: Sequence[bytes]) -> int:
        """Remove rows and patches. See `OnlineStore`."""
        try:
            with self._client.pipeline(transaction=True) as pipe:
                for key in keys:
                    pipe.delete(self._row(key), self._patch(key))
                return sum(1 for removed in pipe.execute() if removed)
        except redis.RedisError as error:
            raise self._refused(error) from error

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Cell]]:
        """Go through the keys; Redis gives some of them twice, so their names are gathered first. See `OnlineStore`."""
        front = self._namespace + b":"
        tag = b"*" if len(prefix) < 2 else _literal(_tag(prefix))
        pattern = _literal(front) + tag + b":r:" + _literal(prefix) + b"*"
        try:
            names = set(self._client.scan_iter(match=pattern, count=1000))
            keys = sorted(name.split(b":r:", 1)[1] for name in names)
            for start in range(0, len(keys), _SCAN_ROWS):
                page = keys[start : start + _SCAN_ROWS]
                cells = zip(page, self._cells(self._client, page), strict=True)
                yield from ((key, cell) for key, cell in cells if cell[0] is not None)
        except redis.RedisError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Let the connections go; twice is allowed."""
        self._client.close()

    def _row(self, key: bytes) -> bytes:
        return self._namespace + b":" + _tag(key) + b":r:" + key

    def _patch(self, key: bytes) -> bytes:
        return self._namespace + b":" + _tag(key) + b":p:" + key

    def _refused(self, error: redis.RedisError) -> WorkspaceError:
        if isinstance(error, redis.TimeoutError):
            message = "The Redis server doesn't answer in time."
        elif isinstance(error, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)):
            return WorkspaceError(f"The Redis server refuses us: {error}.", hint="Check the URL.", where=self.where)
        elif isinstance(error, redis.ConnectionError):
            message = "The connection to the Redis server is lost."
        elif isinstance(error, redis.exceptions.OutOfMemoryError):
            return WorkspaceError(
                "The Redis server has reached its limit of memory.",
                hint="Raise maxmemory, or pack the groups as int8; nothing of this write was kept.",
                where=self.where,
            )
        else:
            message = f"The Redis server reports an error: {error}."
        return WorkspaceError(
            message,
            hint="Nothing is acknowledged: repeat the call when the server answers; repeating is safe.",
            where=self.where,
        )


def _tag(key: bytes) -> bytes:
    return b"{" + key[:2].hex().encode() + b"}"


def _literal(text: bytes) -> bytes:
    """Take the meaning from the characters that a pattern of Redis gives one."""
    return b"".join(b"\\" + bytes((c,)) if c in b"*?[]^-\\" else bytes((c,)) for c in text)
