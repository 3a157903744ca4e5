"""The reference: cells, what chance reaches, and older bundles without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bundle.small import KINDS

from tidemill.bundle import manifest
from tidemill.bundle.reference.build import describe
from tidemill.bundle.reference.columns import ColumnReference, Limit
from tidemill.bundle.reference.distances import ks_of_rows, psi_of_rows
from tidemill.bundle.reference.file import NAME, Reference, read_reference
from tidemill.bundle.reference.limits import LEAST_ROWS, limited, limits_of
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.verify import verify
from tidemill.core.errors import BundleError
from tidemill.testing.parts import small_columns

Written = Callable[[str], Path]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_tells_how_its_columns_and_answers_looked(written: Written, kind: str) -> None:
    found = read_reference(written(kind))
    assert found is not None
    assert [(c.name, c.kind) for c in found.features] == [
        ("size", "number"),
        ("colour", "category"),
        ("weight", "number"),
    ]
    wanted = ["prediction"] if kind == "regression" else ["label", "confidence"]
    assert [c.name for c in found.predictions] == wanted
    assert [c.rows for c in found.columns] == [300] * 3 + [150] * len(wanted)
    assert found.source == "test"
    assert found.quality_rows == 150
    assert all([x.rows for x in c.limits] == [250, 2500, 25_000] for c in found.columns)
    assert Reference.from_json(json.loads(found.render())) == found


def test_the_same_rows_give_the_same_counts(written: Written) -> None:
    found = read_reference(written("binary"))
    assert found is not None
    columns = small_columns(300)
    for column in found.features:
        counts = np.bincount(column.cells(columns[column.name]), minlength=column.size)
        assert counts.tolist() == list(column.counts)
        assert not column.odd(column.cells(columns[column.name])).any()


def _without_reference(folder: Path) -> None:
    listed = manifest.parse((folder / "manifest.json").read_bytes())
    (folder / NAME).unlink()
    kept = {k: v for k, v in listed.items() if k != NAME}
    (folder / "manifest.json").write_bytes(manifest.render(kept))
    (folder / "monitor").rmdir()


def test_an_older_bundle_is_whole_without_one(copied: Path) -> None:
    _without_reference(copied)
    assert read_reference(copied) is None
    assert verify(copied) == []
    assert len(Bundle.open(copied).answer(small_columns(3))["label"]) == 3


def test_a_changed_reference_is_found(copied: Path, written: Written, tmp_path: Path) -> None:
    path = copied / NAME
    path.write_bytes(path.read_bytes().replace(b"size", b"sife"))
    with pytest.raises(BundleError, match="hash"):
        read_reference(copied)
    assert [f.path for f in verify(copied)] == [NAME]
    other = tmp_path / "other"
    shutil.copytree(written("binary"), other)
    data = json.loads((other / NAME).read_bytes())
    data["features"].pop()
    _replace(other, json.dumps(data).encode())
    assert "other columns" in str(verify(other)[0])


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"}, {"format_version": 99}, {"features": [{"name": "x"}]}, {"features": 3}, {"quality": None},
        {"features": [{"name": "x", "input": "x", "kind": "number", "edges": [2, 1], "counts": [0] * 6, "limits": []}]},
        {"features": [{"name": "x", "input": "x", "kind": "number", "edges": [1, 2], "counts": [0], "limits": []}]},
        {"features": [{"name": "x", "input": "x", "kind": "other", "counts": [0], "limits": []}]},
    ],
    ids=["format", "newer", "fields", "type", "quality", "falling edges", "cells", "kind"],
)  # fmt: skip
def test_a_damaged_reference_is_refused(written: Written, change: dict[str, object]) -> None:
    data = json.loads((written("binary") / NAME).read_bytes())
    with pytest.raises(BundleError):
        Reference.from_json({**data, **change})


def _replace(folder: Path, data: bytes) -> None:
    (folder / NAME).write_bytes(data)
    listed = manifest.parse((folder / "manifest.json").read_bytes())
    listed[NAME] = manifest.entry_of(folder / NAME)
    (folder / "manifest.json").write_bytes(manifest.render(listed))


numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=60)


@given(numbers, numbers)
def test_every_number_has_one_cell_and_float32_stays_in_range(known: list[float], seen: list[float]) -> None:
    column = describe("x", "x", "number", np.array(known, dtype=np.float64))
    cells = column.cells(np.array(seen, dtype=np.float64))
    assert ((cells >= 0) & (cells < column.size)).all()
    finite = np.array([v for v in known if np.isfinite(v)])
    assert not column.odd(column.cells(finite)).any()
    assert not column.odd(column.cells(finite.astype(np.float32))).any()
    assert column.cells(np.array([np.nan, np.inf, -np.inf])).tolist() == [column.size - 1, column.size - 2, 0]
    assert sum(column.counts) == len(known)
    for kind in (np.float64, np.float32):
        values = np.array(seen, dtype=kind)
        assert column.tally(values).tolist() == np.bincount(column.cells(values), minlength=column.size).tolist()


@given(st.lists(st.text(max_size=3), min_size=1, max_size=200), st.lists(st.text(max_size=3), max_size=50))
def test_every_category_has_one_cell_and_known_ones_are_not_new(known: list[str], seen: list[str]) -> None:
    column = describe("x", "x", "category", np.array(known, dtype=object))
    assert not column.odd(column.cells(np.array(known, dtype=object))).any()
    cells = column.cells(np.array(seen, dtype=object))
    new = [bool(v) and v not in known for v in seen]
    assert column.odd(cells).tolist() == new


def test_values_that_hold_many_rows_have_a_cell_of_their_own() -> None:
    values = np.repeat([0.0, 1.0, 2.0], [700, 200, 100])
    column = describe("x", "x", "number", values)
    assert column.counts == (0, 0, 700, 200, 100, 0, 0, 0)
    boolean = describe("x", "x", "number", np.repeat([0.0, 1.0], [50, 50]))
    assert boolean.counts == (0, 0, 50, 50, 0, 0, 0)


def test_nothing_known_and_dates() -> None:
    empty = describe("x", "x", "number", np.full(5, np.nan))
    assert empty.counts[-1] == 5
    assert empty.odd(empty.cells(np.array([3.0]))).all()
    date = describe("x", "x", "date", np.array([1e9, np.nan]))
    assert date.counts == (1, 1)
    assert not date.odd(date.cells(np.array([9e9]))).any()  # dates go on


@pytest.mark.parametrize("rows", [250, 700, 2500, 60_000])
@pytest.mark.parametrize("shares", [np.full(20, 0.05), np.array([0.9, 0.05, 0.03, 0.015, 0.005])])
def test_chance_stays_below_the_limits(rows: int, shares: np.ndarray) -> None:
    """Drawn anew: of 20,000 windows not five are beyond a limit of one in 30,000."""
    known = 10_000
    limits = tuple(limits_of(shares, known, 30))
    edges = tuple(float(v) for v in range(len(shares) + 1))
    column = ColumnReference(
        "x", "x", "number", edges=edges, counts=(0, 0, *(shares * known).astype(int), 0, 0, 0), limits=limits
    )
    limit = column.limit(rows)
    assert limit is not None
    rng = np.random.default_rng(99)
    base, window = rng.multinomial(known, shares, 20_000), rng.multinomial(rows, shares, 20_000)
    assert (psi_of_rows(window, base) > limit.psi).sum() < 5
    assert (ks_of_rows(window, base) > limit.ks).sum() < 5
    # And it is no empty promise: one in a thousand comes within a factor of it.
    assert np.quantile(psi_of_rows(window, base), 0.999) > 0.5 * limit.psi
    assert column.limit(LEAST_ROWS - 1) is None


def test_wide_tables_share_limits() -> None:
    memo: dict[tuple[object, ...], tuple[Limit, ...]] = {}
    rng = np.random.default_rng(0)
    for k in range(50):
        column = describe(f"x{k}", f"x{k}", "number", rng.normal(size=2000))
        limited(column, 50, memo)
    assert len(memo) == 1
