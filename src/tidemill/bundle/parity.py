"""The proof that the graph answers as the trained model does, over every row that is at hand.

==============  ==================================================================================================
classification  every probability within 1e-5, and the same label on every row: no exception for near ties
regression      every value within 1e-5 of its size, or within 1e-6 of the spread of all predictions
==============  ==================================================================================================

A near tie that no margin resolves the same way twice does occur, about once in a million rows. It is not excused:
`prove` then tries a slightly larger margin (`TIE_MARGINS`), which is part of the shipped rule, and compares all rows
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tidemill.bundle.assemble import LABEL, PREDICTION, PROBABILITIES, assemble, input_names
from tidemill.bundle.latency import session
from tidemill.bundle.parts import TIE_MARGIN, Answers, Recipe
from tidemill.core.errors import ParityError
from tidemill.core.schema import Columns, take_rows

CHUNK = 1024
"""Rows that go through the graph at a time, here and in every program that runs it: the same rows, the same bits."""
_REFERENCE_CHUNK = 4 * CHUNK
"""Rows that go through the trained models at a time; some of them take long to start."""
MAX_DP = 1e-5
RTOL = 1e-5
FLOOR = 1e-6
"""Share of the spread of all predictions below which a difference of a regression does not count."""
SHOWN = 10
"""Number of differing rows that are kept."""
TIE_MARGINS = (TIE_MARGIN, 2.5 * TIE_MARGIN, 4.5 * TIE_MARGIN)


@dataclass(frozen=True)
class Difference:
    """One row on which the graph and the trained model disagree: what each of them says."""

    table: str
    row: int
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.table} row {self.row}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True)
class ParityReport:
    """How far the graph is from the trained model.

    Parameters
    ----------
    rows : int
        Rows that were compared: all of them.
    rows_that_differ : int
        Rows beyond the bars.
    max_abs_dp : float
        Largest difference of a probability; 0 for regression.
    max_rel : float
        Largest difference of a regression, relative to the prediction or, where that is larger, to a tenth of the
        spread of all predictions, so that ``max_rel <= 1e-5`` is the bar; 0 for classification.
    flips : int
        Rows with another label.
    first : tuple of Difference
        The first rows that differ.
    tie_margin : float
        Margin of the decision under which this was measured.
    """

    rows: int
    rows_that_differ: int
    max_abs_dp: float = 0.0
    max_rel: float = 0.0
    flips: int = 0
    first: tuple[Difference, ...] = field(default=())
    tie_margin: float = TIE_MARGIN

    @property
    def ok(self) -> bool:
        """True where no row differs."""
        return self.rows_that_differ == 0

    def require(self) -> ParityReport:
        """Return the report, or raise `ParityError` with the first rows that differ."""
        if self.ok:
            return self
        lines = "".join(f"\n  {d}" for d in self.first)
        raise ParityError(
            f"The exported graph and the trained model disagree on {self.rows_that_differ:,} of {self.rows:,} rows "
            f"({self.flips} labels flipped, largest difference of a probability {self.max_abs_dp:.3g}, "
            f"relative {self.max_rel:.3g}):{lines}\n",
            hint="This is a bug in the export of one of the models; nothing was written.",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "rows": self.rows,
            "rows_that_differ": self.rows_that_differ,
            "max_abs_dp": self.max_abs_dp,
            "max_rel": self.max_rel,
            "flips": self.flips,
            "tie_margin": self.tie_margin,
            "bars": {"max_abs_dp": MAX_DP, "rtol": RTOL, "floor_of_spread": FLOOR, "flips": 0},
        }


@dataclass(frozen=True)
class Proof:
    """A graph that was proven.

    Parameters
    ----------
    model : bytes
        The serialised graph.
    recipe : Recipe
        The recipe with the margin that was proven.
    report : ParityReport
        How near the two are.
    answers : dict of Answers
        What the trained models said, by table.
    run : onnxruntime.InferenceSession, optional
        The session that was compared; a large graph takes a second to load again.
    """

    model: bytes
    recipe: Recipe
    report: ParityReport
    answers: dict[str, Answers]
    run: onnxruntime.InferenceSession | None = None


def prove(recipe: Recipe, tables: Mapping[str, Columns], *, threads: int = 1) -> Proof:
    """Build the graph of a recipe and prove it on all rows of some tables.

    Parameters
    ----------
    recipe : Recipe
        What to ship.
    tables : mapping
        Columns by a name for messages, ``{"train": …, "test": …}``.
    threads : int
        Chunks of rows that are compared at the same time.

    Raises
    ------
    ParityError
        With the first rows that differ and both values.
    """
    recipe = replace(recipe, tie_margin=TIE_MARGINS[0])
    with ThreadPoolExecutor(1) as side:  # the graph is written by Python while libraries answer
        answering = side.submit(_Reference, recipe, tables, threads)
        model = assemble(recipe).SerializeToString()
        reference = answering.result()
    report = None
    for margin in TIE_MARGINS:
        if margin != recipe.tie_margin:
            recipe = replace(recipe, tie_margin=margin)
            model = assemble(recipe).SerializeToString()
        run = session(model)
        report = _compare(run, recipe, tables, reference, threads)
        # Another margin helps where labels are all that differs, and nothing else.
        if report.ok or report.max_abs_dp > MAX_DP or report.flips == 0:
            break
    assert report is not None
    return Proof(model, recipe, report.require(), reference.by_table(recipe), run)


def compare(model: bytes, recipe: Recipe, tables: Mapping[str, Columns], *, threads: int = 1) -> ParityReport:
    """Hold a graph against the models that it was made from, on all rows.

    Parameters
    ----------
    model : bytes
        The serialised graph.
    recipe, tables, threads
        As for `prove`.
    """
    return _compare(session(model), recipe, tables, _Reference(recipe, tables, threads), threads)


def feed_of(names: Mapping[str, str], columns: Columns) -> dict[str, NDArray[Any]]:
    """Shape columns as graph inputs; ``names`` maps columns to inputs. Images of one size are a graph input already."""
    feed = {name: np.ascontiguousarray(columns[column]) for column, name in names.items()}
    return {name: v.reshape(-1, 1) if v.ndim == 1 else v for name, v in feed.items()}


def count_rows(columns: Columns) -> int:
    """Number of rows of physical columns."""
    return len(next(iter(columns.values())))


class _Reference:
    """Answers of the trained models on all rows, computed once."""

    def __init__(self, recipe: Recipe, tables: Mapping[str, Columns], threads: int) -> None:
        jobs = [
            (name, start)
            for name, columns in tables.items()
            for start in range(0, count_rows(columns), _REFERENCE_CHUNK)
        ]

        def answer(job: tuple[str, int]) -> Answers:
            name, start = job
            stop = min(start + _REFERENCE_CHUNK, count_rows(tables[name]))
            return recipe.predict(take_rows(tables[name], np.arange(start, stop)))

        self.jobs = jobs
        self.answers: list[Answers] = _map(answer, jobs, threads)

    def by_table(self, recipe: Recipe) -> dict[str, Answers]:
        """Join the chunks of each table; decided by the recipe's present margin."""
        joined = {}
        for table in dict.fromkeys(name for name, _ in self.jobs):
            chunks = [a.scores for (name, _), a in zip(self.jobs, self.answers, strict=True) if name == table]
            scores = np.concatenate(chunks)
            joined[table] = Answers(scores, recipe.decide(scores) if recipe.task.kind.is_classification else None)
        return joined


