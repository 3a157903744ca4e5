"""``monitor/reference.json``: how features and predictions looked in training, and how far chance alone moves them.

A column is described by counts in cells. Cells of a number are its own quantiles, so that every part of the data has
the same say; cells of a category are its commonest values. The same cells are counted in production, where counts of
any two periods, processes or machines add up. How far counts of ``n`` rows may be from the reference by chance is found
here, for each column, by drawing from the reference again and again.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle import manifest
from tidemill.core.decision import labels_of, undecided
from tidemill.core.errors import BundleError
from tidemill.core.schema import Columns, Schema, SemanticType

if TYPE_CHECKING:  # a serving process reads references without loading onnx
    from tidemill.bundle.parts import Answers
    from tidemill.bundle.spec import MetricValue
    from tidemill.core.task import Task

NAME = "monitor/reference.json"
FORMAT = "tidemill-reference"
FORMAT_VERSION = 1
NOT_WATCHED = "The bundle has no monitor/reference.json, so drift is not watched; export it again to have one."

CELLS = 20
"""Cells of a number: quantiles of the reference."""
NAMED = 50
"""Categories that have a cell of their own."""
KNOWN = 2000
"""Categories that are known by name; a value beyond them counts as new, here and in production."""
CONFIDENCE = "confidence"
"""Name of the prediction's column that holds the highest probability, or of two classes that of the second."""

