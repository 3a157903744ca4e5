"""A suite of another tool, run on a version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from tidemill.core.errors import DataError, MissingExtraError, TidemillError
from tidemill.core.schema import Column, SemanticType
from tidemill.data.checks._base import SEVERITIES, Finding
from tidemill.data.expectations.foreign import gx_suite, pandera_suite
from tidemill.data.expectations.foreign._base import ForeignSuite
from tidemill.data.versions import find_version, load_version
from tidemill.store.workspace import Workspace

_KEPT_AS_TEXT = (SemanticType.TARGET, SemanticType.IDENTIFIER, SemanticType.GROUP)
_RUNNERS: dict[str, Callable[[Any, ForeignSuite], Iterator[Finding]]] = {
    "gx": gx_suite.findings,
    "pandera": pandera_suite.findings,
}


def check_foreign(workspace: Workspace, ref: str, suite: ForeignSuite) -> list[Finding]:
    """Run a suite on a version, which is brought into memory as a pandas frame.

    Whole numbers of which none is missing are int64, other numbers float64; labels and identifiers that were numbers
    are numbers again.

    Parameters
    ----------
    workspace : Workspace
        Where the version is.
    ref : str
        The version.
    suite : ForeignSuite
        What is expected.

    Returns
    -------
    list of Finding
        What is broken, worst first; the code is the tool's word.

    Raises
    ------
    MissingExtraError
        Where the tool isn't installed.
    DataError
        Where the tool can't run the suite, with what it said.
    """
    frame = frame_of(workspace, ref)
    try:
        found = list(_RUNNERS[suite.kind](frame, suite))
    except TidemillError:
        raise
    except (Exception, SystemExit) as error:  # a suite holds whatever its writer wrote; the tools raise what they like
        said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise DataError(
            f"{suite.tool} can't run this suite on {find_version(workspace, ref).ref}. It says: {said}",
            where=suite.where,
        ) from error
    return sorted(found, key=lambda f: SEVERITIES.index(f.severity))


def frame_of(workspace: Workspace, ref: str) -> Any:
    """Bring a version into a pandas frame.

    Raises
    ------
    MissingExtraError
        Without pandas.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("pandas", "to run suites of other tools", extra="dataframes") from error
    table, schema = load_version(workspace, ref)
    columns = {c.name: _typed(_one(table[c.name]), c) for c in schema}
    return pd.DataFrame({name: column.to_pandas() for name, column in columns.items()})


def _typed(values: pa.Array, column: Column) -> pa.Array:
    """Give back the type that a column had before it was brought into the form that is kept."""
    if column.type in _KEPT_AS_TEXT and pa.types.is_string(values.type):
        whole = _cast(values, pa.int64())
        if whole is not None and whole.cast(pa.string()).equals(values):
            return whole
        number = _cast(values, pa.float64()) if column.low is not None else None
        return values if number is None else number
    whole = _cast(values, pa.int64()) if column.type is SemanticType.INTEGER and not values.null_count else None
    return values if whole is None else whole


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None


def _one(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks or [pa.array([], column.type)])