def _map(function: Any, jobs: Sequence[Any], threads: int) -> list[Any]:
    if threads <= 1 or len(jobs) <= 1:
        return [function(job) for job in jobs]
    with ThreadPoolExecutor(threads) as pool:  # native libraries let go of the interpreter's lock while they predict
        return list(pool.map(function, jobs))


def _compare(
    run: onnxruntime.InferenceSession,
    recipe: Recipe,
    tables: Mapping[str, Columns],
    reference: _Reference,
    threads: int,
) -> ParityReport:
    names = input_names(recipe.schema)

    outputs = [o.name for o in run.get_outputs()]

    def answer(job: tuple[str, int]) -> dict[str, NDArray[Any]]:
        table, start = tables[job[0]], job[1]
        stop = min(start + _REFERENCE_CHUNK, count_rows(table))
        chunks = [
            run.run(None, feed_of(names, {c: table[c][at : min(at + CHUNK, stop)] for c in names}))
            for at in range(start, stop, CHUNK)
        ]
        return {name: np.concatenate([c[i] for c in chunks]) for i, name in enumerate(outputs)}

    got = _map(answer, reference.jobs, threads)
    if recipe.task.kind.is_classification:
        return _compare_classes(recipe, reference, got)
    return _compare_values(recipe, reference, got)


