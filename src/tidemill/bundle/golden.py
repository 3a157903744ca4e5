"""Golden rows: a few inputs with the answers that were proven, kept beside the graph without pickle."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import BundleError
from tidemill.core.schema import Columns, Schema, take_rows

NAME = "tests/golden.npz"
_ROWS = 16
_MOST_CHARACTERS = 200
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, SyntaxError)
"""What a damaged archive raises beside the usual: from the container, its compression, and an array's header."""
_UNSEEN = "never seen in training"


def choose_rows(columns: Columns, schema: Schema) -> Columns:
    """Pick rows that are spread over a table, and add two that test the edges: all missing, and all unseen.

    Long text is cut: the answer to a golden row is that of the cut text.
    """
    picked = take_rows(columns, spread(len(next(iter(columns.values())))))
    out: Columns = {}
    for column in schema.features:
        values = picked[column.name]
        if column.type.is_string:
            short = [_storable(str(v)) for v in values]
            out[column.name] = np.array([*short, "", _UNSEEN], dtype=object)
        else:
            known = values[np.isfinite(values)]
            out[column.name] = np.array([*values, np.nan, known[0] if len(known) else np.nan], dtype=np.float64)
    return out


def spread(rows: int) -> NDArray[np.int64]:
    """Places of the rows that are picked from so many."""
    return np.unique(np.linspace(0, rows - 1, min(rows, _ROWS)).astype(np.int64))


def _storable(text: str) -> str:
    # Fixed-width text in numpy ends at the last character that is not NUL.
    return text[:_MOST_CHARACTERS].rstrip("\0")


def render(inputs: Mapping[str, NDArray[np.generic]], outputs: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Bytes of the ``.npz``: inputs and outputs of the graph by name, strings as fixed-width text.

    The arrays are numbered, and two of them hold the names: a column may be called anything, a member of an archive
    may not.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "input_names": np.array(list(inputs), dtype=np.str_),
        "output_names": np.array(list(outputs), dtype=np.str_),
    }
    arrays |= {f"input_{i}": _plain(v) for i, v in enumerate(inputs.values())}
    arrays |= {f"output_{i}": _plain(v) for i, v in enumerate(outputs.values())}
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def parse(data: bytes) -> tuple[dict[str, NDArray[np.generic]], dict[str, NDArray[np.generic]]]:
    """Read graph inputs and outputs by name; strings come back as objects.

    Raises
    ------
    BundleError
        If it is not what `render` writes.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return (
                {str(n): _live(stored[f"input_{i}"]) for i, n in enumerate(stored["input_names"])},
                {str(n): _live(stored[f"output_{i}"]) for i, n in enumerate(stored["output_names"])},
            )
    except (*_DAMAGE, OSError, ValueError, KeyError, EOFError, TypeError) as error:
        raise BundleError(f"The golden rows are damaged ({error}).", where=NAME) from error


def _plain(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.astype(np.str_) if values.dtype == object else values


def _live(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.astype(object) if values.dtype.kind == "U" else values
