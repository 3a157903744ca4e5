"""CSV, TSV and their kin: any usual delimiter, encoding, quoting and compression.

Cells are read as text, exactly as they stand; what they mean is found later, over whole columns.
"""

from __future__ import annotations

import csv
import io
import lzma
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.csv as pa_csv

from tidemill.core.errors import DataError
from tidemill.data import textforms
from tidemill.data.ingest._base import RawTable, check_names, finish, memory_limit
from tidemill.data.ingest._bytes import Recoder, find_encoding, open_bytes, read_up_to, to_utf8
from tidemill.data.ingest._sample import sample_batches, sample_notice

DELIMITERS = (",", ";", "\t", "|")
_GROWTH = 4
"""Peak memory of reading a text file, in multiples of its size."""
_HEAD = 1 << 18
_MAX_BLOCK = (1 << 31) - 2


@dataclass(frozen=True)
class _Layout:
    """How a file is laid out: its delimiter, its names, and where the rows begin (byte offset)."""

    delimiter: str
    names: list[str]
    body: int
    quoted: bool


def read(path: Path, *, max_rows: int | None = None, memory_bytes: int | None = None) -> RawTable:
    """Read a delimited text file; one that does not fit in memory as a uniform sample."""
    limit = memory_limit(memory_bytes)
    where = str(path)
    data, whole = read_up_to(path, limit // _GROWTH)
    if not data:
        raise DataError("The file is empty.", where=where, hint="Give a file with a header and rows.")
    if not whole:
        return _read_sample(path, data, limit, max_rows)
    data, notice = to_utf8(data, where)
    layout = _layout(data, where)
    notices = [notice] if notice else []
    notices += _header_notices(layout)
    return finish(_parse(data, layout, where), where, notices, max_rows=max_rows)


def first_rows(path: Path, most_bytes: int = _HEAD) -> pa.Table | None:
    """Read the rows at the beginning of a file, for a look at its columns.

    Returns
    -------
    pyarrow.Table or None
        None where the beginning alone can't be read, for example because a quoted cell is cut in two.
    """
    where = str(path)
    with open_bytes(path) as stream:
        try:
            data = stream.read(most_bytes)
        except (OSError, EOFError, lzma.LZMAError):
            return None
    if len(data) == most_bytes:
        data = data[: data.rfind(b"\n") + 1]
    try:
        data, _ = to_utf8(data, where)
        return _parse(data, _layout(data, where), where)
    except DataError:
        return None


def _parse(data: bytes, layout: _Layout, where: str) -> pa.Table:
    body = pa.py_buffer(memoryview(data)[layout.body :])
    block = 1 << 20
    while True:
        bad: list[Any] = []

        def invalid(row: Any, bad: list[Any] = bad) -> str:
            bad.append(row)
            return "error"

        try:
            return pa_csv.read_csv(pa.BufferReader(body), **_options(layout, block, invalid))
        except pa.ArrowInvalid as error:
            if bad:
                raise (_ragged(data, layout, where) or _broken(data, layout, where, error)) from error
            if "straddl" in str(error) and block < min(len(data) * 2, _MAX_BLOCK):
                block = min(block * 16, _MAX_BLOCK)
                continue
            raise _broken(data, layout, where, error) from error


def _options(layout: _Layout, block: int, invalid: Any) -> dict[str, Any]:
    return {
        "read_options": pa_csv.ReadOptions(column_names=layout.names, block_size=block),
        "parse_options": pa_csv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=layout.quoted, invalid_row_handler=invalid
        ),
        "convert_options": pa_csv.ConvertOptions(
            column_types=dict.fromkeys(layout.names, pa.string()), strings_can_be_null=False, null_values=[]
        ),
    }


def _layout(data: bytes, where: str, *, whole: bool = True) -> _Layout:
    """Find delimiter and header, and check that rows follow."""
    start = len(data) - len(data.lstrip(b"\r\n"))
    if not data.strip():
        raise DataError("The file is empty.", where=where, hint="Give a file with a header and rows.")
    delimiter = sniff(data[start : start + _HEAD].decode("utf-8", "ignore"), name=where)
    record = _record(delimiter).match(data, start)
    end = record.end() if record else len(data)
    try:
        cells = next(csv.reader(io.StringIO(data[start:end].decode("utf-8"), newline=""), delimiter=delimiter))
    except (csv.Error, StopIteration) as error:
        raise DataError(f"The header can't be read ({error}).", where=where, hint="Look at its quotes.") from error
    names = check_names(cells, where)
    if whole and not data[end:].strip(b"\r\n"):
        raise DataError("The file has a header but no rows.", where=where, hint="Give at least some rows.")
    return _Layout(delimiter, names, end, b'"' in data)


def _header_notices(layout: _Layout) -> list[str]:
    def number(text: str) -> bool:
        return re.fullmatch(textforms.NUMBER, text) is not None

    if len(layout.names) > 1 and all(number(n) for n in layout.names):
        return ["The first row holds numbers only, but was read as the header: is the header missing?"]
    return []


