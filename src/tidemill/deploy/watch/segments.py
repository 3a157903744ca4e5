r"""Append-only files that keep what was acknowledged: each record with its length and CRC, synced before the answer.

A file is ``TMSEG1\\n\\0`` and then, for each record, its length and the CRC-32 of its bytes (two little-endian 32-bit
numbers) and the bytes. A process that dies leaves at most a torn tail; `Segment.open` cuts it, keeping the cut bytes in
a file beside it, and everything before it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tidemill.core.errors import WorkspaceError

MAGIC = b"TMSEG1\n\0"
_FRAME = struct.Struct("<II")
_OVER = ".over"
"""Ending of an empty file beside a segment that gets no more records."""
MOST_BYTES = 16 << 20
"""Largest record; a length beyond it is damage."""


class NotKeptError(WorkspaceError):
    """The disk refused: what was given is not kept, and may be sent again."""

    status = 503
    code = "not_kept"
    retry_after_s = 5.0


class ClosedError(WorkspaceError):
    """The segment was closed before these records were taken: they can be given to the next one."""


class Scan(NamedTuple):
    """What a segment holds: whole records, and the offset at which they end."""

    records: list[bytes]
    end: int


def frame(record: bytes) -> bytes:
    """Bytes of one record in a file.

    Raises
    ------
    WorkspaceError
        If it is empty or too large.
    """
    if not 0 < len(record) <= MOST_BYTES:
        raise WorkspaceError(f"A record must have 1 to {MOST_BYTES:,} bytes, but has {len(record):,}.")
    return _FRAME.pack(len(record), zlib.crc32(record)) + record


def parse(data: bytes, start: int = 0) -> Scan:
    """Read whole records from bytes that begin at a frame; stops at the first that is torn or damaged.

    Examples
    --------
    >>> parse(frame(b"a") + frame(b"b")[:-1]).records
    [b'a']
    """
    records: list[bytes] = []
    at = start
    while at + _FRAME.size <= len(data):
        length, crc = _FRAME.unpack_from(data, at)
        body = data[at + _FRAME.size : at + _FRAME.size + length]
        if not 0 < length <= MOST_BYTES or len(body) != length or zlib.crc32(body) != crc:
            break
        records.append(body)
        at += _FRAME.size + length
    return Scan(records, at)


def read(path: Path) -> list[bytes]:
    """Whole records of a file; one that is being written may be read at the same time."""
    return read_from(path, 0).records


def read_from(path: Path, offset: int) -> Scan:
    """Whole records from an offset that `read_from` gave before (0: the start), and the offset after them."""
    try:
        with path.open("rb") as file:
            if offset < len(MAGIC):
                if file.read(len(MAGIC)) != MAGIC:
                    return Scan([], 0)
                offset = len(MAGIC)
            file.seek(offset)
            found = parse(file.read())
    except FileNotFoundError:
        return Scan([], offset)
    return Scan(found.records, offset + found.end)


class Segment:
    """One file that is appended to, from any number of threads; those that wait for the disk share one sync.

    Parameters
    ----------
    path : Path
        The file; made with its folder, or opened and cut to its whole records.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     segment = Segment(Path(folder) / "a.seg")
    ...     segment.append([b"kept"])
    ...     segment.close()
    ...     read(segment.path)
    [b'kept']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue = threading.Lock()
        self._disk = threading.Lock()
        self._pending: list[tuple[int, bytes, bool]] = []
        self._ticket = 0
        self._done = 0
        self._failures: dict[int, OSError] = {}
        self._broken = False
        self._closed = False
        try:
            self._file, self._size = _open(path)
        except OSError as error:
            raise _refused(path, error) from error

    @property
    def broken(self) -> bool:
        """True after a failure that left the file unusable; what was acknowledged before is whole."""
        return self._broken

    @property
    def size(self) -> int:
        """Bytes that are durable."""
        return self._size

    def append(self, records: Sequence[bytes], *, sync: bool = True) -> None:
        """Keep records; with ``sync`` they are on the disk when this returns.

        Raises
        ------
        NotKeptError
            If the disk refuses; then none of them is kept.
        ClosedError
            If the segment is closed; none of them is kept.
        """
        if not records:
            return
        data = b"".join(map(frame, records))
        with self._queue:
            if self._closed:
                raise ClosedError("The segment is closed.", where=str(self.path))
            self._ticket += 1
            ticket = self._ticket
            self._pending.append((ticket, data, sync))
        with self._disk:
            if self._done < ticket:
                self._write()
            failure = self._failures.pop(ticket, None)
        if failure is not None:
            raise _refused(self.path, failure) from failure

    def close(self) -> None:
        """Write what threads are waiting for and close the file; twice is allowed."""
        with self._queue:
            self._closed = True
        with self._disk:
            if self._pending:
                self._write()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _write(self) -> None:
        """Write what all waiting threads brought; called with the disk's lock."""
        with self._queue:
            taken, self._pending = self._pending, []
        try:
            if self._broken:
                raise OSError(errno.EIO, "an earlier write to this file failed")
            data = b"".join(part for _, part, _ in taken)
            _write_all(self._file, data, self._size)
            if any(sync for *_, sync in taken):
                os.fsync(self._file)
            self._size += len(data)
        except OSError as error:
            self._failures.update({ticket: error for ticket, *_ in taken})
            self._undo()
        self._done = taken[-1][0]

    def _undo(self) -> None:
        """Take back what a failed write left. After a failed sync nobody knows what the disk holds: write no more."""
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError:
            self._broken = True


def _open(path: Path) -> tuple[int, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = len(MAGIC) if new else _cut(path, handle)
        if new:
            _write_all(handle, MAGIC, 0)
            os.fsync(handle)
            sync_folder(path.parent)
        return handle, end
    except BaseException:
        os.close(handle)
        raise


def _cut(path: Path, handle: int) -> int:
    """Cut a torn tail; its bytes stay in a file beside, for people."""
    data = path.read_bytes()
    if data[: len(MAGIC)] != MAGIC:
        if MAGIC.startswith(data):  # died while the file was made
            _write_all(handle, MAGIC, 0)
            os.fsync(handle)
            return len(MAGIC)
        raise WorkspaceError("This is no segment of Tidemill.", where=str(path), hint="Move the file away.")
    end = parse(data, len(MAGIC)).end
    if end < len(data):
        write_file(path.with_name(f"{path.name}.torn-{end}"), data[end:])
        os.ftruncate(handle, end)
        os.fsync(handle)
    return end


def _write_all(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it is there as a whole or not at all, and stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def segments_of(folder: Path) -> Iterator[Path]:
    """Segment files of a folder, sorted by name."""
    return iter(sorted(folder.glob("*.seg")))


def finish(path: Path) -> None:
    """Say that a segment gets no more records: another process may fold it.

    Where the disk refuses the mark, it is folded when its writer has ended.
    """
    with contextlib.suppress(OSError):
        path.with_suffix(_OVER).touch(mode=0o600)


def finished(folder: Path) -> list[Path]:
    """Segments that get no more records, sorted by name."""
    return sorted(path.with_suffix(".seg") for path in folder.glob(f"*{_OVER}"))


def take(path: Path) -> None:
    """Take the mark off a segment, before it is folded: a new segment may have its name afterwards."""
    path.with_suffix(_OVER).unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> NotKeptError:
    return NotKeptError(
        f"It could not be kept: {error.strerror or error}.",
        where=str(path),
        hint="Make room on the disk and send it again.",
    )
