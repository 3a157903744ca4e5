"""What modalities share whose models are trained once, and judged on one part of the rows that is held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidemill.core.budget import Budget
from tidemill.core.schema import Columns, take_rows
from tidemill.sdk.modality._base import Prepared
from tidemill.search.heldout.material import FEW, HeldOutMaterial

if TYPE_CHECKING:
    from tidemill.sdk.study import Study

M = TypeVar("M", bound=HeldOutMaterial)
T = TypeVar("T")


class Encoded(Prepared, Protocol):
    """Rows made ready for a search, as models see them."""

    @property
    def encoder(self) -> Any:
        """What made them so."""

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Group codes, where a column groups the rows."""


def material_of(
    kind: type[M], prepared: Encoded, profile: Any, x: NDArray[Any], x_test: NDArray[Any], columns: Columns
) -> M:
    """Make what a search learns from.

    Parameters
    ----------
    kind : type
        Of the material.
    prepared : Encoded
        The rows.
    profile
        What families may know.
    x, x_test : ndarray
        Training rows as models see them, and locked ones, if there are any.
    columns : Columns
        Properties of all rows.
    """
    train, test = prepared.train, prepared.test
    locked = len(test) > 0
    return kind(
        encoder=prepared.encoder,
        schema=prepared.schema,
        profile=profile,
        x=x,
        y=prepared.y[train],
        rows=train,
        columns=take_rows(columns, train),
        groups=None if prepared.groups is None else prepared.groups[train],
        x_test=x_test if locked else None,
        y_test=prepared.y[test] if locked else None,
        rows_test=test if locked else None,
        columns_test=take_rows(columns, test) if locked else None,
    )


def reserve_s(budget: Budget, start_s: float, row_s: float, rows: int) -> float:
    """Seconds for what comes behind a search: to start, for each row, and 2 % of all the time; 35 % at the most.

    Examples
    --------
    >>> round(reserve_s(Budget(time_s=60.0), 8.0, 1e-3, 1000), 3), reserve_s(Budget(time_s=None), 8.0, 1e-3, 1000)
    (10.2, 0.0)
    """
    if budget.time_s is None:
        return 0.0
    return min(0.35 * budget.time_s, start_s + row_s * rows + 0.02 * budget.time_s)


def proof_rows(prepared: Encoded) -> int:
    """Number of rows that are held out or locked, in the usual shares."""
    held_out = len(prepared.train) // (5 if len(prepared.train) < FEW else 8)
    return held_out + len(prepared.test)


def proof_of(study: Study, take: Callable[[NDArray[np.int64]], T]) -> dict[str, T]:
    """Rows that no model was trained on, by the name of their part; ``take`` gives those of some numbers."""
    prepared = study.prepared
    tables = {"validation": take(prepared.train[study.search.covered_rows])}
    if len(prepared.test):
        tables["test"] = take(prepared.test)
    return tables


def trained_once(study: Study, model: str, rows: str) -> str:
    """One sentence for the report, with the words for a model and for rows."""
    held_out, known = len(study.search.covered_rows), len(study.search.truth.y)
    return (
        f"Every {model} was trained once, on {known - held_out:,} {rows}, and judged on the other {held_out:,}, which "
        "it had not seen."
    )
