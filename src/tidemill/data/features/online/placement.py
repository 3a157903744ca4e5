"""Many stores as one: virtual shards laid out by consistent hashing, so that a new store takes only its share."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence

from tidemill.core.errors import DataError, OptionError
from tidemill.data.features.online._base import Cell, Change, OnlineStore, Span, check_items, check_key
from tidemill.data.features.online.keys import SHARDS, shard_prefix

_COPY_ROWS = 256


def place(shard: int, stores: Sequence[str]) -> str:
    """Say which store holds a virtual shard (rendezvous hashing: the highest hash of shard and name wins).

    When a store comes or goes, only the shards move that it gets or had, and about equally many from or to each other.

    Examples
    --------
    >>> moved = [s for s in range(1024) if place(s, ["a", "b", "c"]) != place(s, ["a", "b"])]
    >>> {place(s, ["a", "b", "c"]) for s in moved}, 250 < len(moved) < 430
    ({'c'}, True)
    """
    if not stores:
        raise OptionError("There must be at least one store.")
    return max(stores, key=lambda name: (hashlib.blake2b(b"%d/" % shard + name.encode(), digest_size=8).digest(), name))


class ShardedStore:
    """An `OnlineStore` over several, each of which holds some of the virtual shards.

    A call is one transaction in each store that it reaches, not one over all of them: a call that fails may have been
    done in some stores, for keys of whole shards; repeating it is safe.

    Parameters
    ----------
    stores : mapping of str to OnlineStore
        By name. The names decide where shards lie, so they must stay the same.

    Examples
    --------
    >>> import tempfile
    >>> from tidemill.data.features.online.lmdb_store import LmdbStore
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = ShardedStore({name: LmdbStore(f"{folder}/{name}") for name in ("a", "b")})
    ...     store.close()
    """

    def __init__(self, stores: Mapping[str, OnlineStore]) -> None:
        self.stores = dict(stores)
        self._homes = [self.stores[place(shard, list(self.stores))] for shard in range(SHARDS)]

    def home(self, key: bytes) -> OnlineStore:
        """Give the store that holds a key; the first two bytes of a key say its shard."""
        return self._homes[int.from_bytes(key[:2].ljust(2, b"\0"), "big") % SHARDS]

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Write whole rows, see `OnlineStore`; one transaction for each store."""
        check_items(items)
        parts: dict[int, tuple[OnlineStore, list[tuple[bytes, bytes]]]] = {}
        for item in items:
            store = self.home(item[0])
            parts.setdefault(id(store), (store, []))[1].append(item)
        return sum(store.put_many(part) for store, part in parts.values())

    def get(self, key: bytes) -> Cell:
        """Read one cell, see `OnlineStore`."""
        return self.home(key).get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[Cell]:
        """Read the cells of keys, see `OnlineStore`."""
        if len(keys) == 1:
            return [self.get(keys[0])]
        found: list[Cell] = [(None, None)] * len(keys)
        for store, places in self._split(keys):
            for at, cell in zip(places, store.get_many([keys[i] for i in places]), strict=True):
                found[at] = cell
        return found

    def get_columns(self, keys: Sequence[bytes], spans: Sequence[Span]) -> list[Cell]:
        """Read pieces of rows, see `OnlineStore`."""
        found: list[Cell] = [(None, None)] * len(keys)
        for store, places in self._split(keys):
            for at, cell in zip(places, store.get_columns([keys[i] for i in places], spans), strict=True):
                found[at] = cell
        return found

    def update_many(self, keys: Sequence[bytes], change: Change) -> None:
        """Change cells, see `OnlineStore`; one transaction for each store."""
        if len({id(self.home(check_key(key))) for key in keys}) <= 1:
            if keys:
                self.home(keys[0]).update_many(keys, change)
            return
        # All are computed before any is written, so that a change that raises changes nothing anywhere.
        for key, cell in zip(keys, self.get_many(keys), strict=True):
            change(key, cell)
        for store, places in self._split(keys):
            store.update_many([keys[i] for i in places], change)

    def delete(self, keys: Sequence[bytes]) -> int:
        """Remove rows and patches, see `OnlineStore`."""
        return sum(store.delete([keys[i] for i in places]) for store, places in self._split(keys))

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Cell]]:
        """Go through the keys that begin so, see `OnlineStore`."""
        if len(prefix) >= 2:
            yield from self.home(prefix).scan(prefix)
            return
        yield from heapq.merge(*(store.scan(prefix) for store in self.stores.values()), key=lambda found: found[0])

    def close(self) -> None:
        """Let all stores go; twice is allowed."""
        for store in self.stores.values():
            store.close()

    def _split(self, keys: Sequence[bytes]) -> list[tuple[OnlineStore, list[int]]]:
        parts: dict[int, tuple[OnlineStore, list[int]]] = {}
        for i, key in enumerate(keys):
            store = self.home(key)
            parts.setdefault(id(store), (store, []))[1].append(i)
        return list(parts.values())


def move_shards(source: OnlineStore, target: OnlineStore, shards: Sequence[int]) -> int:
    """Copy virtual shards from one store to another, newer rows in the target staying; gives the number of keys.

    Patches go along. Nothing is removed from the source: point readers at the new layout first, then `delete`.

    Parameters
    ----------
    source, target : OnlineStore
        From where to where.
    shards : sequence of int
        Virtual shards, 0 to 1023.

    Raises
    ------
    DataError
        Where the source holds a patch without its row.
    """
    moved = 0
    for shard in shards:
        page: list[tuple[bytes, Cell]] = []
        for found in source.scan(shard_prefix(shard)):
            page.append(found)
            if len(page) == _COPY_ROWS:
                moved += _copy(page, target)
                page = []
        moved += _copy(page, target)
    return moved


def _copy(page: Sequence[tuple[bytes, Cell]], target: OnlineStore) -> int:
    for key, (row, _) in page:
        if row is None:
            raise DataError(f"There is a patch without a row under the key {key!r}.")
    target.put_many([(key, row) for key, (row, _) in page if row is not None])
    patched = {key: cell for key, cell in page if cell[1] is not None}

    def change(key: bytes, old: Cell) -> Cell:
        # A patch belongs to its row; beside a newer one in the target it is of no use.
        return patched[key] if old[0] == patched[key][0] and old[1] is None else old

    target.update_many(list(patched), change)
    return len(page)
