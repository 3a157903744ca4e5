"""Rows whose cell is a file, an image for instance: sent alone, as parts of a form, or as Base64 in JSON.

What a file holds is for a worker to see. Here its bytes are found, counted, and passed on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any

import orjson

from tidemill.core.task import Task
from tidemill.deploy.engine.answers import answers_of
from tidemill.deploy.engine.completing import Completion
from tidemill.deploy.engine.layout import ENCODED
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.query import Outputs, Query
from tidemill.deploy.engine.records import cells_of
from tidemill.deploy.engine.refusal import Refusal, bad_request, invalid_input
from tidemill.deploy.engine.wire import join_cells

_FORM = b"multipart/form-data"
_MOST_ON_LOOP = 1 << 20
"""Bytes of a request from which on it is read beside the loop."""
_MOST_HEAD = 4096
_SHOWN = 80


@dataclass(slots=True)
class FileQuery(Query):
    """Rows of files.

    Parameters
    ----------
    names : tuple of str
        What each is called when it can't be read.
    """

    names: tuple[str, ...] = ()

    def misfit(self, row: int, reason: str) -> str:
        """Say which file can't be read; ``reason`` is the end of a sentence."""
        return f"{self.names[row]} can't be read: {reason}."

    def split(self, types: Sequence[str], most: int) -> list[Query]:
        """Cut into queries of at most ``most`` files, in order."""
        pieces = Query.split(self, types, most)  # `super()` does not know a class that has got slots
        if len(pieces) == 1:
            return pieces
        out: list[Query] = []
        for number, piece in enumerate(pieces):
            names = self.names[number * most : number * most + piece.rows]
            out.append(FileQuery(piece.rows, piece.pieces, piece.shapes, names=names))
        return out


class FileCodec:
    """Reads files for one bundle and writes labels and probabilities.

    Parameters
    ----------
    column : str
        Whose cells they are.
    task : Task
        Of the bundle.
    limits : Limits
        Bounds of a file, and of the number of files.

    Examples
    --------
    >>> from tidemill.core.task import TaskKind
    >>> codec = FileCodec("image", Task(TaskKind.REGRESSION, "y"), Limits())
    >>> codec.read(b"...", b"image/png").names
    ('The file',)
    >>> codec.read(b'[{"image": "YQ=="}, {"image": "Yg=="}]', b"application/json").rows
    2
    """

    def __init__(self, column: str, task: Task, limits: Limits) -> None:
        self.column = column
        self.task = task
        self._limits = limits

    @staticmethod
    def quick(size: int) -> bool:
        """True where a request of so many bytes may be read on the loop."""
        return size <= _MOST_ON_LOOP

    def read(self, body: bytes, content_type: bytes, completion: Completion | None = None) -> FileQuery:
        """Read a body: parts of a form, JSON, or else one file. A body that begins as JSON does is JSON.

        Raises
        ------
        Refusal
            400 with what is wrong, 413 for too many files, or one that is too large.
        """
        kind = content_type.partition(b";")[0].strip().lower()
        if kind == _FORM:
            return self.query(_parts(body, content_type.decode("latin-1"), self._limits.rows))
        if body[:64].lstrip()[:1] in (b"{", b"["):
            return self.query(self._of_json(body))
        if not body:
            raise bad_request("The body is empty; it must be a file, a form with files, or JSON.")
        return self.query([("The file", body)])

    def query(self, named: Sequence[tuple[str, bytes]]) -> FileQuery:
        """Make a query of files that have names."""
        if len(named) > self._limits.rows:
            raise Refusal(413, "too_many_rows", f"A request may have {self._limits.rows:,} rows.")
        for name, cell in named:
            if len(cell) > self._limits.file_bytes:
                raise _too_large(name, self._limits.file_bytes)
        cells = [cell for _, cell in named]
        return FileQuery(len(cells), [join_cells(cells)], ENCODED, names=tuple(name for name, _ in named))

    def answers(self, outputs: Outputs, start: int, stop: int) -> list[dict[str, Any]]:
        """Labels and probabilities, or values, for some rows of a batch."""
        return answers_of(self.task, outputs, start, stop)

    def _of_json(self, body: bytes) -> list[tuple[str, bytes]]:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"The body is not JSON: {error}.") from error
        cells = cells_of(document, self.column)
        most = self._limits.file_bytes
        named = [(f"Column {self.column!r}, row {row:,},", cell) for row, cell in enumerate(cells, start=1)]
        return [(name, from_base64(cell, name, most)) for name, cell in named]


def from_base64(cell: Any, name: str, most: int) -> bytes:
    """Undo Base64, with or without line ends, or the prefix of a ``data:`` URL.

    Raises
    ------
    Refusal
        400 where it is none, 413 where the file has more than ``most`` bytes.

    Examples
    --------
    >>> from_base64("data:image/png;base64,YWI=", "The file", 10)
    b'ab'
    """
    if not isinstance(cell, str):
        raise invalid_input(f"{name} is no text; it must be a file as Base64.")
    if cell.startswith("data:"):
        cell = cell.partition(",")[2]
    if len(cell) > 2 * most + 1024:  # 4/3, and room for line ends
        raise _too_large(name, most)
    try:
        return base64.b64decode(cell, validate=True)
    except (binascii.Error, ValueError):
        pass
    try:
        return base64.b64decode("".join(cell.split()), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_input(f"{name} is not Base64.") from None


def _too_large(name: str, most: int) -> Refusal:
    return Refusal(413, "file_too_large", f"{name} is too large: a file may have {most:,} bytes.")


def _parts(body: bytes, content_type: str, most: int) -> list[tuple[str, bytes]]:
    """Files of a form (RFC 7578), each with what it is called."""
    told = Message()
    told["content-type"] = content_type
    boundary = told.get_boundary()
    if not boundary or len(boundary) > 70:
        raise bad_request("The form's Content-Type has no boundary of 1 to 70 characters.")
    # The first line needs no line end before it; what stands before that one is nothing of ours.
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"), most + 2)
    if len(pieces) > most + 2:
        raise Refusal(413, "too_many_rows", f"A request may have {most:,} rows.")
    if len(pieces) < 3 or pieces[-1][:2] != b"--":
        raise bad_request("The form is cut off, or has no part.")
    return [_part(piece, number) for number, piece in enumerate(pieces[1:-1], start=1)]


def _part(piece: bytes, number: int) -> tuple[str, bytes]:
    end = piece.find(b"\r\n\r\n", 0, _MOST_HEAD)
    if end < 0 or piece[:2] != b"\r\n":
        raise bad_request(f"Part {number:,} of the form has no head, or one that is too long.")
    head = BytesHeaderParser().parsebytes(piece[2:end] + b"\r\n\r\n")
    name = head.get_filename()
    if name is None and head.get_content_maintype() != "image":
        raise bad_request(f"Part {number:,} of the form is no file.")
    called = f" ({_clean(name)})" if name else ""
    return f"File {number:,}{called}", piece[end + 4 :]


def _clean(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:_SHOWN])
