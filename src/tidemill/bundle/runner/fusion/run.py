"""Predict the rows of a CSV file with the model beside this program: python run.py in.csv out.csv

Needs onnxruntime, numpy and, for columns of texts, tokenizers, of images, Pillow. The file has a header; columns are
found by name, further columns are ignored; images are files that a column names, beside the CSV file or in --images.
One that can't be read is named and counts as missing. Writes `prediction`, then `proba_<label>` for each class. Exit
code 0: done, 2: the input can't be used.
"""  # noqa: D400 - the first line is the program's usage

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import lzma
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

# <inlined>
from tidemill.bundle.runner.answers import answer_header, write_answers
from tidemill.bundle.runner.fusion.rows import answer_rows, rows_at_a_time
from tidemill.bundle.runner.ordered import cores, in_order
from tidemill.bundle.runner.run import InputFault, chunks, column, start_session, whole_file
from tidemill.bundle.runner.stacks import MOST_STACK_BYTES  # noqa: F401 - `answer_rows` uses it
from tidemill.bundle.runner.texts.reading import MOST_BATCH, MOST_CHARACTERS, Read, open_reader  # noqa: F401 - so, too
from tidemill.data.images.decode import decode
from tidemill.data.ingest.delimited import DELIMITERS, sniff  # noqa: F401 - `chunks` uses them
from tidemill.data.textforms import header_names, physical  # noqa: F401 - so do these

# </inlined>

HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, predict, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("input", help="CSV file with a header (also .gz, .bz2, .xz)")
    parser.add_argument("output", nargs="?", default="-", help="CSV file to write; default standard output")
    parser.add_argument("--encoding", help="of the input; default UTF-8, or as its byte order mark says")
    parser.add_argument("--images", help="folder in which image files lie; default that of the input")
    given = parser.parse_args(arguments)
    try:
        session = start_session(HERE / "1" / "model.onnx")
        readers = readers_of(session)
        with whole_file(given.output) as out:
            folder = Path(given.images) if given.images else Path(given.input).resolve().parent
            bad = predict_file(session, readers, given.input, out, given.encoding, folder)
    except InputFault as fault:
        print(f"error: {given.input}: {fault}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the answers has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, EOFError, ImportError, lzma.LZMAError) as fault:
        where = getattr(fault, "filename", None) or given.input
        print(f"error: {where}: {getattr(fault, 'strerror', None) or fault}", file=sys.stderr)
        return 2
    for line in bad:
        print(f"not read: {line}", file=sys.stderr)
    return 0


def readers_of(session: Any) -> dict[str, Read]:
    """Open the files that the columns of texts are read with; each is the one that the graph was proven with."""
    about = session.get_modelmeta().custom_metadata_map
    known = {}
    for entry in json.loads(about["tidemill.readers"]):
        data = (HERE / entry["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise InputFault(f"{entry['file']} is not the file that the model was made with.")
        known[entry["key"]] = open_reader(entry, data)
    return {name: known[key] for name, key in json.loads(about["tidemill.columns"]).items()}


def predict_file(
    session: Any, readers: dict[str, Read], path: str, out: TextIO, encoding: str | None, folder: Path
) -> list[str]:
    """Predict a file some rows at a time; returns the images that can't be read, with the reason."""
    about = session.get_modelmeta().custom_metadata_map
    inputs = json.loads(about["tidemill.inputs"])
    csv.writer(out, lineterminator="\n").writerow(answer_header(json.loads(about["tidemill.task"])["classes"]))
    done = 0
    bad: list[str] = []
    images = [each["column"] for each in inputs if each["type"] == "image"]

    def answer(columns: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        unread: list[str] = []
        read = {name: pixels_of(columns[name], folder, unread) for name in images}
        return answer_rows(session, inputs, readers, {**columns, **read}), unread

    for outputs, unread in in_order(answer, columns_of(path, encoding, inputs), cores()):
        write_answers(out, outputs)
        bad += unread
        done += len(next(iter(outputs.values())))
    if not done:
        raise InputFault("The table has a header but no rows.")
    return bad


def pixels_of(names: Any, folder: Path, unread: list[str]) -> list[Any]:
    """Pixels of the files that cells name; None where a cell is empty, or its file can't be read."""
    out: list[Any] = []
    for name in map(str.strip, names):
        try:
            out.append(decode((folder / name.replace("\\", "/")).read_bytes()) if name else None)
        except (OSError, ValueError) as error:
            unread.append(f"{name}: {getattr(error, 'strerror', None) or error}")
            out.append(None)
    return out


def columns_of(path: str, encoding: str | None, inputs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the cells of all columns, some rows at a time."""
    done, size = 0, rows_at_a_time(inputs)
    for rows, places in chunks(path, encoding, inputs):
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            pairs = zip(inputs, places, strict=True)
            yield {each["column"]: column(some, place, shown(each), done)[:, 0] for each, place in pairs}
            done += len(some)


def shown(each: dict[str, Any]) -> dict[str, Any]:
    """A column as it stands in the file, where an image is a name."""
    return {**each, "type": "text"} if each["type"] == "image" else each


csv.field_size_limit(2**31 - 1)

if __name__ == "__main__":
    sys.exit(main())
