"""How a graph is held against trained nets, whatever they see.

Probabilities must agree within 1e-4 and no label may differ; values of a regression within 1e-4 of their size, or 1e-5
of the spread of all. The bars are ten times those of tables: a net adds up some hundred thousand products in another
order than the library that trained it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tidemill.bundle.assemble import LABEL, PREDICTION, PROBABILITIES
from tidemill.bundle.parity import SHOWN, TIE_MARGINS, Difference, ParityReport, Proof
from tidemill.bundle.parts import Answers, Recipe
from tidemill.core.decision import labels_of
from tidemill.core.errors import ParityError

MAX_DP = 1e-4
RTOL = 1e-4
FLOOR = 1e-5
"""Share of the spread of all predictions below which a difference of a regression does not count."""

Names = Mapping[str, Sequence[str]]
"""What the rows of each table are called."""


@dataclass(frozen=True)
class NetParity(ParityReport):
    """How far the graph is from the trained nets."""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON, with the bars for nets."""
        bars = {"max_abs_dp": MAX_DP, "rtol": RTOL, "floor_of_spread": FLOOR, "flips": 0}
        return {**super().to_json(), "bars": bars}


@dataclass(frozen=True)
class Pair:
    """Answers to some rows of a table: of the nets, and of the graph.

    Parameters
    ----------
    table : str
        Name of the table.
    places : sequence of int
        Numbers of the rows.
    expected : ndarray of float32
        What the nets say.
    got : mapping
        Outputs of the graph.
    """

    table: str
    places: Sequence[int]
    expected: NDArray[np.float32]
    got: Mapping[str, NDArray[Any]]


def prove_pairs(
    recipe: Recipe,
    assemble: Callable[[Recipe], onnx.ModelProto],
    pairs_of: Callable[[Recipe, bytes], list[Pair]],
    names: Names,
    noun: str,
) -> Proof:
    """Build the graph of a recipe and prove it on all rows.

    Parameters
    ----------
    recipe : Recipe
        What to ship.
    assemble : callable
        Writes the graph.
    pairs_of : callable
        Both answers to every row, for a recipe and its serialised graph.
    names : mapping
        What the rows are called, by table.
    noun : str
        What a row is, for messages: ``"image"``.

    Returns
    -------
    Proof
        With the answers of the nets by table.

    Raises
    ------
    ParityError
        With the first rows that differ, and both answers.
    """
    pairs: list[Pair] = []
    report: NetParity | None = None
    model = b""
    for margin in TIE_MARGINS:
        recipe = replace(recipe, tie_margin=margin)
        model = assemble(recipe).SerializeToString()
        pairs = pairs_of(recipe, model)
        if not pairs:
            raise ParityError(f"There is no {noun} to prove the graph on.")
        report = compare_pairs(recipe, names, pairs)
        # Another margin helps where labels are all that differs, and nothing else.
        if report.ok or report.flips == 0 or report.max_abs_dp > MAX_DP:
            break
    assert report is not None
    return Proof(model, recipe, report.require(), by_table(recipe, names, pairs))


def compare_pairs(recipe: Recipe, names: Names, pairs: Sequence[Pair]) -> NetParity:
    """Hold the answers against each other."""
    if recipe.task.kind.has_labels:
        return _compare_classes(recipe, names, pairs)
    return _compare_values(recipe, names, pairs)


def _compare_classes(recipe: Recipe, names: Names, pairs: Sequence[Pair]) -> NetParity:
    rows = differ = flips = 0
    worst = 0.0
    first: list[Difference] = []
    for pair in pairs:
        labels = labels_of(recipe.task, recipe.decide(pair.expected))
        dp = np.abs(pair.expected.astype(np.float64) - pair.got[PROBABILITIES]).max(axis=1, initial=0.0)
        flipped = labels != pair.got[LABEL]
        bad = ~(dp <= MAX_DP) | flipped  # not `>`: NaN differs too
        rows += len(dp)
        differ += int(bad.sum())
        flips += int(flipped.sum())
        worst = max(worst, float(np.where(np.isnan(dp), np.inf, dp).max(initial=0.0)))
        for i in np.flatnonzero(bad)[: SHOWN - len(first)]:
            name = str(names[pair.table][pair.places[i]])
            expected = f"{labels[i]!r} with {pair.expected[i].max():.7f}"
            got = f"{pair.got[LABEL][i]!r} with {pair.got[PROBABILITIES][i].max():.7f}"
            first.append(Difference(f"{pair.table} ({name})", pair.places[i], expected, got))
    return NetParity(rows, differ, max_abs_dp=worst, flips=flips, first=tuple(first), tie_margin=recipe.tie_margin)


def _compare_values(recipe: Recipe, names: Names, pairs: Sequence[Pair]) -> NetParity:
    want = np.concatenate([p.expected[:, 0] for p in pairs]).astype(np.float64)
    have = np.concatenate([p.got[PREDICTION] for p in pairs]).astype(np.float64)
    spread = float(np.ptp(want)) if len(want) and np.isfinite(want).all() else 0.0
    scale = np.maximum(np.abs(want), spread * FLOOR / RTOL)
    with np.errstate(invalid="ignore"):  # infinities give NaN, which differs
        relative = np.abs(want - have) / np.where(scale > 0, scale, 1.0)
    bad = ~(relative <= RTOL)
    where = [(p.table, place) for p in pairs for place in p.places]
    first = tuple(
        Difference(
            f"{where[i][0]} ({names[where[i][0]][where[i][1]]})",
            where[i][1],
            repr(float(want[i])),
            repr(float(have[i])),
        )
        for i in np.flatnonzero(bad)[:SHOWN]
    )
    worst = float(np.where(np.isnan(relative), np.inf, relative).max(initial=0.0))
    return NetParity(len(want), int(bad.sum()), max_rel=worst, first=first, tie_margin=recipe.tie_margin)


def by_table(recipe: Recipe, names: Names, pairs: Sequence[Pair]) -> dict[str, Answers]:
    """Answers of the nets, joined by table."""
    out = {}
    for table in names:
        mine = [p.expected for p in pairs if p.table == table]
        if mine:
            scores = np.concatenate(mine)
            out[table] = Answers(scores, recipe.decide(scores) if recipe.task.kind.has_labels else None)
    return out