LEVEL = 1e-3
"""Chance that any feature of an unchanged table is beyond its limit in one window; shared among the columns."""
LIMIT_ROWS = (250, 2_500, 25_000)
"""Sizes of windows for which limits are kept; between them they follow ``1/n + 1/m``."""
LEAST_ROWS = LIMIT_ROWS[0]
"""A window with fewer rows is not judged."""
_DRAWS = 2000
_FEW_DRAWS = 500
_WIDE = 200
"""Above so many columns fewer samples are drawn for each."""
_MOST_ROWS = 100_000
_SEED = 20
_MARGIN = 1e-6
"""Share of an edge by which a value may lie beyond it: what float32 does to a number is no drift."""
_SMOOTHING = 0.5
_CARE = 1.25
"""Quantiles of a few thousand draws are off by some percent; limits lie on the safe side of that."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Limit:
    """What chance alone reaches in windows of so many rows.

    Parameters
    ----------
    rows : int
        Rows of the window.
    psi, ks : float
        Beyond these the column changed, up to an error of `LEVEL` shared among all columns.
    """

    rows: int
    psi: float
    ks: float


@dataclass(frozen=True)
class ColumnReference:
    """One column in cells.

    Parameters
    ----------
    name : str
        Of the column.
    input : str
        Of the graph's input or output that carries it; empty for a property of an image, which none carries.
    kind : {"number", "category", "text", "date"}
        Of a text the length is counted. Dates go on by nature: of them only the missing ones are counted.
    edges : tuple of float
        Of a number and of a text: lowest value, inner quantiles, highest value; rising.
    values : tuple of str
        Of a category: those with a cell of their own, commonest first.
    others : tuple of str
        Of a category: known ones that share a cell.
    counts : tuple of int
        Rows of the reference in each cell; see `cells`.
    limits : tuple of Limit
        By size of window, rising.

    Examples
    --------
    >>> column = ColumnReference("age", "age", "number", edges=(0.0, 10.0, 20.0), counts=(0, 0, 5, 5, 0, 0, 0))
    >>> column.cells(np.array([-np.inf, -1.0, 0.0, 10.0, 11.0, 20.0, 21.0, np.inf, np.nan])).tolist()
    [0, 1, 2, 2, 3, 3, 4, 5, 6]
    >>> colour = ColumnReference("colour", "colour", "category", values=("red",), others=("blue",), counts=(9, 1, 0, 0))
    >>> colour.cells(np.array(["red", "blue", "pink", ""], dtype=object)).tolist()
    [0, 1, 2, 3]
    """

    name: str
    input: str
    kind: str
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    limits: tuple[Limit, ...] = field(default=())

    @property
    def size(self) -> int:
        """Number of cells.

        Of numbers −inf, below, the quantiles, above, +inf, missing; of categories the named ones, other known ones, new
        ones, missing; of dates present, missing.
        """
        if self.kind == "category":
            return len(self.values) + 3
        return 2 if self.kind == "date" else len(self.edges) - 1 + 5

    @property
    def rows(self) -> int:
        """Rows of the reference."""
        return sum(self.counts)

    def cells(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Cell of every value.

        Raises
        ------
        TypeError, ValueError
            For values of another kind.
        """
        flat = np.asarray(values).reshape(-1)
        if self.kind == "category":
            return np.fromiter(map(self._codes.__getitem__, _texts(flat)), dtype=np.intp, count=len(flat))
        if self.kind == "text":
            lengths = np.fromiter(map(len, _texts(flat)), dtype=np.float64, count=len(flat))
            flat = np.where(lengths == 0, np.nan, lengths)
        elif flat.dtype.kind not in "fiub":
            flat = flat.astype(np.float64)
        if self.kind == "date":
            return np.asarray(np.isnan(flat), dtype=np.intp)
        return np.asarray(np.searchsorted(self._bounds, flat), dtype=np.intp)

    def tally(self, values: NDArray[Any]) -> Counts:
        """Count of every cell, as ``bincount(cells(values))`` gives it.

        Numbers are sorted first: that takes a third of the time of looking up each of them among the bounds.

        Raises
        ------
        TypeError, ValueError
            For values of another kind.
        """
        flat = np.asarray(values).reshape(-1)
        if self.kind != "number" or flat.dtype.kind not in "fiub":
            return np.bincount(self.cells(flat), minlength=self.size)
        ends = np.sort(flat).searchsorted(self._bounds, side="right")
        counts = np.empty(self.size, dtype=np.int64)
        counts[0] = ends[0]
        np.subtract(ends[1:], ends[:-1], out=counts[1:-1])
        counts[-1] = len(flat) - ends[-1]
        return counts

    def odd(self, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """True for values that training never saw: out of range, infinite, a new category."""
        if self.kind == "category":
            return np.asarray(cells == len(self.values) + 1)
        if self.kind == "date":
            return np.zeros(len(cells), dtype=np.bool_)
        return np.asarray((cells < 2) | ((cells > self.size - 4) & (cells < self.size - 1)))

    def rates(self, counts: Counts) -> dict[str, float]:
        """Shares of rows that are missing, out of range and new; those that the kind has."""
        total = max(int(counts.sum()), 1)
        out = {"missing": int(counts[-1]) / total}
        if self.kind == "category":
            out["new"] = int(counts[-2]) / total
        elif self.kind != "date":
            outside = int(counts[:2].sum() + counts[-3:-1].sum())
            out["out_of_range"] = outside / total
        return out

    def compared(self, counts: Counts) -> Counts:
        """Counts as they are compared: what is outside joins the nearest cell, new categories join the other ones."""
        if self.kind == "date":
            return counts
        if self.kind == "category":
            return np.concatenate([counts[:-3], [counts[-3] + counts[-2], counts[-1]]])
        inner = counts[2:-3].copy()
        inner[0] += counts[0] + counts[1]
        inner[-1] += counts[-3] + counts[-2]
        return np.concatenate([inner, counts[-1:]])

    def limit(self, rows: int) -> Limit | None:
        """What chance alone reaches in a window of so many rows; None where there are too few."""
        fitting = [known for known in self.limits if known.rows <= rows]
        if not fitting:
            return None
        known = fitting[-1]
        ratio = (1 / rows + 1 / self.rows) / (1 / known.rows + 1 / self.rows)
        return Limit(rows, known.psi * ratio, known.ks * math.sqrt(ratio))

    @cached_property
    def _codes(self) -> _Codes:
        named = len(self.values)
        codes = _Codes({v: i for i, v in enumerate(self.values)}, new=named + 1)
        codes.update(dict.fromkeys(self.others, named))
        codes[""] = named + 2
        return codes

    @cached_property
    def _bounds(self) -> NDArray[np.float64]:
        edges = np.asarray(self.edges)
        room = _MARGIN * np.abs(edges)
        below = np.nextafter(edges[0] - room[0], -np.inf)
        upper = np.minimum(edges[1:] + room[1:], _LARGEST)
        return np.concatenate([[-np.inf, below], upper, [_LARGEST, np.inf]])


_LARGEST = float(np.finfo(np.float64).max)


class _Codes(dict[str, int]):
    """Cell by category; one that is not there is new."""

    def __init__(self, codes: Mapping[str, int], *, new: int) -> None:
        super().__init__(codes)
        self._new = new

    def __missing__(self, key: str) -> int:
        return self._new


def _texts(values: NDArray[Any]) -> list[str]:
    texts: list[Any] = values.tolist()
    if texts and not isinstance(texts[0], str):
        texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else "" if v is None else str(v) for v in texts]
    return texts