def _compare_classes(recipe: Recipe, reference: _Reference, got: Sequence[Mapping[str, Any]]) -> ParityReport:
    labels = np.asarray(recipe.task.classes, dtype=object)
    rows = differ = flips = 0
    worst = 0.0
    first: list[Difference] = []
    for (table, start), want, have in zip(reference.jobs, reference.answers, got, strict=True):
        codes = recipe.decide(want.scores)
        dp = np.abs(want.scores.astype(np.float64) - have[PROBABILITIES]).max(axis=1, initial=0.0)
        flipped = labels[codes] != have[LABEL]
        bad = ~(dp <= MAX_DP) | flipped  # not `>`: NaN differs too
        rows += len(dp)
        differ += int(bad.sum())
        flips += int(flipped.sum())
        worst = max(worst, float(np.where(np.isnan(dp), np.inf, dp).max(initial=0.0)))
        for i in np.flatnonzero(bad)[: SHOWN - len(first)]:
            expected = f"{labels[codes[i]]!r} with {_numbers(want.scores[i])}"
            first.append(
                Difference(
                    table, start + int(i), expected, f"{have[LABEL][i]!r} with {_numbers(have[PROBABILITIES][i])}"
                )
            )
    return ParityReport(rows, differ, max_abs_dp=worst, flips=flips, first=tuple(first), tie_margin=recipe.tie_margin)


def _compare_values(recipe: Recipe, reference: _Reference, got: Sequence[Mapping[str, Any]]) -> ParityReport:
    want = np.concatenate([a.scores[:, 0] for a in reference.answers]).astype(np.float64)
    have = np.concatenate([g[PREDICTION] for g in got]).astype(np.float64)
    finite = want[np.isfinite(want)]
    spread = float(np.ptp(finite)) if len(finite) else 0.0
    scale = np.maximum(np.abs(want), spread * FLOOR / RTOL)
    with np.errstate(invalid="ignore"):  # infinities give NaN, which differs
        relative = np.abs(want - have) / np.where(scale > 0, scale, 1.0)
    bad = ~(relative <= RTOL)
    places = [
        (t, s + i) for (t, s), a in zip(reference.jobs, reference.answers, strict=True) for i in range(len(a.scores))
    ]
    first = tuple(
        Difference(places[i][0], places[i][1], repr(float(want[i])), repr(float(have[i])))
        for i in np.flatnonzero(bad)[:SHOWN]
    )
    worst = float(np.where(np.isnan(relative), np.inf, relative).max(initial=0.0))
    return ParityReport(len(want), int(bad.sum()), max_rel=worst, first=first, tie_margin=recipe.tie_margin)


def _numbers(values: NDArray[Any]) -> str:
    shown = ", ".join(f"{v:.7f}" for v in values[:6])
    return f"({shown}{', …' if len(values) > 6 else ''})"
