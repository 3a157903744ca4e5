"""The proof that the graph answers as the trained nets do, on every image that is at hand, from the file on.

Probabilities must agree within 1e-4 and no label may differ; values of a regression within 1e-4 of their size, or 1e-5
of the spread of all. The bars are ten times those of tables: a net adds up some hundred thousand products in another
order than the library that trained it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.assemble import LABEL, PREDICTION, PROBABILITIES, assemble
from tidemill.bundle.images.encoder import IMAGE
from tidemill.bundle.latency import session
from tidemill.bundle.parity import SHOWN, TIE_MARGINS, Difference, ParityReport, Proof
from tidemill.bundle.parts import Answers, Recipe
from tidemill.bundle.runner.stacks import stacks
from tidemill.core.errors import ParityError
from tidemill.data.images.pictures import Pictures, Unreadable, look

MAX_DP = 1e-4
RTOL = 1e-4
FLOOR = 1e-5
"""Share of the spread of all predictions below which a difference of a regression does not count."""


@dataclass(frozen=True)
class ImageParity(ParityReport):
    """How far the graph is from the trained nets."""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON, with the bars for images."""
        bars = {"max_abs_dp": MAX_DP, "rtol": RTOL, "floor_of_spread": FLOOR, "flips": 0}
        return {**super().to_json(), "bars": bars}


@dataclass(frozen=True)
class _Pair:
    """Answers to some images of a table: of the nets, and of the graph."""

    table: str
    places: list[int]
    expected: NDArray[np.float32]
    got: Mapping[str, NDArray[Any]]


def prove(recipe: Recipe, tables: Mapping[str, Pictures]) -> Proof:
    """Build the graph of a recipe and prove it on all images of some lists.

    Parameters
    ----------
    recipe : Recipe
        What to ship.
    tables : mapping
        Images by a name for messages, ``{"validation": …, "test": …}``. Such as can't be read are passed over.

    Returns
    -------
    Proof
        With the answers of the nets by table.

    Raises
    ------
    ParityError
        With the first images that differ, and both answers.
    """
    recipe = replace(recipe, tie_margin=TIE_MARGINS[0])
    model = assemble(recipe).SerializeToString()
    pairs = list(_pairs(recipe, model, tables))
    report = _compare(recipe, tables, pairs)
    for margin in TIE_MARGINS[1:]:
        # Another margin helps where labels are all that differs, and nothing else.
        if report.ok or report.flips == 0 or report.max_abs_dp > MAX_DP:
            break
        recipe = replace(recipe, tie_margin=margin)
        model = assemble(recipe).SerializeToString()
        pairs = list(_pairs(recipe, model, tables))
        report = _compare(recipe, tables, pairs)
    return Proof(model, recipe, report.require(), _by_table(recipe, tables, pairs))


def _pairs(recipe: Recipe, model: bytes, tables: Mapping[str, Pictures]) -> Iterator[_Pair]:
    run = session(model)
    outputs = [o.name for o in run.get_outputs()]
    for table, pictures in tables.items():
        seen = (None if isinstance(found, Unreadable) else found for found in look(pictures))
        for places, stack in stacks(seen):
            expected = recipe.predict({IMAGE: stack}).scores
            yield _Pair(table, places, expected, dict(zip(outputs, run.run(None, {IMAGE: stack}), strict=True)))


def _compare(recipe: Recipe, tables: Mapping[str, Pictures], pairs: list[_Pair]) -> ImageParity:
    if not pairs:
        raise ParityError("There is no image to prove the graph on.")
    if recipe.task.kind.is_classification:
        return _compare_classes(recipe, tables, pairs)
    return _compare_values(recipe, tables, pairs)


def _compare_classes(recipe: Recipe, tables: Mapping[str, Pictures], pairs: list[_Pair]) -> ImageParity:
    labels = np.asarray(recipe.task.classes, dtype=object)
    rows = differ = flips = 0
    worst = 0.0
    first: list[Difference] = []
    for pair in pairs:
        codes = recipe.decide(pair.expected)
        dp = np.abs(pair.expected.astype(np.float64) - pair.got[PROBABILITIES]).max(axis=1, initial=0.0)
        flipped = labels[codes] != pair.got[LABEL]
        bad = ~(dp <= MAX_DP) | flipped  # not `>`: NaN differs too
        rows += len(dp)
        differ += int(bad.sum())
        flips += int(flipped.sum())
        worst = max(worst, float(np.where(np.isnan(dp), np.inf, dp).max(initial=0.0)))
        for i in np.flatnonzero(bad)[: SHOWN - len(first)]:
            name = str(tables[pair.table].names[pair.places[i]])
            expected = f"{labels[codes[i]]!r} with {pair.expected[i].max():.7f}"
            got = f"{pair.got[LABEL][i]!r} with {pair.got[PROBABILITIES][i].max():.7f}"
            first.append(Difference(f"{pair.table} ({name})", pair.places[i], expected, got))
    return ImageParity(rows, differ, max_abs_dp=worst, flips=flips, first=tuple(first), tie_margin=recipe.tie_margin)


def _compare_values(recipe: Recipe, tables: Mapping[str, Pictures], pairs: list[_Pair]) -> ImageParity:
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
            f"{where[i][0]} ({tables[where[i][0]].names[where[i][1]]})", where[i][1],
            repr(float(want[i])), repr(float(have[i])),
        )
        for i in np.flatnonzero(bad)[:SHOWN]
    )  # fmt: skip
    worst = float(np.where(np.isnan(relative), np.inf, relative).max(initial=0.0))
    return ImageParity(len(want), int(bad.sum()), max_rel=worst, first=first, tie_margin=recipe.tie_margin)


def _by_table(recipe: Recipe, tables: Mapping[str, Pictures], pairs: list[_Pair]) -> dict[str, Answers]:
    out = {}
    for table in tables:
        mine = [p.expected for p in pairs if p.table == table]
        if mine:
            scores = np.concatenate(mine)
            out[table] = Answers(scores, recipe.decide(scores) if recipe.task.kind.is_classification else None)
    return out
