"""Says whether counts of a period differ from the reference by more than chance, and by enough to matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tidemill.bundle.reference.columns import ColumnReference
from tidemill.bundle.reference.distances import ks, psi, rate_limit
from tidemill.bundle.reference.file import Reference
from tidemill.bundle.reference.limits import LEAST_ROWS, LEVEL
from tidemill.deploy.watch.sketch import Sketch, key_of

LEAST_PSI = 0.02
LEAST_KS = 0.05
"""Smaller distances are shown but raise no alarm, however sure they are: 0.3 standard deviations have .09 and .12."""
LEAST_RATE = 0.005
"""Points by which a rate of missing, new or out-of-range values must have grown."""
SHOWN = 20
"""Columns of a judgement that are kept, the most moved first."""
LEAST_DROP = 0.01
"""Points of accuracy that must be lost before an estimate raises an alarm."""


@dataclass(frozen=True)
class ColumnJudgement:
    """One column in one period.

    Parameters
    ----------
    name : str
        Of the column; predictions begin with ``"→ "``.
    psi, ks : float
        Distances from the reference.
    psi_limit, ks_limit : float
        What chance reaches.
    missing, out_of_range, new : float or None
        Shares of rows; None where the kind has none.
    beyond : bool
        True where chance is no explanation and the change is large enough to matter.
    why : str
        What is beyond, in plain words.
    """

    name: str
    psi: float
    ks: float
    psi_limit: float
    ks_limit: float
    missing: float | None
    out_of_range: float | None
    new: float | None
    beyond: bool
    why: str

    @property
    def severity(self) -> float:
        """How many times its limit the column has moved."""
        return max(_times(self.psi, self.psi_limit), _times(self.ks, self.ks_limit)) + 1e6 * self.beyond

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON, numbers to six digits."""
        return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in asdict(self).items()}


def _times(moved: float, limit: float) -> float:
    """How many times its limit something has moved; what never varied has the limit 0."""
    return moved / limit if limit else 1e3 * (moved > 0)


def judge(reference: Reference, sketch: Sketch) -> list[ColumnJudgement]:
    """Judge every column that has at least `LEAST_ROWS` rows, the most moved first."""
    level = LEVEL / max(len(reference.columns), 1)
    named = [(c, c.name) for c in reference.features]
    named += [(c, key_of(c, prediction=True)) for c in reference.predictions]
    found = (_judge(column, key, sketch, level) for column, key in named)
    return sorted((j for j in found if j is not None), key=lambda j: -j.severity)


def _judge(column: ColumnReference, key: str, sketch: Sketch, level: float) -> ColumnJudgement | None:
    seen = sketch.counts.get(key)
    if seen is None or not column.rows or len(seen) != column.size:
        return None
    rows = int(seen.sum())
    limit = column.limit(rows)
    if limit is None:
        return None
    reference = np.asarray(column.counts, dtype=np.int64)
    a, b = column.compared(seen), column.compared(reference)
    moved_psi, moved_ks = psi(a, b), ks(a, b)
    why: list[str] = []
    if moved_psi > max(limit.psi, LEAST_PSI):
        why.append(f"PSI {moved_psi:.3g} (by chance up to {limit.psi:.2g})")
    if moved_ks > max(limit.ks, LEAST_KS):
        why.append(f"KS {moved_ks:.3g} (by chance up to {limit.ks:.2g})")
    rates, usual = column.rates(seen), column.rates(reference)
    for name, rate in rates.items():
        bound = rate_limit(round(usual[name] * column.rows), column.rows, rows, level)
        if rate > max(bound, usual[name] + LEAST_RATE):
            why.append(f"{name.replace('_', ' ')} {rate:.2%} (was {usual[name]:.2%})")
    return ColumnJudgement(
        key,
        moved_psi,
        moved_ks,
        limit.psi,
        limit.ks,
        rates.get("missing"),
        rates.get("out_of_range"),
        rates.get("new"),
        bool(why),
        "; ".join(why),
    )


class Runs:
    """Remembers what was beyond its limits in the window before: an alarm needs two in a row.

    Examples
    --------
    >>> runs = Runs()
    >>> runs.see(["age"]), runs.see(["age", "size"]), runs.see([])
    (set(), {'age'}, set())
    """

    def __init__(self) -> None:
        self._before: set[str] = set()

    def see(self, beyond: Sequence[str]) -> set[str]:
        """Take what is beyond in this window; gives what was beyond in both."""
        now = set(beyond)
        both, self._before = now & self._before, now
        return both


def dropped(estimated: Mapping[str, float], reference: Reference, rows: int) -> str:
    """Say that the estimated accuracy lies below that of the reference by more than chance; empty if not.

    Three standard deviations of both, and at least one point.
    """
    usual = reference.quality.get("accuracy")
    now = estimated.get("accuracy")
    if usual is None or now is None or rows < LEAST_ROWS or not reference.quality_rows:
        return ""
    spread = (usual * (1 - usual) * (1 / rows + 1 / reference.quality_rows)) ** 0.5
    if now >= usual - max(3 * spread, LEAST_DROP):
        return ""
    return f"estimated accuracy {now:.3f}, was {usual:.3f}"
