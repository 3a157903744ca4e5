"""Schemas of pandera on versions: what breaks them is told as our findings, and blocks."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from tidemill.core.errors import DataError
from tidemill.data.expectations.expected import Expected
from tidemill.data.expectations.foreign import ForeignSuite, check_foreign, keep_foreign, read_foreign
from tidemill.data.expectations.gate import gate, judge

# What pandera and its own imports warn of is not ours to repair; its schema warnings become findings.
pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("pandera", reason="the extra pandera is not installed")

GOOD = {"age": [20.5, 30.0, 40.25, None] * 10, "region": ["north", "south"] * 20, "n": list(range(1, 41))}
YAML = """
schema_type: dataframe
columns:
  age:
    dtype: float64
    nullable: true
    checks: {greater_than_or_equal_to: 18, less_than_or_equal_to: 99}
  region:
    dtype: str
    checks: {isin: [north, south]}
  n:
    dtype: int64
    unique: true
"""
CODE = """
import pandera.pandas as pa

class People(pa.DataFrameModel):
    age: float = pa.Field(ge=18, le=99, nullable=True)
    region: str = pa.Field(isin=["north", "south"])
    n: int = pa.Field(unique=True)
"""


def suite(text=YAML):
    return ForeignSuite("pandera", text, "people.yaml")


def change(**columns):
    return pa.table({**GOOD, **columns})


def test_a_version_that_is_as_the_schema_says_has_no_findings(workspace, write):
    assert check_foreign(workspace, write(pa.table(GOOD)).ref, suite()) == []


@pytest.mark.parametrize(
    ("columns", "column", "said"),
    [
        (
            {"age": [3.0, 30.0, 40.0, 50.5] * 10},
            "age",
            r"10 of 40 rows fail .*greater_than_or_equal_to\(18\), such as 3.0",
        ),
        ({"region": ["east", "north"] * 20}, "region", "20 of 40 rows fail .*isin.*'east'"),
        ({"n": [1, *range(1, 40)]}, "n", "rows fail .*duplicates|unique"),
        ({"age": ["many words"] * 20 + ["and others"] * 20}, "age", "dtype"),
    ],
)
def test_what_is_otherwise_is_told_by_column(workspace, write, columns, column, said):
    import re

    found = check_foreign(workspace, write(change(**columns)).ref, suite())
    about = [f for f in found if f.column == column]
    assert about
    assert {(f.severity, f.code) for f in found} == {("error", "pandera")}
    assert any(re.search(said, f.message) for f in about), [f.message for f in about]


def test_a_column_that_is_absent_is_named(workspace, write):
    (found,) = check_foreign(workspace, write(pa.table(GOOD).drop_columns(["age"])).ref, suite())
    assert (found.column, found.message) == ("age", "The column is absent.")


def test_a_python_file_may_hold_the_schema_or_several(workspace, write, tmp_path):
    version = write(change(region=["east", "north"] * 20))
    path = tmp_path / "checks.py"
    path.write_text(CODE)
    (found,) = check_foreign(workspace, version.ref, read_foreign(f"pandera:{path}"))
    assert found.column == "region"
    path.write_text(CODE + "\nMORE = pa.DataFrameSchema({'age': pa.Column(float, nullable=True)})\n")
    with pytest.raises(DataError, match="2 schemas in it: MORE, People") as caught:
        check_foreign(workspace, version.ref, read_foreign(f"pandera:{path}"))
    assert f"{path}::MORE" in str(caught.value.hint)
    assert check_foreign(workspace, version.ref, read_foreign(f"pandera:{path}::MORE")) == []
    with pytest.raises(DataError, match="no pandera schema 'None_'"):
        check_foreign(workspace, version.ref, read_foreign(f"pandera:{path}::None_"))
    path.write_text("x = 1\n")
    with pytest.raises(DataError, match="no pandera schema in it"):
        check_foreign(workspace, version.ref, read_foreign(f"pandera:{path}"))
    path.write_text("1 / 0\n")
    with pytest.raises(DataError, match="ZeroDivisionError"):
        check_foreign(workspace, version.ref, read_foreign(f"pandera:{path}"))


def test_what_a_schema_only_warns_of_is_a_warning(workspace, write, tmp_path):
    path = tmp_path / "checks.py"
    path.write_text(
        "import pandera.pandas as pa\n"
        "BIG = pa.Check(lambda s: s > 5, name='big', raise_warning=True)\n"
        "SCHEMA = pa.DataFrameSchema({'n': pa.Column(int, BIG)})\n"
    )
    (found,) = check_foreign(workspace, write(pa.table(GOOD)).ref, read_foreign(f"pandera:{path}"))
    assert found.severity == "warning"


@pytest.mark.parametrize("text", ["columns: {age: {dtype: nonsense}}", "columns: {age: {checks: {nonsense: 1}}}",
                                  "columns: {age: 7}", "schema_type: polars_dataframe\ncolumns: {}"])  # fmt: skip
def test_a_schema_that_pandera_can_not_read_is_told(workspace, write, text):
    with pytest.raises(DataError, match=r"pandera can't run|polars_dataframe"):
        check_foreign(workspace, write(pa.table(GOOD)).ref, suite(text))


def test_a_broken_schema_blocks_the_version_together_with_ours(workspace, write):
    bad = write(change(region=["east", "north"] * 20))
    keep_foreign(workspace, "people", suite(), actor="ann")
    assert judge(workspace, bad.ref).blocked
    with pytest.raises(DataError, match=r"blocked by its checks.*region.*isin"):
        gate(workspace, bad.ref)
    good = write(pa.table(GOOD))
    assert not judge(workspace, good.ref).blocked
    assert not judge(workspace, bad.ref, Expected()).blocked
    assert json.dumps([vars(f) for f in judge(workspace, bad.ref).findings])
