"""The gate of a canary: from what was seen of both revisions to go on, wait, or go back with a reason.

Everything here is a pure function of counters and a clock. Where a step began is kept in a record, so that the process
that asks may end and start again at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from math import isfinite, log, log2
from typing import Any

from tidemill.core.errors import OptionError, nearest_hint
from tidemill.deploy.seen import Seen
from tidemill.deploy.sequential import chance, evidence_above, evidence_of_excess
from tidemill.deploy.types import Canary
from tidemill.deploy.watch.window import LATENCY_BOUNDS_MS

MOST_LABELS = 20
"""Labels whose share is tested by name; the others are tested together."""
_HISTORY = 200
"""Answers of the baseline from which its usual latency is taken."""
_SHARES = (0.5, 0.95)
"""Quantiles of the latency that are tested."""


@dataclass(frozen=True)
class Bars:
    """What a new revision may not do.

    Parameters
    ----------
    alpha : float
        Chance that a harmless revision is sent back, over the whole canary, however often the gate looks.
    errors : float
        Tolerated excess of its share of errors.
    latency : float
        How many times slower it may be; tested in the steps of the latency cells (a factor of √2).
    drift : float
        Tolerated change of any label's share, or of the distribution of scores at any point.
    disagreement : float
        Tolerated share of rows that both answered, and differently.
    accuracy : float
        Tolerated excess of its share of wrong answers, where feedback tells.
    refusals : float
        Tolerated excess of its share of refusals: a revision that has no room or can't start refuses, and fails nobody.
    deaths : int
        So many worker deaths in one step send it back at once.

    Examples
    --------
    >>> Bars().changed({"latency": 2}).latency
    2.0
    """

    alpha: float = 0.01
    errors: float = 0.001
    latency: float = 1.5
    drift: float = 0.1
    disagreement: float = 0.1
    accuracy: float = 0.02
    refusals: float = 0.05
    deaths: int = 3

    def changed(self, values: Mapping[str, Any]) -> Bars:
        """Change some of them.

        Raises
        ------
        OptionError
            For a name that is not known, or a value out of its range.
        """
        known = {f.name for f in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise OptionError(f"A gate has no bar {name!r}.", hint=nearest_hint(name, known), where="--gate")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
                raise OptionError(f"The bar {name} must be a number, but got {value!r}.", where="--gate")
        plain: dict[str, Any] = {n: int(v) if n == "deaths" else float(v) for n, v in values.items()}
        after = replace(self, **plain)
        shares = ("errors", "drift", "disagreement", "accuracy", "refusals")
        if not 0 < after.alpha < 1 or any(not 0 <= getattr(after, n) < 1 for n in shares):
            raise OptionError("The bars other than latency and deaths are shares, in [0, 1).", where="--gate")
        if after.latency < 1 or after.deaths < 1:
            raise OptionError("The bars latency and deaths must be at least 1.", where="--gate")
        return after


@dataclass(frozen=True)
class Gate:
    """Where a step of a canary began. All that is chosen from data here was seen before the step.

    Parameters
    ----------
    step_at : float
        Of the canary, which names the step.
    new, old : Seen
        Counters of both revisions when it began.
    cells : tuple of int
        Latency cells above which the baseline's slower half, and its slowest twentieth, lay until then.
    labels : tuple of str
        Labels that are tested by name.
    bars : Bars
        What is forbidden.
    """

    step_at: float
    new: Seen
    old: Seen
    cells: tuple[int, ...]
    labels: tuple[str, ...]
    bars: Bars

    @classmethod
    def begin(
        cls, canary: Canary, new: Seen, old: Seen, *, labels: Sequence[str], target_ms: float, bars: Bars
    ) -> Gate:
        """Begin a step now.

        Parameters
        ----------
        canary : Canary
            At the step.
        new, old : Seen
            Counters of both revisions.
        labels : sequence of str
            Classes of the task; empty for a regression.
        target_ms : float
            Wanted latency: what is slow where the baseline has no history.
        bars : Bars
            What is forbidden.
        """
        return cls(canary.step_at, new, old, _slow_cells(old, target_ms), tuple(labels[:MOST_LABELS]), bars)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "step_at": self.step_at,
            "new": self.new.to_json(),
            "old": self.old.to_json(),
            "cells": list(self.cells),
            "labels": list(self.labels),
            "bars": asdict(self.bars),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gate:
        """Rebuild from `to_json`."""
        return cls(
            float(data["step_at"]),
            Seen.from_json(data["new"]),
            Seen.from_json(data["old"]),
            tuple(data["cells"]),
            tuple(data["labels"]),
            Bars(**data["bars"]),
        )


class Action(str, Enum):
    """What follows from a look at the gate."""

    WAIT = "wait"
    STEP = "step"
    BACK = "back"


@dataclass(frozen=True)
class Verdict:
    """What a look at the gate gave.

    Parameters
    ----------
    action : Action
        Wait, take the next step, go back.
    reason : str
        For people.
    facts : mapping
        Plain JSON: counts, and the evidence of each signal.
    """

    action: Action
    reason: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class _Test:
    signal: str
    evidence: float
    bar: float
    words: str


def judge(gate: Gate, canary: Canary, new: Seen, old: Seen, now: float) -> Verdict:
    """Look at the gate.

    Parameters
    ----------
    gate : Gate
        Where the step began.
    canary : Canary
        At that step.
    new, old : Seen
        Counters of both revisions now.
    now : float
        Seconds since 1970.

    Returns
    -------
    Verdict
        ``BACK`` as soon as one signal has enough evidence of harm; ``STEP`` when none has and the step has had its
        answers and its time; else ``WAIT``.

    Notes
    -----
    The bars' alpha is shared among the steps that have a gate, then the signals, then the tests of a signal (union
    bound). A step that opens says that no harm was found, not that there is none: the fewer answers a step needs, the
    larger the harm must be to be found in it.
    """
    since, base = new - gate.new, old - gate.old
    step = canary.steps[canary.step]
    gated = max(1, sum(s.weight < 1 for s in canary.steps))
    tests = list(_tests(gate, since, base, gate.bars.alpha / gated))
    facts = {
        "step": canary.step,
        "weight": step.weight,
        "requests": since.requests,
        "refusals": since.refusals,
        "baseline_requests": base.requests,
        "chance": {t.signal: round(chance(t.evidence), 6) for t in sorted(tests, key=lambda t: t.evidence - t.bar)},
    }
    if since.deaths >= gate.bars.deaths:
        return Verdict(Action.BACK, f"deaths: its workers died {since.deaths} times in this step.", facts)
    harm = [t for t in tests if t.evidence >= t.bar]
    if harm:
        worst = max(harm, key=lambda t: t.evidence - t.bar)
        return Verdict(Action.BACK, f"{worst.signal}: {worst.words} (chance {chance(worst.evidence):.1g}).", facts)
    answers = since.requests - since.refusals
    if answers < step.requests:
        return Verdict(Action.WAIT, f"{answers:,} of {step.requests:,} answers.", facts)
    if now - canary.step_at < step.seconds:
        return Verdict(Action.WAIT, f"{now - canary.step_at:.0f} of {step.seconds:.0f} seconds.", facts)
    return Verdict(Action.STEP, f"No harm found in {answers:,} answers.", facts)


def _tests(gate: Gate, new: Seen, old: Seen, alpha: float) -> Iterator[_Test]:
    signals = [_errors, _refusals, _latency, _labels, _scores, _disagreement, _accuracy]
    for signal in signals:
        yield from signal(gate, new, old, alpha / len(signals))


def _errors(gate: Gate, new: Seen, old: Seen, alpha: float) -> Iterator[_Test]:
    yield _excess(
        "errors", "", (new.errors, new.requests), (old.errors, old.requests), gate.bars.errors, alpha,
        history=(gate.old.errors, gate.old.requests),
    )  # fmt: skip


def _refusals(gate: Gate, new: Seen, old: Seen, alpha: float) -> Iterator[_Test]:
    here, there = (new.refusals, new.requests), (old.refusals, old.requests)
    yield _excess("refusals", "", here, there, gate.bars.refusals, alpha)


def _latency(gate: Gate, new: Seen, old: Seen, alpha: float) -> Iterator[_Test]:
    shift = round(2 * log2(gate.bars.latency))  # the cells grow by √2
    for cell in gate.cells:
        above, slow = min(cell + shift, len(LATENCY_BOUNDS_MS) - 1), f"{LATENCY_BOUNDS_MS[cell]:.3g} ms"
        yield _excess(
            "latency", f"answers above {LATENCY_BOUNDS_MS[above]:.3g} ms (before: above {slow})",
            (new.slower_than(above), sum(new.latency)), (old.slower_than(cell), sum(old.latency)),
            0.0, alpha / len(gate.cells),
        )  # fmt: skip


def _labels(gate: Gate, new: Seen, old: Seen, alpha: float) -> Iterator[_Test]:
    n_new, n_old = sum(new.labels.values()), sum(old.labels.values())
    for name in gate.labels:
        here, there = (new.labels.get(name, 0), n_new), (old.labels.get(name, 0), n_old)
        yield from _shift("drift", f"answers {name!r}", here, there, gate.bars.drift, alpha / len(gate.labels))


def _scores(gate: Gate, new: Seen, old: Seen, alpha: float) -> Iterator[_Test]:
    cells = max(len(new.scores), len(old.scores), len(gate.old.scores))
    n_new, n_old = sum(new.scores), sum(old.scores)
    for cell in range(1, cells):
        here, there = (sum(new.scores[:cell]), n_new), (sum(old.scores[:cell]), n_old)
        words = f"scores below {cell / cells:.2g}"
        yield from _shift("drift of scores", words, here, there, gate.bars.drift, alpha / (cells - 1))


def _disagreement(gate: Gate, new: Seen, old: Seen, alpha: float) -> Iterator[_Test]:
    """Hold both against the shadow, where there is one: that a third revision says another thing is nobody's harm."""
    here, there = (new.disagreements, new.compared), (old.disagreements, old.compared)
    yield _excess("disagreement", "otherwise than the shadow", here, there, gate.bars.disagreement, alpha / 2)
    if old.compared:
        return
    evidence = evidence_above(new.disagreements, new.compared, max(gate.bars.disagreement, 1e-9))
    words = f"{_share(new.disagreements, new.compared)} answered otherwise than by the revision before"
    yield _Test("disagreement", evidence, log(2 / alpha), words)


