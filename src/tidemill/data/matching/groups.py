"""Comparable groups: for those who were treated, partners who were not and who are otherwise alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.data.matching._vectors import KINDS, Frame, Vector
from tidemill.data.matching.balance import Balance, balance
from tidemill.data.matching.loveplot import love_plot
from tidemill.data.matching.pairing import Pairs, pair
from tidemill.data.matching.predicate import parse
from tidemill.data.matching.propensity import log_odds
from tidemill.data.matching.sources import Resident, VersionSource, open_source
from tidemill.data.versions import DatasetVersion, select_version
from tidemill.store.workspace import Workspace

Method = Literal["propensity", "nearest"]
CALIPER = 0.2
"""Of the standard deviation of the log odds: the width that Austin (2011) recommends."""
_MOST_LEVELS = 50


@dataclass(frozen=True)
class Comparison:
    """Two groups that were made alike.

    Parameters
    ----------
    resident : Resident
        Where the rows are.
    treated, control : ndarray of int64, shape (pairs,)
        Row numbers, side by side; a row stands once for each pair it is in.
    distance : ndarray of float64, shape (pairs,)
        Between the two: in log odds, or in standardised covariates.
    without : ndarray of int64
        Treated rows for which no partner was near enough.
    balance : tuple of Balance
        Of every covariate.
    question : mapping
        What was asked.
    """

    resident: Resident
    treated: NDArray[np.int64]
    control: NDArray[np.int64]
    distance: NDArray[np.float64]
    without: NDArray[np.int64]
    balance: tuple[Balance, ...]
    question: Mapping[str, Any]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of all rows of both groups, each once, rising."""
        return np.unique(np.concatenate([self.treated, self.control]))

    def plot(self, *, form: Literal["svg", "png"] = "svg") -> bytes:
        """Draw the balance."""
        return love_plot(self.balance, form=form)

    def effect(self, outcome: str) -> tuple[float, float]:
        """Mean difference of an outcome between the treated and their partners, and its standard error.

        The partners of one treated row count as one. Rows without an outcome are left out with their partners. The
        error is that of the mean of paired differences; with replacement it is too small where few controls serve
        many.

        Raises
        ------
        DataError
            With fewer than two pairs.
        """
        vector = self.resident.frame([outcome]).columns[outcome]
        if vector.kind not in (float, bool):
            raise OptionError(f"An outcome is a number or a truth value, but {outcome!r} is {KINDS[vector.kind]}.")
        values = _numbers(vector)
        difference = values[self.treated] - values[self.control]
        known = np.isfinite(difference)
        who, place = np.unique(self.treated[known], return_inverse=True)
        if len(who) < 2:
            raise DataError("An effect needs at least two pairs.")
        each = np.bincount(place, difference[known]) / np.bincount(place)
        return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))

    def to_version(self, workspace: Workspace, name: str | None = None) -> DatasetVersion:
        """Keep both groups as a dataset version: a selection of the source, which must be a version."""
        source = self.resident.source
        if not isinstance(source, VersionSource):
            raise OptionError("Groups of a dataset version alone can be kept.")
        if not len(self.rows):
            raise DataError("There are no pairs to keep.", hint="Widen the caliper.")
        return select_version(
            workspace, source.hash, self.rows, operation="compare", parameters=dict(self.question), name=name,
            module=__name__,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON: the question, the counts, the balance."""
        return {
            **self.question,
            "pairs": len(self.treated),
            "treated": len(np.unique(self.treated)),
            "controls": len(np.unique(self.control)),
            "without_partner": len(self.without),
            "balance": [b.to_json() for b in self.balance],
        }


def compare(
    workspace: Workspace,
    source: str | Resident,
    treated: str,
    on: Sequence[str],
    *,
    where: str | None = None,
    exact: Sequence[str] = (),
    method: Method = "propensity",
    caliper: float | None = None,
    ratio: int = 1,
    replace: bool = False,
    seed: int = 0,
) -> Comparison:
    """Make two groups comparable.

    Parameters
    ----------
    workspace : Workspace
        Where the source is.
    source : str or Resident
        As for `tidemill.data.matching.match`.
    treated : str
        Condition that says who was treated; rows on which it is unknown are left out.
    on : sequence of str
        Covariates in which the groups shall be alike: numbers, truth values, categories. A missing number stands at
        the mean, and that it is missing is a covariate of its own.
    where : str, optional
        Condition for both groups.
    exact : sequence of str
        Columns in which partners must agree wholly.
    method : str
        ``"propensity"``: nearest in the log odds of being treated; ``"nearest"``: nearest in the standardised
        covariates themselves.
    caliper : float, optional
        Partners further away are none: in standard deviations of the log odds (default 0.2), or for ``"nearest"`` in
        standardised distance (default none).
    ratio : int
        Partners of each treated row.
    replace : bool
        Whether a control may be the partner of several.
    seed : int
        Order among treated rows that are equally hard to serve.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        Where one of the groups is empty.
    OptionError, PredicateError, NotFoundError
        For what can't be used.
    """
    _check(on, method, caliper, ratio, seed)
    resident = source if isinstance(source, Resident) else Resident(open_source(workspace, source))
    rows, group, texts = _groups(resident, treated, where)
    frame = resident.frame(list(dict.fromkeys([*on, *exact]))).take(rows, len(rows))
    columns = _covariates(frame, on)
    x = np.column_stack([np.nan_to_num(c, nan=float(np.nanmean(c)) if np.isfinite(c).any() else 0.0)
                         for c in columns.values()])  # fmt: skip
    odds = log_odds(x, group)
    if method == "propensity":
        points = odds[:, None]
        reach: float | None = (CALIPER if caliper is None else caliper) * float(odds.std())
    else:
        scale = x.std(axis=0)
        points, reach = (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1.0), caliper
    pairs = _paired(points, odds, group, _strata(frame, exact), reach, ratio, replace, seed)
    weight = _weights(pairs, group)
    question = {
        **texts, "on": list(on), "exact": list(exact), "method": method, "caliper": caliper, "ratio": ratio,
        "replace": replace, "seed": seed, "source": resident.source.ref, "source_hash": resident.source.hash,
    }  # fmt: skip
    lonely = np.setdiff1d(np.flatnonzero(group), pairs.treated)
    return Comparison(
        resident, rows[pairs.treated], rows[pairs.control], pairs.distance, rows[lonely],
        balance(columns, group, weight), question,
    )  # fmt: skip


def _check(on: Sequence[str], method: str, caliper: float | None, ratio: int, seed: int) -> None:
    if not on:
        raise OptionError("Say in which columns the groups shall be alike.")
    if method not in ("propensity", "nearest"):
        raise OptionError(f"A method is 'propensity' or 'nearest', but got {method!r}.")
    if caliper is not None and not caliper > 0:
        raise OptionError(f"`caliper > 0` must hold, but got {caliper}.")
    if ratio < 1:
        raise OptionError(f"`ratio >= 1` must hold, but got {ratio}.")
    if seed < 0:
        raise OptionError(f"`seed >= 0` must hold, but got {seed}.")


def _groups(
    resident: Resident, treated: str, where: str | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_], dict[str, str | None]]:
    """Rows of both groups, which of them were treated, and the conditions in their normal form."""
    yes = parse(treated, resident.types)
    frame = resident.frame(yes.columns)
    t, c = yes.mask_of(frame), yes.opposite().mask_of(frame)
    chosen, text = t | c, None
    if where is not None:
        condition = parse(where, resident.types)
        chosen, text = chosen & condition.mask_of(resident.frame(condition.columns)), condition.text
    rows = np.flatnonzero(chosen)
    return rows, t[rows], {"treated": yes.text, "where": text}


def _covariates(frame: Frame, on: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Columns as numbers: a category as one column per level but the most frequent, gaps as a column of their own."""
    out: dict[str, NDArray[np.float64]] = {}
    for name in on:
        vector = frame.columns[name]
        if vector.words is not None:
            out |= _levels(name, vector)
            continue
        values = _numbers(vector)
        out[name] = values
        gone = ~np.isfinite(values)
        if gone.any() and not gone.all():
            out[f"{name} missing"] = gone.astype(np.float64)
    return out


def _levels(name: str, vector: Vector) -> dict[str, NDArray[np.float64]]:
    words = vector.words if vector.words is not None else np.empty(0, dtype=object)
    counts = np.bincount(np.where(vector.values < 0, len(words), vector.values), minlength=len(words) + 1)
    present = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    if len(present) > _MOST_LEVELS:
        raise OptionError(
            f"{name!r} has {len(present)} values; {_MOST_LEVELS} are allowed in a covariate.",
            hint="Ask for it in `exact`, or join values.",
        )
    coded = np.where(vector.values < 0, len(words), vector.values)
    told = {c: f"{name}={words[c]}" if c < len(words) else f"{name} missing" for c in present}
    return {told[c]: (coded == c).astype(np.float64) for c in present[1:] or present}


def _numbers(vector: Vector) -> NDArray[np.float64]:
    if vector.words is not None:
        raise AssertionError("texts are no numbers")
    values = vector.values.astype(np.float64)
    values = values if vector.null is None else np.where(vector.null, np.nan, values)
    return np.where(np.isfinite(values), values, np.nan)


def _strata(frame: Frame, exact: Sequence[str]) -> NDArray[np.int64]:
    out = np.zeros(frame.rows, dtype=np.int64)
    for name in exact:
        vector = frame.columns[name]
        values = vector.values if vector.words is not None else np.nan_to_num(_numbers(vector), nan=np.inf)
        _, codes = np.unique(values, return_inverse=True)
        _, out = np.unique(out * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)
    return out.ravel()


def _paired(
    points: NDArray[np.float64],
    odds: NDArray[np.float64],
    group: NDArray[np.bool_],
    strata: NDArray[np.int64],
    reach: float | None,
    ratio: int,
    replace: bool,
    seed: int,
) -> Pairs:
    """Pair within each stratum; those whom a control is hardest to find for come first."""
    chance = np.random.default_rng(seed).random(len(odds))
    found = []
    for stratum in np.unique(strata[group]):
        t, c = np.flatnonzero(group & (strata == stratum)), np.flatnonzero(~group & (strata == stratum))
        t = t[np.lexsort((chance[t], -odds[t]))]
        pairs = pair(points[t], points[c], ratio=ratio, replace=replace, caliper=reach)
        found.append(Pairs(t[pairs.treated], c[pairs.control], pairs.distance))
    return Pairs(
        np.concatenate([p.treated for p in found]).astype(np.int64),
        np.concatenate([p.control for p in found]).astype(np.int64),
        np.concatenate([p.distance for p in found]),
    )


def _weights(pairs: Pairs, group: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A treated row with partners counts 1, and so do its partners together."""
    weight = np.zeros(len(group))
    who, place, partners = np.unique(pairs.treated, return_inverse=True, return_counts=True)
    weight[who] = 1.0
    np.add.at(weight, pairs.control, 1.0 / partners[place])
    return weight
