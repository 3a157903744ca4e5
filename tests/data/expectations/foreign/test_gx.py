"""Suites of Great Expectations on versions: what breaks them is told as our findings, with their own severity."""

from __future__ import annotations

import json
import os

import pyarrow as pa
import pytest

from tidemill.core.errors import DataError
from tidemill.data.expectations.foreign import ForeignSuite, check_foreign, keep_foreign
from tidemill.data.expectations.gate import gate, judge

# What the tool and its own imports warn of is not ours to repair.
pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("great_expectations", reason="the extra gx is not installed")

GOOD = {"age": [20.5, 30.0, 40.25, 50.0] * 10, "region": ["north", "south"] * 20, "n": list(range(1, 41))}
EXPECTATIONS = [
    {"type": "expect_column_to_exist", "kwargs": {"column": "age"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min_value": 18, "max_value": 99}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "region", "value_set": ["north", "south"]},
     "severity": "warning"},
    {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "n"}, "severity": "info"},
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10}},
]  # fmt: skip


def suite(expectations=EXPECTATIONS):
    return ForeignSuite("gx", json.dumps({"name": "s", "expectations": expectations}), "s.json")


def change(**columns):
    return pa.table({**GOOD, **columns})


def test_a_version_that_is_as_expected_has_no_findings(workspace, write):
    before = dict(os.environ)
    assert check_foreign(workspace, write(pa.table(GOOD)).ref, suite()) == []
    assert dict(os.environ) == before


def test_what_is_otherwise_is_told_worst_first(workspace, write):
    version = write(change(age=[3.0, 30.0, 40.0, 50.5] * 10, region=["east", "north"] * 20, n=[1, *range(1, 40)]))
    found = check_foreign(workspace, version.ref, suite())
    assert [(f.severity, f.column, f.code) for f in found] == [
        ("error", "age", "gx"), ("warning", "region", "gx"), ("info", "n", "gx"),
    ]  # fmt: skip
    assert "column values to be between" in found[0].message
    assert "10 of 40 rows are otherwise, such as 3.0" in found[0].message
    assert "'east'" in found[1].message


def test_of_a_table_the_number_is_told(workspace, write):
    (found,) = check_foreign(workspace, write(pa.table(GOOD).slice(0, 4)).ref, suite(EXPECTATIONS[-1:]))
    assert found.column is None
    assert "Found: 4" in found.message


def test_an_absent_column_is_an_error(workspace, write):
    found = check_foreign(workspace, write(pa.table(GOOD).drop_columns(["age"])).ref, suite())
    assert {f.column for f in found if f.severity == "error"} == {"age"}


def test_suites_of_earlier_versions_are_read(workspace, write):
    old = [{"expectation_type": "expect_column_values_to_be_between", "meta": {},
            "kwargs": {"column": "age", "min_value": 25}}]  # fmt: skip
    (found,) = check_foreign(workspace, write(pa.table(GOOD)).ref, suite(old))
    assert found.column == "age"


@pytest.mark.parametrize(
    "expectations", [[{"type": "expect_nonsense", "kwargs": {}}], [{"kwargs": {}}], [7], [{"type": "x", "kwargs": []}]]
)
def test_a_suite_that_can_not_run_is_told(workspace, write, expectations):
    with pytest.raises(DataError, match=r"Great Expectations can't run|has no `type`"):
        check_foreign(workspace, write(pa.table(GOOD)).ref, suite(expectations))


def test_an_error_blocks_the_version_and_a_warning_does_not(workspace, write):
    keep_foreign(workspace, "people", suite())
    only_warned = write(change(region=["east", "north"] * 20))
    assert not judge(workspace, only_warned.ref).blocked
    bad = write(change(age=[3.0, 30.0, 40.0, 50.5] * 10))
    assert judge(workspace, bad.ref).blocked
    with pytest.raises(DataError, match=r"blocked by its checks.*age"):
        gate(workspace, bad.ref)


def test_the_tool_tells_nobody(workspace, write, monkeypatch):
    def refuse(*_):
        raise AssertionError("something speaks to the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert check_foreign(workspace, write(pa.table(GOOD)).ref, suite()) == []
