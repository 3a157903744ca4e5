"""Counts by five minutes, hour and day, judged when a period ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.reference.file import Reference
from tidemill.bundle.reference.limits import LEAST_ROWS
from tidemill.deploy.watch.judge import SHOWN, ColumnJudgement, Runs, dropped, judge
from tidemill.deploy.watch.sketch import Sketch

SPANS_S = (300, 3600, 86_400)
"""Lengths of the periods in seconds: five minutes, an hour, a day; each is the sum of those of the length before."""
ESTIMATE = "estimate"


@dataclass(frozen=True)
class Period:
    """What was counted in one period.

    Parameters
    ----------
    span_s : int
        Its length, one of `SPANS_S`.
    number : int
        Which one since 1970.
    sketch : Sketch
        What was counted.
    """

    span_s: int
    number: int
    sketch: Sketch

    @property
    def start(self) -> float:
        """When it began, seconds since 1970."""
        return float(self.span_s * self.number)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {"span_s": self.span_s, "number": self.number, "sketch": self.sketch.to_json()}

    @classmethod
    def from_json(cls, data: Any) -> Period:
        """Rebuild from `to_json`."""
        return cls(int(data["span_s"]), int(data["number"]), Sketch.from_json(data["sketch"]))


@dataclass
class _Open:
    number: int
    sketch: Sketch = field(default_factory=Sketch)


class Periods:
    """Sketches of a revision by period; a period that ends is judged and added to the next longer one.

    The clock may jump: forward it ends periods, backward it changes nothing until the open period is over.

    Parameters
    ----------
    reference : Reference
        What is compared with.
    cost : ndarray, optional
        Cost matrix for the estimate.

    Examples
    --------
    >>> periods = Periods(Reference((), ()))
    >>> periods.add(Sketch(10), now=0.0)
    >>> [(p.span_s, p.sketch.rows) for p in periods.tick(300.0)]
    [(300, 10)]
    """

    def __init__(self, reference: Reference, cost: NDArray[np.float64] | None = None) -> None:
        self._reference = reference
        self._cost = cost
        self._open: list[_Open | None] = [None] * len(SPANS_S)
        self._runs = [Runs() for _ in SPANS_S]
        self._alarms: list[set[str]] = [set() for _ in SPANS_S]
        self.drift: dict[str, Any] = {"watched": True, "rows": 0, "alarms": [], "features": []}
        self.estimate: dict[str, Any] = {}

    def add(self, sketch: Sketch, *, now: float) -> None:
        """Add to the open period of five minutes; call `tick` first."""
        self._add(0, sketch, int(now // SPANS_S[0]))

    def tick(self, now: float) -> list[Period]:
        """End what is over; gives the periods that ended, short ones first."""
        ended: list[Period] = []
        for k, span_s in enumerate(SPANS_S):
            held = self._open[k]
            if held is None or held.number >= int(now // span_s):
                continue
            self._open[k] = None
            period = Period(span_s, held.number, held.sketch)
            ended.append(period)
            self._judge(k, period)
            if k + 1 < len(SPANS_S):
                self._add(k + 1, held.sketch, int(period.start // SPANS_S[k + 1]))
        return ended

    def restore(self, period: Period, now: float) -> None:
        """Add a period of five minutes that was written before this process began; give them in order."""
        if period.span_s == SPANS_S[0] and period.number < int(now // SPANS_S[0]):
            self.tick(period.start)
            self._add(0, period.sketch, period.number)

    def close(self) -> Period | None:
        """Give the open period of five minutes as it is."""
        held, self._open[0] = self._open[0], None
        return None if held is None or not held.sketch.rows else Period(SPANS_S[0], held.number, held.sketch)

    def _add(self, k: int, sketch: Sketch, number: int) -> None:
        held = self._open[k]
        if held is None:
            self._open[k] = _Open(number, sketch)
        else:
            held.sketch = held.sketch.merged(sketch)

    def _judge(self, k: int, period: Period) -> None:
        if period.sketch.rows < LEAST_ROWS:
            return  # it counts in the longer period
        judged = judge(self._reference, period.sketch)
        beyond = [j.name for j in judged if j.beyond]
        values = period.sketch.expected.estimate(self._cost) if period.sketch.expected else {}
        drop = dropped(values, self._reference, period.sketch.rows)
        self._alarms[k] = self._runs[k].see([*beyond, *([ESTIMATE] if drop else [])])
        # What only an hour is long enough to see stays on, whatever five minutes say.
        alarms = set().union(*self._alarms)
        end = period.start + period.span_s
        self.drift = summary(judged, alarms, rows=period.sketch.rows, span_s=period.span_s, at=end)
        if values:
            shown = {name: float(f"{v:.6g}") for name, v in values.items()}
            self.estimate = {
                "values": shown,
                "rows": period.sketch.rows,
                "span_s": period.span_s,
                "at": end,
                "usual": {
                    k: v for k, v in self._reference.quality.items() if k in ("accuracy", "f1", "roc_auc", "cost")
                },
                "why": drop,
                "alarm": ESTIMATE in alarms,
            }


def summary(judged: list[ColumnJudgement], alarms: set[str], *, rows: int, span_s: int, at: float) -> dict[str, Any]:
    """What is kept of a judgement: the most moved columns, and the alarms."""
    shown = sorted(judged, key=lambda j: j.name not in alarms)[:SHOWN]
    return {
        "watched": True,
        "rows": rows,
        "span_s": span_s,
        "at": at,
        "columns": len(judged),
        "alarms": sorted(alarms - {ESTIMATE}),
        "features": [{**j.to_json(), "alarm": j.name in alarms} for j in shown],
    }
