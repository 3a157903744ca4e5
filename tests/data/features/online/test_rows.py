"""Packed rows: what goes in comes out, and foreign bytes are refused with words."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tidemill.core.errors import DataError
from tidemill.data.features.intake import arrow_type
from tidemill.data.features.online._base import Cell, newest_stamp, stamp, times_of
from tidemill.data.features.online.blocks import block_columns, to_block
from tidemill.data.features.online.patches import Rows
from tidemill.data.features.online.rows import PATCH_MARK, ROW_MARK, Block, Layout
from tidemill.data.features.packing import decode, encode
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, Packing, Validation

RANGE = Validation(low=-100, high=100)
INT64 = st.integers(-(2**63), 2**63 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES: dict[DType, st.SearchStrategy[Any]] = {
    DType.FLOAT32: st.floats(-100, 100, width=32),
    DType.FLOAT64: st.floats(allow_nan=False),
    DType.FLOAT16: st.floats(-100, 100, width=16),
    DType.INT8: st.integers(-128, 127),
    DType.INT16: st.integers(-(2**15), 2**15 - 1),
    DType.INT32: st.integers(-(2**31), 2**31 - 1),
    DType.INT64: INT64,
    DType.UINT8: st.integers(0, 255),
    DType.BOOL: st.booleans(),
    DType.STRING: WORDS,
    DType.CATEGORY: WORDS,
    DType.TIMESTAMP: INT64,
}


def group_of(kinds: list[DType], packing: Packing, name: str = "g") -> FeatureGroup:
    ranged = (DType.FLOAT32, DType.FLOAT16)
    features = [
        Feature(f"f{i}", kind, validation=RANGE if kind in ranged else Validation()) for i, kind in enumerate(kinds)
    ]
    return FeatureGroup(name, (EntityKey("id"),), tuple(features), packing=packing)


@st.composite
def groups_and_rows(draw: st.DrawFn) -> tuple[FeatureGroup, pa.Table]:
    kinds = draw(st.lists(st.sampled_from(DType), min_size=1, max_size=12))
    group = group_of(kinds, draw(st.sampled_from(Packing)))
    rows = draw(st.integers(1, 4))
    columns = {}
    for feature in group.features:
        cell = st.none() | VALUES[feature.dtype]
        values = draw(st.lists(cell, min_size=rows, max_size=rows))
        if feature.dtype is DType.TIMESTAMP:
            columns[feature.name] = pa.array(values, pa.int64()).cast(arrow_type(feature))
        else:
            plain = [None if v is None else np.float16(v) for v in values] if feature.dtype is DType.FLOAT16 else values
            text = pa.array(plain, pa.large_string() if feature.dtype.is_text else arrow_type(feature))
            columns[feature.name] = text.dictionary_encode() if feature.dtype is DType.CATEGORY else text
    return group, pa.table(columns)


@given(groups_and_rows(), INT64.filter(lambda t: abs(t) < 2**62), INT64.filter(lambda t: abs(t) < 2**62))
def test_a_row_that_is_packed_and_read_has_the_values_of_its_packing(
    case: tuple[FeatureGroup, pa.Table], event: int, created: int
) -> None:
    group, table = case
    rows = Rows(group)
    block = to_block(rows.layout, table)
    packed = rows.layout.pack(block, [event] * len(block), [created] * len(block))
    again = []
    for row in packed:
        assert times_of(row) == (event, created)
        rows.layout.check(row, whole=True)
        parts = rows.read((row, None))
        numbers = rows.layout.decode(parts.numbers)[None]
        again.append(Block(numbers, parts.words[None], [parts.texts], parts.missing[None]))
        assert rows.layout.join(parts, stamp(event, created)) == row
    found = block_columns(group, again)
    rounded = decode(encode(block.numbers, group.packed, group.packing), group.packed, group.packing)
    assert np.array_equal(np.concatenate([b.numbers for b in again]), rounded, equal_nan=True)
    for feature in group.others:
        assert found[feature.name].to_pylist() == table[feature.name].to_pylist()
    if group.packing is Packing.FLOAT32:
        for feature in group.packed:
            assert found[feature.name].to_pylist() == table[feature.name].to_pylist()


@given(nps.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)), st.sampled_from(Packing))
def test_the_error_of_a_packing_is_what_it_promises(numbers: np.ndarray[Any, Any], packing: Packing) -> None:
    layout = Layout.of(group_of([DType.FLOAT32] * 5, packing))
    none = np.empty((3, 0), np.int64)
    rows = layout.pack(Block(numbers, none, [[]] * 3, none.astype(bool)), [0] * 3, [0] * 3)
    error = np.abs(np.array([layout.numbers(row) for row in rows], np.float64) - numbers)
    limit = {Packing.FLOAT32: 0.0, Packing.FLOAT16: 0.0313, Packing.INT8: 200 / 254 / 2 * 1.0001}[packing]
    assert error.max() <= limit


@given(groups_and_rows(), st.data())
def test_patches_on_patches_read_as_if_the_rows_had_been_written(
    case: tuple[FeatureGroup, pa.Table], data: st.DataObject
) -> None:
    group, table = case
    rows = Rows(group)
    block = to_block(rows.layout, table)
    packed = [rows.layout.pack(block, [t] * len(block), [0] * len(block)) for t in range(4)]
    cell: Cell = (packed[0][0], None)
    whole = block.take([0])
    for when in range(1, 4):
        names = data.draw(st.sets(st.integers(0, len(group.features) - 1), min_size=1, max_size=2))
        indices = tuple(sorted(names))
        source = table.select([group.features[i].name for i in indices]).slice(
            data.draw(st.integers(0, len(block) - 1)), 1
        )
        whole = rows.overlaid(whole, indices, to_block(rows.sub_layout(indices), source))
        row = rows.layout.pack(whole, [when], [0])[0]
        if when > 1:
            assert rows.changed(cell, packed[when - 2][0]) is cell  # late
        cell = rows.changed(cell, row)
        expected = rows.layout.split(row)
        for found in (rows.read(cell), rows.read(rows.compacted(cell))):
            assert np.array_equal(found.numbers, expected.numbers, equal_nan=True)
            assert np.array_equal(found.words, expected.words)
            assert found.texts == expected.texts
            assert np.array_equal(found.missing, expected.missing)
        assert newest_stamp(cell) == stamp(when, 0)
        assert rows.compacted(cell)[1] is None


def _mixed() -> Rows:
    return Rows(
        group_of([DType.FLOAT32, DType.STRING, DType.INT64, DType.CATEGORY, DType.FLOAT32] * 3, Packing.FLOAT32)
    )


def _row(rows: Rows) -> bytes:
    block = Block(
        np.full((1, 6), 1.5, np.float32),
        np.full((1, 3), 7, np.int64),
        [["Ulm", "", "ü", "x" * 40, "", "z"]],
        np.zeros((1, 9), np.bool_) | (np.arange(9) == 4),
    )
    return rows.layout.pack(block, [5], [6])[0]


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused_with_words(data: bytes) -> None:
    rows = _mixed()
    for read in (
        lambda: rows.read((data, None)),
        lambda: rows.read((_row(rows), data)),
        lambda: rows.layout.split(data),
    ):
        with pytest.raises(DataError):
            read()


@given(st.integers(16, 400), st.integers(1, 255), st.sampled_from([ROW_MARK, PATCH_MARK]))
@example(44, 1, ROW_MARK)  # the flag that says whether there is a bitmap
def test_one_wrong_byte_is_found_by_the_check_and_never_crashes_a_read(at: int, flip: int, mark: bytes) -> None:
    rows = _mixed()
    good = _row(rows)
    bad = bytearray(good)
    bad[at % len(good)] ^= flip
    if at % len(good) >= 16:
        with pytest.raises(DataError):
            rows.layout.check(bytes(bad), whole=True)
    with contextlib.suppress(DataError):
        rows.read((bytes(bad), None))
    with pytest.raises(DataError):
        rows.layout.split(good, mark=PATCH_MARK)


@given(st.integers(0, 400))
def test_a_row_that_was_cut_short_is_refused(size: int) -> None:
    rows = _mixed()
    good = _row(rows)
    if size < len(good):
        with pytest.raises(DataError):
            rows.read((good[:size], None))


def test_a_row_without_missing_values_has_no_bitmap_and_5000_numbers_fit_five_pages() -> None:
    layout = Layout.of(group_of([DType.FLOAT32] * 5000, Packing.FLOAT32))
    none = np.empty((2, 0), np.int64)
    numbers = np.ones((2, 5000), np.float32)
    numbers[1, 3] = np.nan
    whole, holed = layout.pack(Block(numbers, none, [[], []], none.astype(bool)), [0, 0], [0, 0])
    assert len(whole) == 48 + 20_000 <= 5 * 4096 - 16
    assert len(holed) == len(whole) + 628


@pytest.mark.parametrize("packing", Packing)
def test_rows_of_an_older_schema_read_as_the_newer_one_with_values_missing(packing: Packing) -> None:
    old = group_of([DType.FLOAT32, DType.STRING, DType.INT64], packing)
    grown = FeatureGroup(
        "g",
        old.entity,
        (*old.features, Feature("n1", validation=RANGE), Feature("n2", DType.STRING), Feature("n3", DType.INT64)),
        packing=packing,
        schema_version=2,
        widths=(3, 6),
    )
    block = Block(np.float32([[50]]), np.array([[9]]), [["Ulm"]], np.array([[False, False]]))
    row = Layout.of(old).pack(block, [1], [1])[0]
    rows = Rows(grown)
    parts = rows.read((row, None))
    assert rows.layout.decode(parts.numbers)[0] == pytest.approx(50, abs=0.5)
    assert np.isnan(rows.layout.decode(parts.numbers)[1])
    assert parts.words.tolist() == [9, 0]
    assert parts.texts == ["Ulm", ""]
    assert parts.missing.tolist() == [False, True, False, True]
    newer = Block(np.float32([[50, 25]]), np.array([[9, 0]]), [["Ulm", ""]], np.array([[False, True, False, True]]))
    patched = rows.changed((row, None), rows.layout.pack(newer, [2], [2])[0])
    assert rows.layout.decode(rows.read(patched).numbers)[1] == pytest.approx(25, abs=0.5)
    with pytest.raises(DataError, match="schema version"):
        Rows(old).read(patched)


def test_a_value_that_a_packing_cannot_hold_is_refused_by_name() -> None:
    layout = Layout.of(group_of([DType.FLOAT32], Packing.FLOAT16))
    none = np.empty((1, 0), np.int64)
    with pytest.raises(DataError, match="beyond float16"):
        layout.pack(Block(np.float32([[1e6]]), none, [[]], none.astype(bool)), [0], [0])


@given(st.sampled_from(Packing), st.booleans(), st.integers(0, 400), st.integers(0, 255))
def test_a_quick_look_at_a_row_finds_what_the_check_finds(packing: Packing, holed: bool, at: int, flip: int) -> None:
    for kinds in ([DType.FLOAT32] * 9, [DType.FLOAT32, DType.INT64], [DType.FLOAT32, DType.STRING]):
        layout = Layout.of(group_of(kinds, packing))
        words, texts = len(layout.words), len(layout.texts)
        numbers = np.full((1, layout.width), 3, np.float32)
        numbers[0, 0] = np.nan if holed else 3
        values = Block(
            numbers, np.ones((1, words), np.int64), [["Ulm"] * texts], np.zeros((1, words + texts), np.bool_)
        )
        row = bytearray(layout.pack(values, [1], [1])[0])
        row[at % len(row)] ^= flip
        found: list[bool] = []
        for look in (lambda r, h=layout.holds: h(r), lambda r, c=layout.check: c(r) >= 0):
            try:
                found.append(bool(look(bytes(row))))
            except DataError:
                found.append(False)
        assert found[0] == found[1]
