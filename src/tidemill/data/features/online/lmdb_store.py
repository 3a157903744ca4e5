"""Packed rows in LMDB: a file that many processes read in microseconds, without a server."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import lmdb

from tidemill.core.errors import WorkspaceError
from tidemill.data.features.online._base import STAMP_BYTES, Cell, Change, Span, check_items, check_key

MAP_BYTES = 1 << 30
"""Address space that a new file begins with; it doubles when it is full."""
_SCAN_ROWS = 256
_MAX_READERS = 1024
_UNKEPT = "Free some space; every acknowledged write is safe, this one was not kept."

_T = TypeVar("_T")


class _Shared:
    """An open file of this process: LMDB allows only one for each folder, so that all `LmdbStore` share it."""

    def __init__(self, folder: Path, map_bytes: int, sync: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = os.path.realpath(folder)
        self.users = 0
        # Nobody may read while the map moves: readers hold this lock for the microseconds of a read.
        self.reading = threading.RLock()
        self.looked_at = -1
        self.has_patches = False
        self.writing = threading.RLock()
        self.env = lmdb.open(
            str(folder),
            map_size=map_bytes,
            max_dbs=2,
            max_readers=_MAX_READERS,
            sync=sync,
            readahead=False,  # rows are read one by one, at random
            meminit=False,
        )
        self.rows, self.patches = self.env.open_db(b"rows"), self.env.open_db(b"patches")


_OPEN: dict[str, _Shared] = {}
_OPENING = threading.Lock()


def _open(folder: Path, map_bytes: int, sync: bool) -> _Shared:
    with _OPENING:
        name = os.path.realpath(folder)
        if name not in _OPEN:
            _OPEN[name] = _Shared(folder, map_bytes, sync)
        _OPEN[name].users += 1
        return _OPEN[name]


def _close(shared: _Shared) -> None:
    with _OPENING:
        shared.users -= 1
        if not shared.users:
            _OPEN.pop(shared.name, None)
            shared.env.close()


class LmdbStore:
    """An `OnlineStore` in a folder; one writer at a time, readers never wait.

    Parameters
    ----------
    folder : path
        Made where it is absent. On a local disk: LMDB's locks don't reach over a network.
    map_bytes : int
        Size to begin with; doubles by itself.
    max_bytes : int, optional
        Never grow past this; without it, the disk is the limit.
    sync : bool
        Of the first to open this folder in a process: flush to the disk before a write is acknowledged. Without it a
        power cut may lose the newest writes (a killed process doesn't); right where the rows can be materialized
        again.

    Examples
    --------
    >>> import tempfile
    >>> from tidemill.data.features.online._base import stamp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = LmdbStore(folder)
    ...     store.put_many([(b"k", stamp(2, 0) + b"new"), (b"k", stamp(1, 0) + b"late")])
    ...     store.get_many([b"k"])[0][0][16:]
    ...     store.close()
    1
    b'new'
    """

    def __init__(
        self, folder: str | Path, *, map_bytes: int = MAP_BYTES, max_bytes: int | None = None, sync: bool = True
    ) -> None:
        self.folder = Path(folder).absolute()
        self._limit = max_bytes
        self._closed = False
        try:
            self._shared = _open(self.folder, map_bytes if max_bytes is None else min(map_bytes, max_bytes), sync)
        except (lmdb.Error, OSError) as error:
            raise self._refused(error) from error
        self._env = self._shared.env
        self._begin = self._env.begin
        self._rows, self._patches = self._shared.rows, self._shared.patches
        self._reading, self._writing = self._shared.reading, self._shared.writing

    def __repr__(self) -> str:
        return f"LmdbStore({str(self.folder)!r})"

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Write whole rows in one transaction; older ones are left out. See `OnlineStore`."""
        check_items(items)
        # Neighbours share pages. The sort is stable: of one key's rows the later stays later.
        ordered = sorted(items, key=lambda item: item[0])
        return self._write(lambda txn: self._put(txn, ordered))

    def _put(self, txn: lmdb.Transaction, items: Sequence[tuple[bytes, bytes]]) -> int:
        rows, patches = self._rows, self._patches
        get, put = txn.get, txn.put
        patched = bool(txn.stat(patches)["entries"])
        written = 0
        for key, row in items:
            head = row[:STAMP_BYTES]
            old = get(key, None, rows)
            if old is not None and bytes(old[:STAMP_BYTES]) > head:
                continue
            if patched and old is not None:
                patch = get(key, None, patches)
                if patch is not None:
                    if bytes(patch[:STAMP_BYTES]) > head:
                        continue
                    txn.delete(key, db=patches)
            put(key, row, db=rows)
            written += 1
        return written

    def get(self, key: bytes) -> Cell:
        """Read one cell: the path that is measured in microseconds. See `OnlineStore`."""
        shared = self._shared
        for _ in range(2):
            try:
                # Beginning is cheap: LMDB's binding takes up the transaction that the last reader let go.
                with shared.reading, self._begin(self._rows) as txn:
                    row = txn.get(key)
                    if txn.id() != shared.looked_at:
                        self._look(txn)
                    return row, txn.get(key, None, self._patches) if shared.has_patches else None
            except lmdb.MapResizedError:
                self._adopt()
            except lmdb.Error as error:
                raise self._refused(error) from error
        raise self._busy()

    def _look(self, txn: lmdb.Transaction) -> None:
        """Find out whether there is any patch; asked once for each state of the file, under the readers' lock."""
        self._shared.has_patches = bool(txn.stat(self._patches)["entries"])
        self._shared.looked_at = txn.id()

    def get_many(self, keys: Sequence[bytes]) -> list[Cell]:
        """Read the cells of keys, all from one moment. See `OnlineStore`."""
        if len(keys) == 1:
            return [self.get(keys[0])]
        rows, patches = self._rows, self._patches
        for _ in range(2):
            try:
                with self._reading, self._env.begin() as txn:
                    get = txn.get
                    return [(get(key, None, rows), get(key, None, patches)) for key in keys]
            except lmdb.MapResizedError:
                self._adopt()
            except lmdb.Error as error:
                raise self._refused(error) from error
        raise self._busy()

    def get_columns(self, keys: Sequence[bytes], spans: Sequence[Span]) -> list[Cell]:
        """Read pieces of rows, without touching the pages between them. See `OnlineStore`."""
        rows, patches = self._rows, self._patches

        def pieces(txn: lmdb.Transaction, key: bytes) -> Cell:
            row, patch = txn.get(key, None, rows), txn.get(key, None, patches)
            joined = None if row is None else b"".join([row[start : start + size] for start, size in spans])
            return joined, None if patch is None else bytes(patch)

        for _ in range(2):
            try:
                with self._reading, self._env.begin(buffers=True) as txn:
                    return [pieces(txn, key) for key in keys]
            except lmdb.MapResizedError:
                self._adopt()
            except lmdb.Error as error:
                raise self._refused(error) from error
        raise self._busy()

    def update_many(self, keys: Sequence[bytes], change: Change) -> None:
        """Change cells in one transaction. See `OnlineStore`."""
        for key in keys:
            check_key(key)
        self._write(lambda txn: self._change(txn, keys, change))

    def _change(self, txn: lmdb.Transaction, keys: Sequence[bytes], change: Change) -> None:
        for key in keys:
            row, patch = txn.get(key, None, self._rows), txn.get(key, None, self._patches)
            old = None if row is None else bytes(row), None if patch is None else bytes(patch)
            new = change(key, old)
            for db, before, after in ((self._rows, old[0], new[0]), (self._patches, old[1], new[1])):
                if after is None and before is not None:
                    txn.delete(key, db=db)
                elif after is not None and after != before:
                    txn.put(key, after, db=db)

    def delete(self, keys: Sequence[bytes]) -> int:
        """Remove rows and patches. See `OnlineStore`."""

        def remove(txn: lmdb.Transaction) -> int:
            gone = [(txn.delete(key, db=self._rows), txn.delete(key, db=self._patches)) for key in keys]
            return sum(1 for pair in gone if any(pair))

        return self._write(remove)

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Cell]]:
        """Go through keys in pages of their own moment, so that a slow reader holds no old pages back."""
        after: bytes | None = None
        while True:
            page = self._page(prefix, after)
            yield from page
            if len(page) < _SCAN_ROWS:
                return
            after = page[-1][0]

    def _page(self, prefix: bytes, after: bytes | None) -> list[tuple[bytes, Cell]]:
        page: list[tuple[bytes, Cell]] = []
        # A patch is only ever written beside a row, so the rows' keys are all keys.
        with self._reading, self._env.begin() as txn, txn.cursor(self._rows) as cursor:
            found = cursor.set_range(prefix if after is None else after + b"\0")
            while found and len(page) < _SCAN_ROWS:
                key = cursor.key()
                if not key.startswith(prefix):
                    break
                page.append((key, (cursor.value(), txn.get(key, None, self._patches))))
                found = cursor.next()
        return page

    def close(self) -> None:
        """Let the file go; twice is allowed."""
        with self._writing, self._reading:
            if not self._closed:
                self._closed = True
                _close(self._shared)

    def _write(self, work: Callable[[lmdb.Transaction], _T]) -> _T:
        with self._writing:
            while True:
                try:
                    with self._env.begin(write=True, buffers=True) as txn:
                        return work(txn)
                except lmdb.MapFullError as error:
                    self._grow(error)  # nothing was written; the whole transaction is repeated
                except lmdb.MapResizedError:
                    self._adopt()
                except lmdb.Error as error:
                    raise self._refused(error) from error

    def _grow(self, error: lmdb.Error) -> None:
        with self._reading:
            size = self._env.info()["map_size"]
            if self._limit is not None and size >= self._limit:
                raise WorkspaceError(
                    f"The map size of the online store is full: {size:,} bytes, which is the limit that was set.",
                    hint="Raise online_max_bytes in tidemill.toml, delete entities, or pack the group as int8; nothing "
                    "of this write was kept.",
                    where=str(self.folder),
                ) from error
            free = shutil.disk_usage(self.folder).free
            if free < size // 64:  # a doubled map would only move the failure into the middle of a write
                raise self._refused(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
            self._env.set_mapsize(size * 2 if self._limit is None else min(size * 2, self._limit))

    def _adopt(self) -> None:
        """Take over the size that another process gave to the map."""
        with self._writing, self._reading:
            self._env.set_mapsize(0)

    def _busy(self) -> WorkspaceError:
        return WorkspaceError("The online store grows faster than it can be read.", where=str(self.folder))

    def _refused(self, error: Exception) -> WorkspaceError:
        code, words = error.errno if isinstance(error, OSError) else None, str(error)
        full = isinstance(error, lmdb.DiskError) or code in (errno.ENOSPC, errno.EDQUOT)
        if full or any(os.strerror(c) in words for c in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
            return WorkspaceError("The disk is full.", hint=_UNKEPT, where=str(self.folder))
        if os.strerror(errno.EIO) in words:  # what LMDB says where the disk took only a part of a write
            message = "A write was cut short: the disk is full, or it fails."
            return WorkspaceError(message, hint=_UNKEPT, where=str(self.folder))
        if isinstance(error, lmdb.ReadersFullError):
            return WorkspaceError(
                f"More than {_MAX_READERS} readers use the online store.", hint="End some.", where=str(self.folder)
            )
        return WorkspaceError(
            f"The online store can't be used: {error}.",
            hint="Make the folder readable and writable, or materialize the groups into another one.",
            where=str(self.folder),
        )
