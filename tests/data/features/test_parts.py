"""The small parts: times, entity codes, packing, arrays."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tidemill.core.errors import DataError
from tidemill.data.features.arrays import arrow_of, floats_of, nulls_of, numpy_of
from tidemill.data.features.entities import index_entities
from tidemill.data.features.instants import column_nanos, instant_nanos
from tidemill.data.features.packing import decode, encode, packing_error
from tidemill.data.features.types import Feature, Packing, Validation

# ----------------------------------------------------------------------------------------------------------- instants

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone.utc)
NANOS = 1772368215123456000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([AT], pa.timestamp("us", "UTC")),
        pa.array([AT], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([AT.isoformat()]),
        pa.array(["2026-03-01T12:30:15.123456Z"]).dictionary_encode(),
        pa.array(["2026-03-01 14:30:15.123456+02:00"], pa.large_string()),
        pa.array(["2026-03-01T10:00:15.123456-0230"]),
    ],
)
def test_one_moment_is_one_number_however_it_is_written(column: pa.Array) -> None:
    assert column_nanos(pa.chunked_array([column]), "at").tolist() == [NANOS]


@pytest.mark.parametrize(
    "value",
    [AT, AT.astimezone(timezone(timedelta(hours=5))), AT.isoformat(), pd.Timestamp(AT)],
)
def test_one_moment_given_alone_is_the_same_number(value) -> None:
    assert instant_nanos(value, "as_of") == NANOS


@pytest.mark.parametrize(
    "value", [AT.replace(tzinfo=None), "2026-03-01T12:30:15.123456", np.datetime64(AT.replace(tzinfo=None))]
)
def test_a_moment_without_zone_is_utc_only_when_asked(value) -> None:
    with pytest.raises(DataError, match="no zone"):
        instant_nanos(value, "as_of")
    assert instant_nanos(value, "as_of", assume_utc=True) == NANOS


def test_dates_are_midnights() -> None:
    column = pa.chunked_array([pa.array([AT.date()])])
    with pytest.raises(DataError, match="no zone"):
        column_nanos(column, "at")
    midnight = int(datetime(2026, 3, 1, tzinfo=timezone.utc).timestamp()) * 10**9
    assert column_nanos(column, "at", assume_utc=True).tolist() == [midnight]
    assert column_nanos(column.cast(pa.string()), "at", assume_utc=True).tolist() == [midnight]


# ------------------------------------------------------------------------------------------------------ entity codes

KEYS = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from(["", "a", "ß", "z" * 20]), st.integers(0, 2)), max_size=30
)


def columns(keys: list[tuple[int, str, int]]) -> list[pa.Array]:
    return [
        pa.array([k[0] for k in keys], pa.int64()),
        pa.array([k[1] for k in keys], pa.large_string()),
        pa.array([k[2] for k in keys], pa.int64()),
    ]


@given(KEYS, KEYS)
def test_codes_follow_the_order_of_keys_and_lead_back_to_them(keys, asked) -> None:
    index, codes = index_entities(columns(keys))
    different = sorted(set(keys))
    assert index.size == len(different)
    assert codes.tolist() == [different.index(k) for k in keys]
    assert list(zip(*(c.to_pylist() for c in index.key_columns()), strict=True)) == different
    assert index.lookup(columns(asked)).tolist() == [different.index(k) if k in different else -1 for k in asked]


# ----------------------------------------------------------------------------------------------------------- packing

MATRIX = hnp.arrays(np.float32, (7, 3), elements=st.floats(-3, 5, width=32) | st.just(float("nan")))
FEATURES = [Feature(n, validation=Validation(low=-3, high=5)) for n in "abc"]


@given(MATRIX, st.sampled_from(list(Packing)))
def test_what_was_decoded_encodes_to_the_same_codes(matrix: np.ndarray, packing: Packing) -> None:
    stored = encode(matrix, FEATURES, packing)
    decoded = decode(stored, FEATURES, packing)
    np.testing.assert_array_equal(encode(decoded, FEATURES, packing), stored)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(matrix))
    error = packing_error(matrix, FEATURES, packing)
    limit = {Packing.FLOAT32: 0.0, Packing.FLOAT16: 5 / 2**11, Packing.INT8: 8 / 254 / 2 * 1.0001}[packing]
    assert (error <= limit).all()


def test_values_beyond_the_form_are_refused_by_feature() -> None:
    with pytest.raises(DataError, match=r"feature 'b'.*70000 is beyond float16"):
        encode(np.array([[1, 7e4, 1]], np.float32), FEATURES, Packing.FLOAT16)
    with pytest.raises(DataError, match=r"feature 'c'.*6 is outside"):
        encode(np.array([[1, 1, 6]], np.float32), FEATURES, Packing.INT8)


# ------------------------------------------------------------------------------------------------------------ arrays


@given(st.lists(st.none() | st.booleans(), max_size=40), st.integers(0, 5), st.integers(1, 9))
def test_sliced_and_chunked_columns_are_read_as_pyarrow_reads_them(cells, begin: int, step: int) -> None:
    for kind in (pa.bool_(), pa.int16(), pa.float64()):
        whole = pa.array(cells).cast(pa.int8()).cast(kind) if kind != pa.bool_() else pa.array(cells, pa.bool_())
        chunked = pa.chunked_array([whole[i : i + step] for i in range(begin, len(whole), step)], kind)
        expected = chunked.to_pylist()
        assert nulls_of(chunked).tolist() == [c is None for c in expected]
        values = numpy_of(chunked)
        assert [None if n else v for v, n in zip(values.tolist(), nulls_of(chunked), strict=True)] == expected
        again = arrow_of(values, missing=nulls_of(chunked))
        assert again.cast(kind).to_pylist() == expected
        floats = floats_of(chunked)
        assert [None if np.isnan(v) else v for v in floats] == [None if c is None else float(c) for c in expected]


def test_a_join_does_not_import_pandas(tmp_path) -> None:
    program = """
