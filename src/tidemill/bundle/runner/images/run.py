"""Predict images with the model beside this program: python run.py photos/ out.csv

INPUT is a folder, an image, a CSV file (UTF-8, commas) with a column that names image files, beside it or in --images,
or a .npy array of pixels. Needs onnxruntime, numpy and Pillow (for .npy no Pillow). Writes `file`, `prediction`, then
`proba_<label>` for each class, or `confidence` of a text that was read; an image that can't be read is named and has
empty cells. Exit code 0: done, 2: the input can't be used.
"""  # noqa: D400 - the first line is the program's usage

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnxruntime

# <inlined>
from tidemill.bundle.runner.answers import answer_header
from tidemill.bundle.runner.beams import decoding
from tidemill.bundle.runner.ordered import cores, in_order
from tidemill.bundle.runner.stacks import stacks
from tidemill.data.images.decode import decode, from_array
from tidemill.data.images.named import LOOKED_AT, file_column, file_name
from tidemill.data.versions.blobs import IMAGES

# </inlined>

MODEL = Path(__file__).resolve().parent / "1" / "model.onnx"


class InputFault(Exception):
    """The input can't be used; the message says where and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, predict, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("input", help="folder of images, image, CSV file that names images, or .npy array")
    parser.add_argument("output", nargs="?", default="-", help="CSV file to write; default standard output")
    parser.add_argument("--images", help="folder in which the files lie that a CSV file names; default beside it")
    given = parser.parse_args(arguments)
    try:
        names, read = images_of(Path(given.input), given.images)
        session = start_session(MODEL)
        with whole_file(given.output) as out:
            bad = predict_all(session, names, read, out)
    except InputFault as fault:
        print(f"error: {given.input}: {fault}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the answers has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ImportError) as fault:
        where = getattr(fault, "filename", None) or given.input
        print(f"error: {where}: {getattr(fault, 'strerror', None) or fault}", file=sys.stderr)
        return 2
    for name, reason in bad:
        print(f"not read: {name}: {reason}", file=sys.stderr)
    return 0


def start_session(model: Path) -> Any:
    """Start onnxruntime, every call of which runs on one thread; some texts are searched for behind it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return decoding(onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"]))


def images_of(path: Path, folder: str | None = None) -> tuple[list[str], Callable[[int], Any]]:
    """Names of the images, and a function that gives the pixels of one."""
    if path.is_dir():
        found = (p.relative_to(path) for p in path.rglob("*") if p.suffix.lower() in IMAGES)
        names = sorted(p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts))
        root = path
    elif not path.is_file():
        raise InputFault("There is no such file or folder.")
    elif path.suffix.lower() == ".npy":
        return array_of(path)
    elif path.suffix.lower() in IMAGES:
        names, root = [path.name], path.parent
    else:
        names, root = listed(path), Path(folder) if folder else path.parent
        if not any(name and (root / name).is_file() for name in names):
            raise InputFault(f"None of the files that the table names is in {root}, the first is {names[0]!r}; "
                             "say --images FOLDER where they lie elsewhere.")  # fmt: skip
    if not names:
        raise InputFault("There are no images.")
    return names, lambda place: decode(bytes_of(root, names[place]))


def bytes_of(root: Path, name: str) -> bytes:
    """Bytes of a file. Raises `ValueError` with what is wrong, without the name."""
    if not name:
        raise ValueError("no file is named")
    try:
        return (root / name).read_bytes()
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except OSError as error:
        raise ValueError(f"the file can't be read: {error.strerror or error}") from error


def array_of(path: Path) -> tuple[list[str], Callable[[int], Any]]:
    """Images along the first axis of an array."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputFault(f"This is no array that can be read ({error}).") from None
    if values.ndim not in (3, 4) or not len(values):
        raise InputFault(f"Images in an array have the shape (images, height, width, 3), but got {values.shape}.")
    return [str(i) for i in range(len(values))], lambda place: from_array(values[place])


def listed(path: Path) -> list[str]:
    """Cells of the column that names image files."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputFault(f"This is no table of file names ({error}).") from None
    if len(rows) < 2:
        raise InputFault("The table has no rows.")
    header = [name.strip() for name in rows[0]]
    width = len(header)
    rows = [row + [""] * (width - len(row)) for row in rows[1:]]
    named = file_column({name: [row[i] for row in rows[:LOOKED_AT]] for i, name in enumerate(header)})
    if named is None:
        shown = ", ".join(map(repr, header[:10]))
        raise InputFault(f"No column names image files ({shown}); a table has commas between its columns.")
    return [file_name(row[header.index(named)]) for row in rows]


def predict_all(session: Any, names: list[str], read: Callable[[int], Any], out: TextIO) -> list[tuple[str, str]]:
    """Predict image after image; returns those that can't be read, with the reason."""
    header = answer_header(json.loads(session.get_modelmeta().custom_metadata_map["tidemill.task"])["classes"])
    outputs = [output.name for output in session.get_outputs()]
    header += [name for name in outputs if name == "confidence"]
    source = session.get_inputs()[0].name
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", *header])
    bad: list[tuple[str, str]] = []

    def look(place: int) -> Any:
        try:
            return read(place)
        except ValueError as error:
            return str(error)

    def seen() -> Iterator[Any]:
        for place, found in enumerate(in_order(look, range(len(names)), cores())):
            if isinstance(found, str):
                bad.append((names[place], found))
            yield None if isinstance(found, str) else found

    done = 0
    for places, stack in stacks(seen()):
        answers = dict(zip(outputs, session.run(None, {source: stack}), strict=True))
        for place, row in zip(places, cells(answers), strict=True):
            writer.writerows([name, *[""] * len(header)] for name in names[done:place])
            writer.writerow([names[place], *row])
            done = place + 1
    writer.writerows([name, *[""] * len(header)] for name in names[done:])
    return bad


def cells(answers: dict[str, Any]) -> list[list[str]]:
    """Cells of answers as text; a float32 has the fewest digits that give it back."""
    if "prediction" in answers:
        shown = [answers[name] for name in ("prediction", "confidence") if name in answers]
        return [list(map(str, row)) for row in zip(*shown, strict=True)]
    pairs = zip(answers["label"], answers["probabilities"], strict=True)
    return [[str(label), *map(str, row)] for label, row in pairs]


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[TextIO]:
    """Open a text file that is there as a whole or not at all; ``-`` is standard output."""
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()
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


if __name__ == "__main__":
    sys.exit(main())