def sniff(head: str, *, name: str = "") -> str:
    r"""Find the delimiter from the beginning of a text.

    The one under which most records have as many fields as the header wins, then the one with more fields; commas
    where there is only one column.

    Examples
    --------
    >>> sniff("a;b\n1,5;2\n"), sniff("text\nwell, yes\n")
    (';', ',')
    """
    best, best_score = ",", (0.0, 0, 0)
    for delimiter in DELIMITERS:
        counts: list[int] = []
        try:
            for row in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter):
                if row:
                    counts.append(len(row))
                if len(counts) > 200:
                    break
        except csv.Error:  # a cell larger than the csv module allows: what came before it is enough
            pass
        if len(counts) > 2:
            counts.pop()  # the head may end inside a record
        if not counts or counts[0] < 2:
            continue
        named = int(delimiter == "\t" and name.endswith((".tsv", ".tab")))
        share = sum(c == counts[0] for c in counts) / len(counts)
        score = (round(share, 2), named, counts[0])
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _record(delimiter: str) -> re.Pattern[bytes]:
    d = re.escape(delimiter.encode())
    cell = rb'(?:"[^"]*(?:""[^"]*)*"[^' + d + rb'\r\n]*|(?!")[^' + d + rb"\r\n]*)"
    return re.compile(cell + rb"(?:" + d + cell + rb")*(?:\r\n|\n|\r|\Z)")


def _ragged(data: bytes, layout: _Layout, where: str) -> DataError | None:
    """Find the records whose number of fields differs from the header's; None where quotes mislead."""
    d = layout.delimiter.encode()
    split = re.compile(rb"(?:\A|" + re.escape(d) + rb')(?:"[^"]*(?:""[^"]*)*")?[^' + re.escape(d) + rb"]*")
    record = _record(layout.delimiter)
    expected, position = len(layout.names), layout.body
    wrong: list[tuple[int, int]] = []
    line = _lines(data[: layout.body]) + 1
    while position < len(data) and len(wrong) < 3:
        found = record.match(data, position)
        if found is None or found.end() == position:
            break
        text = found.group()
        bare = text.rstrip(b"\r\n")
        if bare:
            fields = len(split.findall(bare)) if b'"' in bare else bare.count(d) + 1
            if fields != expected:
                wrong.append((line, fields))
        line += _lines(text)
        position = found.end()
    if not wrong:
        return None
    first, fields = wrong[0]
    more = (
        ""
        if len(wrong) < 2
        else f" Line {wrong[1][0]:,} has {wrong[1][1]}." + (" There are more." if wrong[2:] else "")
    )
    return DataError(
        f"Line {first:,} has {fields} fields where the header has {expected} (delimiter {layout.delimiter!r}).{more}",
        where=where, hint="Look for a delimiter or a quote inside a cell, and quote such cells.",
    )  # fmt: skip


def _lines(text: bytes) -> int:
    return text.count(b"\n") or text.count(b"\r")


def _broken(data: bytes, layout: _Layout, where: str, error: Exception) -> DataError:
    record, position = _record(layout.delimiter), layout.body
    while position < len(data):
        found = record.match(data, position)
        if found is None or found.end() == position:
            break
        position = found.end()
    if position < len(data):
        line = _lines(data[:position]) + 1
        return DataError(f"A quote that opens in line {line:,} is never closed.", where=where, hint="Close it.")
    return DataError(f"The rows can't be read ({error}).", where=where)


def _read_sample(path: Path, head: bytes, limit: int, max_rows: int | None) -> RawTable:
    """Read the file batch by batch and keep what fits."""
    where = str(path)
    head = head[: 1 << 24]
    encoding, skip, notice = find_encoding(head, where, whole=False)
    start = head[skip:].decode(encoding, "ignore").encode("utf-8")
    layout = _layout(start, where, whole=False)
    layout = _Layout(layout.delimiter, layout.names, layout.body, True)  # quotes may come later than the head
    bad: list[Any] = []

    def invalid(row: Any) -> str:
        bad.append(row)
        return "error"

    with open_bytes(path) as raw:
        raw.read(skip)
        stream: Any = raw if encoding == "utf-8" else cast(BinaryIO, Recoder(raw, encoding, where))
        stream.read(layout.body)
        source = stream if isinstance(stream, pa.NativeFile) else pa.PythonFile(stream, mode="r")
        try:
            batches = pa_csv.open_csv(source, **_options(layout, 1 << 24, invalid))
            table, total = sample_batches(batches, batches.schema, limit // _GROWTH)
        except (pa.ArrowInvalid, OSError) as error:
            if bad:
                raise DataError(
                    f"A row has {bad[0].actual_columns} fields where the header has {bad[0].expected_columns}: "
                    f"{bad[0].text[:80]!r}.",
                    where=where, hint="Look for a delimiter or a quote inside a cell, and quote such cells.",
                ) from error  # fmt: skip
            raise DataError(f"The rows can't be read ({error}).", where=where) from error
    notices = [*([notice] if notice else []), sample_notice(table.num_rows, total, limit)]
    return finish(table, where, notices, max_rows=max_rows, rows_total=total)
