"""A sample for one need: rows chosen by conditions, shown before anything is copied, replayed on newer data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.data.features.instants import instant_nanos, shown
from tidemill.data.features.snapshot import keep_state
from tidemill.data.infer import infer_schema
from tidemill.data.ingest._base import RawTable
from tidemill.data.matching import sampling
from tidemill.data.matching._vectors import Frame, Vector
from tidemill.data.matching.mistakes import MISTAKES, mistakes
from tidemill.data.matching.predicate import parse
from tidemill.data.matching.preview import Shape, shapes
from tidemill.data.matching.similar import Similar, distances
from tidemill.data.matching.sources import GroupSource, Resident, VersionSource, open_source
from tidemill.data.versions import DatasetVersion, select_version, write_version
from tidemill.data.versions.selections import put_rows
from tidemill.store.workspace import Workspace

DISTANCE = "_distance"
_FORMAT = 1


@dataclass(frozen=True)
class Match:
    """Rows that were chosen, and how.

    Parameters
    ----------
    resident : Resident
        The source with its columns.
    rows : ndarray of int64
        Numbers of the chosen rows, rising.
    matched : int
        How many rows fulfil the condition; ``len(rows)`` of them were taken.
    preview : tuple of Shape
        How the columns that the question is about are distributed, in the source, among the rows that match, and
        in the sample.
    question : mapping
        What was asked, in the form that is kept and replayed.
    """

    resident: Resident
    rows: NDArray[np.int64]
    matched: int
    preview: tuple[Shape, ...] = ()
    question: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of chosen rows."""
        return len(self.rows)

    @property
    def total(self) -> int:
        """Number of rows of the source."""
        return self.resident.rows

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the chosen rows as a table."""
        return self.resident.take(self.rows, columns)

    def manifest(self, workspace: Workspace) -> dict[str, Any]:
        """Keep the row numbers, and return all that is needed to have this sample again, or its like on newer data.

        Returns
        -------
        dict
            Plain JSON: the question, the source with its hash, the counts, and ``rows``, the artifact with the row
            numbers.
        """
        return {
            "kind": "match",
            "format": _FORMAT,
            **self.question,
            "source": self.resident.source.ref,
            "source_hash": self.resident.source.hash,
            "matched": self.matched,
            "size": self.size,
            "rows": put_rows(workspace.artifacts, self.rows),
        }

    def to_version(self, workspace: Workspace, name: str | None = None) -> DatasetVersion:
        """Keep the sample as a dataset version.

        Rows of a version become a selection of it, and nothing is copied; rows of a feature group are written.

        Parameters
        ----------
        workspace : Workspace
            Where to.
        name : str, optional
            Name of the dataset; default that of the source.

        Raises
        ------
        DataError
            Where no row was chosen.
        """
        if not self.size:
            raise DataError("No row matches, so there is nothing to keep.", hint="Loosen the condition.")
        source, manifest = self.resident.source, self.manifest(workspace)
        if isinstance(source, VersionSource):
            return select_version(
                workspace, source.hash, self.rows, operation="match", parameters=manifest, name=name, module=__name__
            )
        if not isinstance(source, GroupSource):
            raise OptionError("Only samples of a dataset version or of a feature group can be kept.")
        state = keep_state(workspace, source.group, source.history)
        table = self.table()
        return write_version(
            workspace, name or source.group.name, table, infer_schema(RawTable(table, source.ref)),
            operation="match", parameters={**manifest, "state": state},
        )  # fmt: skip


def match(
    workspace: Workspace,
    source: str | Resident,
    where: str | None = None,
    *,
    as_of: Any = None,
    size: int | None = None,
    balance: str | None = None,
    stratify: Sequence[str] = (),
    similar_to: Similar | None = None,
    model: str | None = None,
    show: Sequence[str] = (),
    seed: int = 0,
) -> Match:
    """Choose a sample.

    Parameters
    ----------
    workspace : Workspace
        Where the source is.
    source : str or Resident
        A dataset version, ``group:NAME`` for a feature group, or the `Resident` of one, which answers at once.
    where : str, optional
        Condition as in SQL after WHERE (`tidemill.data.matching.predicate`), over the columns of the source and
        ``_dataset``, ``_version``, ``_operation`` (lineage), ``_annotator``, ``_labelled`` (who labelled a row, and
        when), with ``similar_to`` also ``_distance``, with ``model``, or for rows that were captured in service, also
        ``_predicted``, ``_wrong``, ``_confidence`` and ``_loss``. Without it every row matches.
    as_of : datetime or str, optional
        Later events are not seen: of a group the newest row as of then is taken, of a version only rows up to then.
    size : int, optional
        At most so many rows; without it all that match.
    balance : str, optional
        Column whose values are to be equally frequent. Rows without a value are left out.
    stratify : sequence of str
        Columns whose combinations keep their shares among the matching rows.
    similar_to : Similar, optional
        Take the nearest rows first instead of rows at random.
    model : str, optional
        Study (or ``study#trial``) whose mistakes are asked for.
    show : sequence of str
        Further columns of the preview.
    seed : int
        Of the random order. Rows that are added to a source later do not change the order of the others.

    Returns
    -------
    Match

    Raises
    ------
    PredicateError
        Where the condition can't be read.
    NotFoundError, OptionError, DataError
        For an unknown source or column, options that contradict each other, or nothing to be similar to.
    """
    _check(size, balance, stratify, seed)
    resident = source if isinstance(source, Resident) else Resident(open_source(workspace, source, as_of=as_of))
    _check_as_of(resident, as_of)
    question: dict[str, Any] = {"seed": seed, "wanted": size, "balance": balance, "stratify": list(stratify)}
    question["as_of"] = None if as_of is None else shown(instant_nanos(as_of, "as_of"))
    question["show"] = list(show)
    extra: dict[str, Vector] = {}
    if model is not None:
        extra, question["model"] = mistakes(workspace, model, resident.rows, resident.source.hash)
    order = None
    if similar_to is not None:
        order, known = distances(resident, similar_to)
        extra[DISTANCE] = Vector(float, order)
        question["similar_to"] = known.to_json()
    asked = _Asked(resident, extra)
    found, used, question["where"] = _matching(asked, where, as_of)
    if order is None:
        order = sampling.priorities(resident.rows, seed) if size is not None or balance else np.zeros(resident.rows)
    chosen = found[_choose(asked, found, order[found], size, balance, stratify)]
    columns = list(dict.fromkeys([*([balance] if balance else []), *stratify, *show, *used]))
    return Match(resident, chosen, len(found), shapes(asked.frame(columns), found, chosen), question)


def replay(workspace: Workspace, manifest: Mapping[str, Any], newer: str | Resident, *, as_of: Any = None) -> Match:
    """Ask the question of a manifest again, of another version or of the group as it is now.

    Parameters
    ----------
    workspace : Workspace
        Where the data are.
    manifest : mapping
        From `Match.manifest`, or the parameters of a version that was matched.
    newer : str or Resident
        What to ask; as ``source`` of `match`.
    as_of : datetime or str, optional
        In the place of the manifest's.

    Raises
    ------
    DataError
        Where it is no manifest of a match.
    OptionError
        Where the question was about a model's mistakes: another version has none.
    """
    question = _question(manifest)
    return match(
        workspace,
        newer,
        question["where"],
        as_of=question["as_of"] if as_of is None else as_of,
        size=question["wanted"],
        balance=question["balance"],
        stratify=question["stratify"],
        similar_to=question["similar_to"],
        model=question["model"],
        show=question["show"],
        seed=question["seed"],
    )


_PARTS: dict[str, tuple[type, ...]] = {
    "where": (str, NoneType), "as_of": (str, NoneType), "wanted": (int, NoneType), "balance": (str, NoneType),
    "stratify": (list, tuple), "show": (list, tuple), "seed": (int,), "model": (str, NoneType),
}  # fmt: skip


def _question(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Check what may have come from a file or over the network."""
    if manifest.get("kind") != "match" or manifest.get("format") != _FORMAT:
        raise DataError("This is no manifest of a matched sample.")
    for name, kinds in _PARTS.items():
        value = manifest.get(name)
        plain = not isinstance(value, (list, tuple)) or all(isinstance(v, str) for v in value)
        if not isinstance(value, kinds) or isinstance(value, bool) or not plain:
            raise DataError(f"The manifest of the sample is damaged: {name!r} is missing or of another type.")
    similar = manifest.get("similar_to")
    try:
        known = None if similar is None else Similar.from_json(similar)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError("The manifest of the sample is damaged: 'similar_to' can't be read.") from error
    return {**{name: manifest.get(name) for name in _PARTS}, "similar_to": known}


class _Asked:
    """A resident with columns that are there for one question only."""

    def __init__(self, resident: Resident, extra: Mapping[str, Vector]) -> None:
        self.resident = resident
        self.extra = extra
        self.types = resident.types | {name: vector.kind for name, vector in extra.items()}

    def frame(self, names: Sequence[str]) -> Frame:
        plain = self.resident.frame([n for n in names if n not in self.extra])
        chosen = {n: self.extra[n] if n in self.extra else plain.columns[n] for n in names}
        return Frame(chosen, plain.rows)


def _check(size: int | None, balance: str | None, stratify: Sequence[str], seed: int) -> None:
    if size is not None and size < 1:
        raise OptionError(f"A sample has at least one row, but got size {size}.")
    if balance is not None and stratify:
        raise OptionError("A sample is either balanced or stratified.", hint="Leave one of them out.")
    if seed < 0:
        raise OptionError(f"`seed >= 0` must hold, but got {seed}.")


def _check_as_of(resident: Resident, as_of: Any) -> None:
    source = resident.source
    if as_of is None or not isinstance(source, GroupSource):
        return
    if source.as_of != instant_nanos(as_of, "as_of"):
        raise OptionError(
            "This group was opened as of another time.", hint="Open it again: open_source(workspace, name, as_of=…)."
        )


def _matching(asked: _Asked, where: str | None, as_of: Any) -> tuple[NDArray[np.int64], list[str], str | None]:
    """Rows that match, the columns that the condition asks for, and the condition in its normal form."""
    source = asked.resident.source
    text, used = None, []
    mask = None
    if where is not None:
        condition = parse(where, asked.types)
        mask, text, used = condition.mask_of(asked.frame(condition.columns)), condition.text, list(condition.columns)
    if as_of is not None and not isinstance(source, GroupSource):
        if source.time is None:
            raise OptionError(
                "This version has no column that says when a row became true.",
                hint="Give a column the type `time`, or write the time into the condition.",
            )
        seen = _until(asked.frame([source.time]).columns[source.time], as_of)
        mask = seen if mask is None else mask & seen
    return (np.arange(asked.resident.rows) if mask is None else np.flatnonzero(mask)), used, text


def _until(vector: Vector, as_of: Any) -> NDArray[np.bool_]:
    if vector.kind is not dt.datetime:
        raise OptionError("The time column holds no times.")
    seen = vector.values <= instant_nanos(as_of, "as_of") // 1000
    return np.asarray(seen if vector.null is None else seen & ~vector.null)


def _choose(
    asked: _Asked,
    found: NDArray[np.int64],
    order: NDArray[np.float64],
    size: int | None,
    balance: str | None,
    stratify: Sequence[str],
) -> NDArray[np.int64]:
    if balance is not None:
        return sampling.balanced(order, _codes(asked, [balance], found), size)
    if stratify:
        return sampling.stratified(order, _codes(asked, stratify, found), size)
    return sampling.first(order, size)


def _codes(asked: _Asked, names: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the combinations of some columns; -1 where a single column has no value."""
    out = np.zeros(len(rows), dtype=np.int64)
    frame = asked.frame(names)
    for name in names:
        vector = frame.columns[name][rows]
        gone = _missing(vector)
        distinct, codes = np.unique(
            np.where(gone, vector.values[:1] if len(rows) else 0, vector.values), return_inverse=True
        )
        codes = np.where(gone, len(distinct), codes.ravel())
        if len(names) == 1:
            return np.where(gone, -1, codes)
        _, out = np.unique(out * (len(distinct) + 1) + codes, return_inverse=True)
    return out.ravel()


def _missing(vector: Vector) -> NDArray[np.bool_]:
    if vector.words is not None:
        return np.asarray(vector.values < 0)
    gone = np.isnan(vector.values) if vector.values.dtype.kind == "f" else np.zeros(len(vector), dtype=bool)
    return gone if vector.null is None else gone | vector.null


__all__ = ["DISTANCE", "MISTAKES", "Match", "Similar", "match", "replay"]
