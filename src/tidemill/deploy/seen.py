"""What the gate of a canary looks at: a few counters of one revision, read from the windows of all fronts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import Any

from tidemill.core.protocols import RecordStore
from tidemill.deploy.watch.window import DEPLOY_WINDOW, Window, merge


@dataclass(frozen=True)
class Seen:
    """Counters of a revision; they only grow, and the difference of two readings is what happened between them.

    Parameters
    ----------
    requests, errors, deaths : int
        Answers, those of status 500 and above that are no refusals, worker deaths.
    latency : tuple of int
        Answers by the cells of `tidemill.deploy.watch.window.LATENCY_BOUNDS_MS`, whole time.
    labels : mapping of str to int
        Rows by predicted label.
    scores : tuple of int
        Rows by cell of the score.
    compared, disagreements : int
        Rows that the other revision answered too, and those of them where it said another thing.
    right, wrong : int
        Feedback that agreed with the answer, and that did not.
    refusals : int
        Requests that were refused (429, 503, 507); they are among ``requests``, and no errors.

    Examples
    --------
    >>> (Seen(requests=3, labels={"yes": 3}) - Seen(requests=1, labels={"yes": 1})).labels
    {'yes': 2}
    """

    requests: int = 0
    errors: int = 0
    deaths: int = 0
    latency: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    scores: tuple[int, ...] = ()
    compared: int = 0
    disagreements: int = 0
    right: int = 0
    wrong: int = 0
    refusals: int = 0

    def __sub__(self, earlier: Seen) -> Seen:
        """What was counted since ``earlier``; never below 0."""
        values: dict[str, Any] = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(earlier, item.name)
            if item.name == "labels":
                values[item.name] = {n: max(0, c - theirs.get(n, 0)) for n, c in mine.items()}
            elif isinstance(mine, tuple):
                values[item.name] = tuple(max(0, a - b) for a, b in zip_longest(mine, theirs, fillvalue=0))
            else:
                values[item.name] = max(0, mine - theirs)
        return Seen(**values)

    @classmethod
    def of(cls, window: Window) -> Seen:
        """Take what the gate needs from a window."""
        return cls(
            window.requests,
            window.errors,
            window.deaths,
            tuple(window.latency_counts["total"]),
            dict(window.label_counts),
            tuple(window.score_counts),
            window.compared,
            window.disagreements,
            window.feedback_right,
            window.feedback_wrong,
            window.refusals,
        )

    def slower_than(self, cell: int) -> int:
        """Answers in the cells above ``cell``."""
        return sum(self.latency[cell + 1 :])

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "latency": list(self.latency), "labels": dict(self.labels), "scores": list(self.scores)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Seen:
        """Rebuild from `to_json`.

        Examples
        --------
        >>> Seen.from_json(Seen(requests=3, latency=(1, 2)).to_json()) == Seen(requests=3, latency=(1, 2))
        True
        """
        return cls(**{**data, "latency": tuple(data["latency"]), "scores": tuple(data["scores"])})


def read_seen(records: RecordStore, endpoint: str, revision: str) -> Seen:
    """Add up what all fronts, living and ended, have counted of a revision."""
    found = records.find(DEPLOY_WINDOW, f"{endpoint}/{revision}/")
    return Seen.of(merge(Window.from_json(r.body) for r in found))