@dataclass(frozen=True)
class Reference:
    """How a bundle's inputs and answers looked when it was made.

    Parameters
    ----------
    features, predictions : tuple of ColumnReference
        Inputs, and the answers: ``label`` and `CONFIDENCE`, or ``prediction``.
    source : str
        Rows that the predictions come from: ``"test"``, ``"out_of_fold"``, or ``"train"`` where there is nothing
        better.
    quality : mapping
        Metrics on rows that the model was not trained on, by name; empty where there were none.
    quality_rows : int
        Number of those rows.
    """

    features: tuple[ColumnReference, ...]
    predictions: tuple[ColumnReference, ...]
    source: str = "train"
    quality: Mapping[str, float] = field(default_factory=dict)
    quality_rows: int = 0

    @property
    def columns(self) -> tuple[ColumnReference, ...]:
        """Features, then predictions."""
        return (*self.features, *self.predictions)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "level": LEVEL,
            "source": self.source,
            "quality": dict(self.quality),
            "quality_rows": self.quality_rows,
            "features": [_to_json(c) for c in self.features],
            "predictions": [_to_json(c) for c in self.predictions],
        }

    @classmethod
    def from_json(cls, data: Any) -> Reference:
        """Rebuild from `to_json`.

        Raises
        ------
        BundleError
            If it is damaged, or of a newer version.
        """
        try:
            if data["format"] == FORMAT and data["format_version"] > FORMAT_VERSION:
                raise BundleError(
                    f"The reference has format {data['format_version']}, but this Tidemill reads up to "
                    f"{FORMAT_VERSION}.",
                    where=NAME,
                    hint="Install a newer Tidemill.",
                )
            found = cls(
                tuple(_from_json(c) for c in data["features"]),
                tuple(_from_json(c) for c in data["predictions"]),
                str(data["source"]),
                {str(k): float(v) for k, v in data["quality"].items()},
                int(data["quality_rows"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"The reference is damaged ({error}).", where=NAME) from error
        wrong = [c.name for c in found.columns if not _fits(c)]
        if data["format"] != FORMAT or wrong:
            raise BundleError(f"The reference is damaged{_of(wrong)}.", where=NAME, hint="Export the bundle again.")
        return found

    def render(self) -> bytes:
        """Bytes of the file."""
        return (json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()


def _of(names: Sequence[str]) -> str:
    return f" (column {names[0]!r})" if names else ""


def _to_json(column: ColumnReference) -> dict[str, Any]:
    shown = {k: getattr(column, k) for k in ("name", "input", "kind")}
    lists = {k: list(getattr(column, k)) for k in ("edges", "values", "others", "counts") if getattr(column, k)}
    return {**shown, **lists, "limits": [[x.rows, x.psi, x.ks] for x in column.limits]}


def _from_json(data: Mapping[str, Any]) -> ColumnReference:
    return ColumnReference(
        str(data["name"]),
        str(data["input"]),
        str(data["kind"]),
        tuple(float(v) for v in data.get("edges", ())),
        tuple(str(v) for v in data.get("values", ())),
        tuple(str(v) for v in data.get("others", ())),
        tuple(int(v) for v in data.get("counts", ())),
        tuple(Limit(int(n), float(psi), float(ks)) for n, psi, ks in data["limits"]),
    )


def _fits(column: ColumnReference) -> bool:
    if column.kind not in ("number", "category", "text", "date"):
        return False
    rising = all(a <= b for a, b in zip(column.edges, column.edges[1:], strict=False))
    needs_edges = column.kind in ("number", "text")
    return (
        rising
        and (len(column.edges) >= 2) == needs_edges
        and len(column.counts) == column.size
        and min(column.counts) >= 0
        and all(math.isfinite(e) for e in column.edges)
    )


# --------------------------------------------------------------------------------------------------------- distances


def psi(counts: Counts, reference: Counts) -> float:
    """Population stability index of two histograms with the same cells, half a row added to each cell.

    Examples
    --------
    >>> round(psi(np.array([50, 50]), np.array([50, 50])), 3), round(psi(np.array([90, 10]), np.array([50, 50])), 3)
    (0.0, 0.853)
    """
    return float(_psi(counts[None, :], reference[None, :])[0])


def ks(counts: Counts, reference: Counts) -> float:
    """Largest distance of the cumulated shares of two histograms with the same cells.

    Examples
    --------
    >>> ks(np.array([90, 10]), np.array([50, 50]))
    0.4
    """
    return float(_ks(counts[None, :], reference[None, :])[0])


def _psi(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    p, q = _smooth(a), _smooth(b)
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=1))


def _smooth(counts: NDArray[Any]) -> NDArray[np.float64]:
    held = counts + _SMOOTHING
    return np.asarray(held / held.sum(axis=1, keepdims=True))


def _ks(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    p = a.cumsum(axis=1) / np.maximum(a.sum(axis=1, keepdims=True), 1)
    q = b.cumsum(axis=1) / np.maximum(b.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.round(np.abs(p - q).max(axis=1), 12))


def rate_limit(count: int, reference_rows: int, rows: int, level: float) -> float:
    """Share that chance alone reaches in ``rows`` rows where the reference has ``count`` of ``reference_rows``.

    After Bernstein's inequality: the normal deviation, and a term that holds for rare things.

    Examples
    --------
    >>> round(rate_limit(0, 10_000, 1000, 1e-4), 4)
    0.0085
    """
    z = NormalDist().inv_cdf(1 - level)
    share = (count + 0.5) / (reference_rows + 1)
    spread = 1 / rows + 1 / reference_rows
    return share + z * math.sqrt(share * (1 - share) * spread) + z * z / 2 * spread


# ------------------------------------------------------------------------------------------------------------- build


def build(
    schema: Schema,
    task: Task,
    columns: Columns,
    answers: Answers,
    *,
    source: str = "train",
    metrics: Sequence[MetricValue] = (),
) -> Reference:
    """Describe features and answers.

    Parameters
    ----------
    schema, task : Schema, Task
        Of the bundle.
    columns : Columns
        Rows of training; at most 100,000 of them are looked at.
    answers : Answers
        Of rows that the model was not trained on, where there are any.
    source : str
        Which rows those are.
    metrics : sequence of MetricValue
        How good the bundle is.
    """
    from tidemill.bundle.assemble import LABEL, PREDICTION, input_names
    from tidemill.core import transcripts
    from tidemill.core.task import TaskKind

    names = input_names(schema)
    rows = _sample(len(next(iter(columns.values()))) if columns else 0)
    features = [_describe(c.name, names[c.name], _kind(c.type), columns[c.name][rows]) for c in schema.features]
    picked = _sample(len(answers.scores))
    scores = np.asarray(answers.scores[picked], dtype=np.float64)
    if task.kind.has_labels:
        codes = answers.codes if answers.codes is not None else undecided(task).apply(answers.scores)
        labels = labels_of(task, codes[picked])
        predictions = [
            _describe(LABEL, LABEL, "category", labels),
            _describe(CONFIDENCE, CONFIDENCE, "number", confidence(scores)),
        ]
    elif task.kind is TaskKind.RECOGNITION:
        texts = np.array([*transcripts.to_texts(transcripts.codes_of(scores)), ""], dtype=object)[:-1]
        predictions = [
            _describe(PREDICTION, PREDICTION, "text", texts),
            _describe(CONFIDENCE, CONFIDENCE, "number", transcripts.confidence_of(scores)),
        ]
    else:
        predictions = [_describe(PREDICTION, PREDICTION, "number", scores[:, 0])]
    memo: dict[tuple[Any, ...], tuple[Limit, ...]] = {}
    described = [_limited(c, len(features) + len(predictions), memo) for c in (*features, *predictions)]
    shown = [m for m in metrics if m.source == (metrics[-1].source if metrics else "")]
    return Reference(
        tuple(described[: len(features)]),
        tuple(described[len(features) :]),
        source,
        {m.name: m.value for m in shown},
        shown[0].rows if shown else 0,
    )


def confidence(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Highest probability of each row; of two classes the probability of the second.

    Examples
    --------
    >>> confidence(np.array([[0.9, 0.1]])), confidence(np.array([[0.2, 0.3, 0.5]]))
    (array([0.1]), array([0.5]))
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(p[:, 1] if p.shape[1] == 2 else p.max(axis=1))


def _sample(rows: int) -> NDArray[np.intp]:
    if rows <= _MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, _MOST_ROWS, replace=False))


def _kind(meaning: SemanticType) -> str:
    named = {SemanticType.CATEGORY: "category", SemanticType.TEXT: "text", SemanticType.DATETIME: "date"}
    return named.get(meaning, "number")


def _describe(name: str, carrier: str, kind: str, values: NDArray[Any]) -> ColumnReference:
    empty = ColumnReference(name, carrier, kind)
    if kind == "category":
        ranked = [v for v, _ in sorted(Counter(_texts(values)).items(), key=lambda x: (-x[1], x[0])) if v][:KNOWN]
        empty = ColumnReference(name, carrier, kind, values=tuple(ranked[:NAMED]), others=tuple(ranked[NAMED:]))
    elif kind != "date":
        empty = ColumnReference(name, carrier, kind, edges=_edges(_lengths(values) if kind == "text" else values))
    counts = np.bincount(empty.cells(values), minlength=empty.size)
    return ColumnReference(name, carrier, kind, empty.edges, empty.values, empty.others, tuple(int(v) for v in counts))


def _lengths(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.array([len(v) or np.nan for v in _texts(values)], dtype=np.float64)


def _edges(values: NDArray[Any]) -> tuple[float, ...]:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return (0.0, 0.0)
    cuts = np.quantile(known, np.linspace(0, 1, CELLS + 1), method="inverted_cdf")
    low, high = float(cuts[0]), float(cuts[-1])
    inner = sorted({float(c) for c in cuts[1:-1]} - {high})
    return (low, *inner, high)


def _limited(column: ColumnReference, columns: int, memo: dict[tuple[Any, ...], tuple[Limit, ...]]) -> ColumnReference:
    counts = column.compared(np.asarray(column.counts))
    rows = int(counts.sum())
    if not rows:
        return column
    # Numbers in quantiles look alike: most columns of a wide table share one set of limits.
    shares = np.round(counts / rows, 3)
    key = (rows, *shares.tolist())
    if key not in memo:
        memo[key] = tuple(_limits(shares, rows, columns))
    fields = {k: getattr(column, k) for k in ("name", "input", "kind", "edges", "values", "others", "counts")}
    return ColumnReference(**fields, limits=memo[key])


def _limits(shares: NDArray[np.float64], reference_rows: int, columns: int) -> list[Limit]:
    """Quantiles of both distances between a window and the reference when both are drawn from the same shares."""
    rng = np.random.default_rng(_SEED)
    p = np.maximum(shares, 0.0)
    p = p / p.sum()
    draws = _DRAWS if columns <= _WIDE else _FEW_DRAWS
    level = LEVEL / columns
    base = rng.multinomial(reference_rows, p, size=draws)
    out: list[Limit] = []
    for rows in LIMIT_ROWS:
        window = rng.multinomial(rows, p, size=draws)
        out.append(Limit(rows, _tail(_psi(window, base), level), math.sqrt(_tail(_ks(window, base) ** 2, level))))
    return out


def _tail(draws: NDArray[np.float64], level: float) -> float:
    """Value that is reached with probability ``level``; beyond what was drawn the tail falls exponentially.

    Both distances (the second one squared) are sums of squares of nearly normal numbers, whose tails fall at least so
    fast: the limit is on the safe side.
    """
    body, far = np.quantile(draws, [0.9, 0.99])
    return float(body + _CARE * (far - body) * math.log(0.1 / level) / math.log(10))


# -------------------------------------------------------------------------------------------------------------- read


def read_reference(folder: Path) -> Reference | None:
    """Read a bundle's reference; None for an older bundle that has none (then drift is not watched).

    Raises
    ------
    BundleError
        If the file is not the one that the manifest lists, or can't be read.
    """
    path = folder / NAME
    try:
        listed = manifest.parse((folder / manifest.NAME).read_bytes()).get(NAME)
        if listed is None:
            return None
        if manifest.entry_of(path) != listed:
            raise BundleError("The file is damaged: its hash is not the one in the manifest.", where=str(path))
        return Reference.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise BundleError(f"The reference can't be read ({error}).", where=str(path)) from error
