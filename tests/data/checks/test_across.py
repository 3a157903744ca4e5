"""What training and test share is found."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from tidemill.core.errors import DataError, NotFoundError
from tidemill.data.checks.across import check_splits

DAY = [dt.datetime(2026, 1, d, tzinfo=dt.timezone.utc) for d in range(1, 7)]


def _part(x, who, days):
    return pa.table({"x": x, "who": who, "day": [DAY[d] for d in days]})


def test_parts_that_share_nothing_have_no_finding():
    train, test = _part([1.0, 2.0], ["a", "b"], [0, 1]), _part([3.0, 4.0], ["c", "d"], [2, 3])
    assert check_splits(train, test, entity="who", time="day") == []


def test_rows_entities_and_time_in_both_are_found():
    train = _part([1.0, 2.0, 3.0], ["a", "b", None], [0, 3, 1])
    test = _part([2.0, 9.0], ["b", None], [2, 4])
    found = {f.code: f for f in check_splits(train, test, entity="who", time="day")}
    assert set(found) == {"row_overlap", "entity_overlap", "time_overlap"}
    assert "1 of 2 test rows" in found["row_overlap"].message
    assert "1 values of 'who'" in found["entity_overlap"].message
    assert "'b'" in found["entity_overlap"].message
    assert "1 training rows" in found["time_overlap"].message


def test_equal_values_of_other_types_are_equal():
    train, test = pa.table({"x": [1.0, 2.0]}), pa.table({"x": pa.array([2, 5], pa.int32())})
    assert [f.code for f in check_splits(train, test)] == ["row_overlap"]


def test_bad_input_is_told():
    table = pa.table({"x": [1.0]})
    with pytest.raises(NotFoundError, match="no column 'xx'"):
        check_splits(table, table, entity="xx")
    with pytest.raises(DataError, match="'x' is double in training and string"):
        check_splits(table, pa.table({"x": ["a"]}))
