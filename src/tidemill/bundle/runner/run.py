"""Predict the rows of a CSV file with the model beside this program: python run.py in.csv out.csv

Needs onnxruntime and numpy, nothing else. The file has a header; columns are found by name, further columns are
ignored. Writes `prediction`, then `proba_<label>` for each class. Exit code 0: done, 2: the input can't be used.
"""  # noqa: D400 - the first line is the program's usage

from __future__ import annotations

import argparse
import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnxruntime

# <inlined>
from tidemill.bundle.runner.answers import answer_header, write_answers
from tidemill.bundle.runner.ordered import cores, in_order
from tidemill.data.ingest.delimited import DELIMITERS, sniff  # noqa: F401 - `sniff` reads DELIMITERS
from tidemill.data.textforms import header_names, physical

# </inlined>

MODEL = Path(__file__).resolve().parent / "1" / "model.onnx"
CHUNK = 1024
HEAD_CHARACTERS = 1 << 18


class InputFault(Exception):
    """The input can't be used; the message says where and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, predict, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("input", help="CSV file with a header (also .gz, .bz2, .xz)")
    parser.add_argument("output", nargs="?", default="-", help="CSV file to write; default standard output")
    parser.add_argument("--encoding", help="of the input; default UTF-8, or as its byte order mark says")
    given = parser.parse_args(arguments)
    try:
        session = start_session(MODEL)
        with whole_file(given.output) as out:
            predict_file(session, given.input, out, given.encoding)
    except InputFault as fault:
        print(f"error: {given.input}: {fault}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the answers has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, EOFError, lzma.LZMAError) as fault:
        where = getattr(fault, "filename", None) or given.input
        print(f"error: {where}: {getattr(fault, 'strerror', None) or fault}", file=sys.stderr)
        return 2
    return 0


def start_session(model: Path) -> Any:
    """Start onnxruntime; every call runs on one thread, and several calls run at the same time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def predict_file(session: Any, path: str, out: TextIO, encoding: str | None = None) -> int:
    """Predict a file chunk by chunk; returns the number of rows."""
    about = session.get_modelmeta().custom_metadata_map
    inputs = json.loads(about["tidemill.inputs"])
    names = [output.name for output in session.get_outputs()]
    csv.writer(out, lineterminator="\n").writerow(answer_header(json.loads(about["tidemill.task"])["classes"]))
    done = 0

    def answer(feed: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(None, feed), strict=True))

    for outputs in in_order(answer, feeds(path, encoding, inputs), cores()):
        write_answers(out, outputs)
        done += len(next(iter(outputs.values())))
    if not done:
        raise InputFault("The table has a header but no rows.")
    return done


def feeds(path: str, encoding: str | None, inputs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the graph's inputs chunk by chunk."""
    done = 0
    for rows, places in chunks(path, encoding, inputs):
        yield {each["input"]: column(rows, place, each, done) for each, place in zip(inputs, places, strict=True)}
        done += len(rows)


def column(rows: list[list[str]], place: int, each: dict[str, Any], done: int) -> Any:
    """Turn one column's cells into a graph input of shape (n, 1)."""
    kind, unit = each["type"], each["unit"]
    values = np.empty((len(rows), 1), dtype=object if kind in ("category", "text") else np.float64)
    for i, row in enumerate(rows):
        try:
            values[i, 0] = physical(row[place], kind, unit)
        except ValueError as error:
            raise InputFault(f"Column {each['column']!r}, row {done + i + 1:,}: {str(error)[:200]}.") from None
    return values


def chunks(
    path: str, encoding: str | None, inputs: list[dict[str, Any]]
) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Give lists of rows, and the place of every input in them."""
    try:
        with open_text(path, encoding) as stream:
            head = stream.read(HEAD_CHARACTERS).lstrip("\r\n")
        if not head.strip():
            raise InputFault("The file is empty.")
        with open_text(path, encoding) as stream:
            yield from records(csv.reader(stream, delimiter=sniff(head, name=path)), inputs)
    except UnicodeDecodeError as error:
        raise InputFault(f"The text is not {error.encoding} ({error.reason}); say --encoding.") from None


def records(reader: Any, inputs: list[dict[str, Any]]) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Give the rows behind the header in chunks."""
    rows: list[list[str]] = []
    names: list[str] = []
    places: list[int] = []
    last = 0
    try:
        for row in reader:
            first, last = last + 1, reader.line_num
            if not row:
                continue
            if not names:
                names = header_names(row)
                places = find(inputs, names)
                continue
            if len(row) != len(names):
                raise InputFault(f"Line {first:,} has {len(row)} fields where the header has {len(names)}.")
            rows.append(row)
            if len(rows) == CHUNK:
                yield rows, places
                rows = []
    except csv.Error as error:
        raise InputFault(f"Line {last + 1:,} can't be read ({error}).") from None
    if rows:
        yield rows, places


def find(inputs: list[dict[str, Any]], names: list[str]) -> list[int]:
    """Place of every input among the columns of the file."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputFault(f"Column names stand more than once: {', '.join(map(repr, twice[:10]))}.")
    absent = [each["column"] for each in inputs if each["column"] not in names]
    if absent:
        noun = "column is" if len(absent) == 1 else "columns are"
        raise InputFault(f"{len(absent)} {noun} missing: {', '.join(map(repr, absent[:20]))}.")
    return [names.index(each["column"]) for each in inputs]


def open_text(path: str, encoding: str | None) -> TextIO:
    """Open a file as text, decompressed where its first bytes say so."""
    with open(path, "rb") as file:
        magic = file.read(6)
    opener: Any = open
    if magic.startswith(b"\x1f\x8b"):
        opener = gzip.open
    elif magic.startswith(b"BZh"):
        opener = bz2.open
    elif magic.startswith(b"\xfd7zXZ\x00"):
        opener = lzma.open
    if encoding is None:
        with opener(path, "rb") as file:
            encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return io.TextIOWrapper(opener(path, "rb"), encoding=encoding, newline="")
    except LookupError:
        raise InputFault(f"There is no encoding {encoding!r}.") from None


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[TextIO]:
    """Open a text file that is there as a whole or not at all; ``-`` is standard output."""
    if path == "-":
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
        yield out
        out.detach().flush()  # `detach` writes what is buffered
        return
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device: there is nothing to replace
        with open(path, "w", encoding="utf-8", newline="") as file:
            yield file
        return
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)), prefix=".", suffix=".part")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # `mkstemp` lets nobody else read
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


csv.field_size_limit(2**31 - 1)

if __name__ == "__main__":
    sys.exit(main())