import sys
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tidemill.data.features.join import historical
from tidemill.store.workspace import Workspace

with Workspace.open(sys.argv[1]) as workspace:
    historical(workspace, sys.argv[2], "g", label_time="day", as_of="2027-01-01T00:00:00Z").matrix()
    table = historical(workspace, sys.argv[2], "g", label_time="day", times=True).to_arrow()
    assert table.num_rows == 2
assert "pandas" not in sys.modules
"""
    import pyarrow.parquet as pq

    from tidemill.data.features.push import push
    from tidemill.data.features.registry import register
    from tidemill.data.features.types import DType, EntityKey, FeatureGroup, KeyType
    from tidemill.store.workspace import Workspace

    with Workspace.open(tmp_path / "ws") as workspace:
        keys = (EntityKey("id"), EntityKey("s", KeyType.STRING))
        register(workspace, FeatureGroup("g", keys, (Feature("x"), Feature("t", DType.CATEGORY)), event_time="at"))
        push(workspace, "g", pa.table({"id": [1], "s": ["a"], "at": [AT], "x": [1.0], "t": ["u"]}))
    pq.write_table(pa.table({"id": [1, 2], "s": ["a", "a"], "day": [AT, AT]}), tmp_path / "spine.parquet")
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "ws"), str(tmp_path / "spine.parquet")], check=True, timeout=120
    )


def test_int8_codes_do_not_depend_on_the_tile_that_they_fall_in() -> None:
    rule = Validation(low=-3, high=5)
    features = [Feature(f"f{i}", validation=rule) for i in range(1500)]
    matrix = np.random.default_rng(0).uniform(-3, 5, (70, 1500)).astype(np.float32)
    matrix[::7, ::11] = np.nan
    stored = encode(matrix, features, Packing.INT8)
    for rows in (slice(0, 1), slice(20, 43), slice(69, 70)):
        np.testing.assert_array_equal(stored[rows], encode(matrix[rows], features, Packing.INT8))
    assert stored.dtype == np.int8
    assert (stored[::7, ::11] == -128).all()
    matrix[66, 1234] = 6
    with pytest.raises(DataError, match=r"feature 'f1234'.*6 is outside"):
        encode(matrix, features, Packing.INT8)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 60), min_size=1, unique=True).map(sorted),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-30, 70), min_size=1),
)
def test_keys_are_found_whether_they_lie_close_together_or_far_apart(known: list[int], asked: list[int]) -> None:
    index, _ = index_entities([pa.array(known, pa.int64())])
    places = {key: place for place, key in enumerate(known)}
    assert index.lookup([pa.array(asked, pa.int64())]).tolist() == [places.get(key, -1) for key in asked]
