"""Predict the texts of a CSV file with the model beside this program: python run.py in.csv out.csv

Needs onnxruntime, numpy and, for models that read tokens, tokenizers. The file has a header; the column with the texts
is found by name, further columns are ignored. Writes `prediction`, then `proba_<label>` for each class. Exit code 0:
done, 2: the input can't be used.
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
from tidemill.bundle.runner.ordered import cores, in_order
from tidemill.bundle.runner.run import InputFault, chunks, column, start_session, whole_file
from tidemill.bundle.runner.texts.reading import Read, answer_texts, open_reader
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
    given = parser.parse_args(arguments)
    try:
        session = start_session(HERE / "1" / "model.onnx")
        readers = readers_of(session)
        with whole_file(given.output) as out:
            predict_file(session, readers, given.input, out, given.encoding)
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
    return 0


def readers_of(session: Any) -> list[Read]:
    """Open the files that the graph reads texts with; each is the one that the graph was proven with."""
    out = []
    for entry in json.loads(session.get_modelmeta().custom_metadata_map["tidemill.readers"]):
        data = (HERE / entry["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise InputFault(f"{entry['file']} is not the file that the model was made with.")
        out.append(open_reader(entry, data))
    return out


def predict_file(session: Any, readers: list[Read], path: str, out: TextIO, encoding: str | None = None) -> int:
    """Predict a file chunk by chunk; returns the number of rows."""
    about = session.get_modelmeta().custom_metadata_map
    inputs = json.loads(about["tidemill.inputs"])
    csv.writer(out, lineterminator="\n").writerow(answer_header(json.loads(about["tidemill.task"])["classes"]))
    done = 0

    def answer(texts: list[str]) -> dict[str, Any]:
        return answer_texts(session, readers, texts)

    for outputs in in_order(answer, texts_of(path, encoding, inputs), cores()):
        write_answers(out, outputs)
        done += len(next(iter(outputs.values())))
    if not done:
        raise InputFault("The table has a header but no rows.")
    return done


def texts_of(path: str, encoding: str | None, inputs: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Give the texts chunk by chunk."""
    done = 0
    for rows, places in chunks(path, encoding, inputs):
        yield [str(text) for text in column(rows, places[0], inputs[0], done)[:, 0]]
        done += len(rows)


csv.field_size_limit(2**31 - 1)

if __name__ == "__main__":
    sys.exit(main())