def _accuracy(gate: Gate, new: Seen, old: Seen, alpha: float) -> Iterator[_Test]:
    yield _excess(
        "accuracy", "wrong by feedback", (new.wrong, new.right + new.wrong), (old.wrong, old.right + old.wrong),
        gate.bars.accuracy, alpha, history=(gate.old.wrong, gate.old.right + gate.old.wrong),
    )  # fmt: skip


def _shift(
    signal: str, what: str, new: tuple[int, int], old: tuple[int, int], margin: float, alpha: float
) -> Iterator[_Test]:
    """Test a share for being larger, and its rest for being larger."""
    yield _excess(signal, what, new, old, margin, alpha / 2)
    rest_new, rest_old = (new[1] - new[0], new[1]), (old[1] - old[0], old[1])
    test = _excess(signal, what, rest_new, rest_old, margin, alpha / 2)
    yield replace(test, words=_compared(what, new, old))


def _excess(
    signal: str,
    what: str,
    new: tuple[int, int],
    old: tuple[int, int],
    margin: float,
    alpha: float,
    history: tuple[int, int] = (0, 0),
) -> _Test:
    evidence = evidence_of_excess(*new, *old, margin, history)
    return _Test(signal, evidence, log(1 / alpha), _compared(what, new, old))


def _compared(what: str, new: tuple[int, int], old: tuple[int, int]) -> str:
    return f"{what}: {_share(*new)}, before {_share(*old)}".removeprefix(": ")


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.2%})" if whole else "none"


def _slow_cells(old: Seen, target_ms: float) -> tuple[int, ...]:
    """Cells above which the baseline's slower half, and its slowest twentieth, lie; the target where it is too new."""
    answers = sum(old.latency)
    if answers < _HISTORY:
        return (min(range(len(LATENCY_BOUNDS_MS)), key=lambda c: abs(log(LATENCY_BOUNDS_MS[c] / target_ms))),)
    cells: list[int] = []
    for share in _SHARES:
        below = 0
        for cell, count in enumerate(old.latency[: len(LATENCY_BOUNDS_MS)]):
            below += count
            if below >= share * answers or cell == len(LATENCY_BOUNDS_MS) - 1:
                cells.append(cell)
                break
    return tuple(dict.fromkeys(cells))
