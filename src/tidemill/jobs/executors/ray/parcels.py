"""Files of the caller's machine for the nodes of a cluster, which need not share a disk.

A file is known by the SHA-256 of its content. It is put into the cluster's store once, in pieces, and written once on
each node that needs it, into a folder that goes with the last worker there.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import IO, Any

from tidemill.core.errors import TrialError

PIECE_BYTES = 2**26
"""So much of a file is in memory at a time, at both ends."""
_HELD = ".held"


@dataclass(frozen=True)
class Parcel:
    """A file on its way.

    Parameters
    ----------
    place : str
        Where it goes, below the node's folder.
    digest : str
        SHA-256 of its content, 64 hex digits.
    pieces : tuple
        References to its content, in order.
    """

    place: str
    digest: str
    pieces: tuple[Any, ...]


class Stock:
    """What the caller's side has put into the store; the same content once, under whatever names.

    Parameters
    ----------
    put : callable
        Puts a piece into the store and gives a reference.
    piece_bytes : int
        Size of the pieces.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "x.txt"
    ...     _ = path.write_bytes(b"abc")
    ...     place, [parcel] = Stock(lambda piece: piece, piece_bytes=2).take(str(path))
    >>> place, parcel.pieces
    ('ba7816bf8f01cfea414140de5dae2223/x.txt', (b'ab', b'c'))
    """

    def __init__(self, put: Callable[[bytes], Any], *, piece_bytes: int = PIECE_BYTES) -> None:
        self._put = put
        self._piece_bytes = piece_bytes
        self._pieces: dict[str, tuple[Any, ...]] = {}
        self._digests: dict[tuple[str, int, int, int], str] = {}

    def take(self, path: str) -> tuple[str, list[Parcel]]:
        """Take in a file or a folder; gives its place below a node's folder, and what has to travel.

        Raises
        ------
        TrialError
            If it can't be read.
        """
        source = Path(path)
        try:
            if not source.is_dir():
                digest = self._digest(source)
                place = f"{digest[:32]}/{source.name}"
                return place, [Parcel(place, digest, self._content(source, digest))]
            inside = sorted(p for p in source.rglob("*") if p.is_file())
            listed = [(p.relative_to(source).as_posix(), p, self._digest(p)) for p in inside]
            whole = sha256("\n".join(f"{digest} {name}" for name, _, digest in listed).encode()).hexdigest()
            place = f"{whole[:32]}/{source.name}"
            return place, [Parcel(f"{place}/{name}", digest, self._content(p, digest)) for name, p, digest in listed]
        except OSError as error:
            raise TrialError(f"It can't be sent to a node: {error.strerror or error}.", where=path) from error

    def _digest(self, path: Path) -> str:
        state = path.stat()
        key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in self._digests:
            seen = sha256()
            for piece in self._read(path):
                seen.update(piece)
            self._digests[key] = seen.hexdigest()
        return self._digests[key]

    def _content(self, path: Path, digest: str) -> tuple[Any, ...]:
        if digest not in self._pieces:
            self._pieces[digest] = tuple(self._put(piece) for piece in self._read(path))
        return self._pieces[digest]

    def _read(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(self._piece_bytes):
                yield piece


class Folder:
    """Where a node keeps the files of one executor. All its workers there share the folder; the last one removes it.

    A worker holds the folder by a lock, which the operating system lets go when the process ends, however it ends. So
    what killed workers leave behind is removed by whoever opens a folder next.

    Parameters
    ----------
    session : str
        Names the executor; nobody can guess it.
    base : Path, optional
        Default: a folder of this user among the temporary files.
    """

    def __init__(self, session: str, base: Path | None = None) -> None:
        self._base = base or Path(tempfile.gettempdir()) / f"tidemill-ray-{os.getuid()}"
        self.path = self._base / session
        self._held: IO[bytes] | None = None

    def place(self, parcels: Sequence[Parcel], fetch: Callable[[Any], bytes]) -> None:
        """Write what is not there yet; ``fetch`` gives the content of a reference.

        Raises
        ------
        TrialError
            If a file did not arrive whole, or the folder belongs to somebody else.
        OSError
            If a file can't be written.
        """
        if parcels:
            self._open()
        for parcel in parcels:
            target = self.path / parcel.place
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path / f".{parcel.digest}"):
                if not target.exists():
                    _write(target, parcel, fetch)

    def leave(self) -> None:
        """Let go; nobody's folder is removed."""
        if self._held is None:
            return
        with suppress(OSError), _locked(self._base / ".lock"):  # somebody has tidied up already
            _remove_unless_held(self.path, self._held)
        self._held.close()
        self._held = None

    def _open(self) -> None:
        if self._held is not None:
            return
        self._base.mkdir(mode=0o700, exist_ok=True)
        if self._base.stat().st_uid != os.getuid():
            raise TrialError("This folder belongs to somebody else.", where=str(self._base))
        with _locked(self._base / ".lock"):
            for other in self._base.iterdir():
                if other.is_dir() and other != self.path:
                    _remove_if_left(other)
            self.path.mkdir(mode=0o700, exist_ok=True)
            self._held = (self.path / _HELD).open("wb")
            fcntl.flock(self._held, fcntl.LOCK_SH)


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError), (folder / _HELD).open("rb") as file:
        _remove_unless_held(folder, file)


def _remove_unless_held(folder: Path, file: IO[bytes]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # other workers are there
        return
    rmtree(folder, ignore_errors=True)


def _write(target: Path, parcel: Parcel, fetch: Callable[[Any], bytes]) -> None:
    temporary = target.with_name(f".{target.name}.part")
    seen = sha256()
    with temporary.open("wb") as file:
        for piece in parcel.pieces:
            data = fetch(piece)
            seen.update(data)
            file.write(data)
    if seen.hexdigest() != parcel.digest:
        temporary.unlink()
        raise TrialError("The file did not arrive whole; it may have changed on its way.", where=target.name)
    temporary.replace(target)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def moved(value: Any, places: Mapping[str, str]) -> Any:
    """The same value with other paths: in strings, paths, lists, tuples, dictionaries and dataclasses, at any depth.

    Parameters
    ----------
    value
        Arguments of a step.
    places : mapping of str to str
        The path there by the path here.

    Examples
    --------
    >>> moved({"files": ["/a/x.npy", "/b"], "n": 3}, {"/a/x.npy": "/tmp/x.npy"})
    {'files': ['/tmp/x.npy', '/b'], 'n': 3}
    """
    if isinstance(value, str):
        return places.get(value, value)
    if isinstance(value, Path):
        return Path(places[str(value)]) if str(value) in places else value
    if type(value) is dict:
        return {name: moved(part, places) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(moved(part, places) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        changed = {name: new for name, part in parts.items() if (new := moved(part, places)) is not part}
        return replace(value, **changed) if changed else value
    return value
