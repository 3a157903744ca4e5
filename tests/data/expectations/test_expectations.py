"""Laws of expectations: a version meets its own, what changes is told, errors block, YAML reads as it was written."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError, NotFoundError
from tidemill.data.expectations.check import check_version
from tidemill.data.expectations.gate import gate, judge, keep_suite, load_suite, open_gate, verdict
from tidemill.data.expectations.infer import infer_suite
from tidemill.data.expectations.suite import KINDS, SEVERITIES, ColumnExpectation, Freshness, Suite

START = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


def people(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "key": [f"k{i:04d}" for i in range(rows)],
            "age": pa.array(rng.uniform(20, 60, rows).round(2), mask=rng.random(rows) < 0.02),
            "region": rng.choice(["north", "south"], rows),
            "seen": [START + dt.timedelta(hours=i) for i in range(rows)],
        }
    )


def _set(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def _codes(findings):
    return {(f.code, f.column) for f in findings}


def test_a_version_meets_its_own_expectations_and_another_sample_does_too(workspace, write):
    first = write(people())
    suite = infer_suite(workspace, first.ref)
    assert check_version(workspace, first.ref, suite) == []
    assert check_version(workspace, write(people(seed=1)).ref, suite) == []


def test_what_was_inferred_is_what_stands_in_the_columns(workspace, write):
    suite = infer_suite(workspace, write(people()).ref)
    assert {n: c.type for n, c in suite.columns.items()} == {
        "key": "text", "age": "number", "region": "text", "seen": "time",
    }  # fmt: skip
    assert suite.columns["region"].values == ("north", "south")
    assert suite.columns["key"].unique
    assert 20 <= suite.columns["age"].low < suite.columns["age"].high <= 60


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda t: _set(t, "age", [1000.0] * 100 + [30.0] * 100), {("range", "age")}),
        (lambda t: _set(t, "age", [None] * 100 + list(np.linspace(20, 59, 100))), {("missing", "age")}),
        (lambda t: _set(t, "region", ["east", "north"] * 100), {("values", "region")}),
        (lambda t: _set(t, "key", ["k0000"] * 2 + [f"x{i}" for i in range(198)]), {("unique", "key")}),
        (lambda t: t.drop_columns(["age"]), {("column_absent", "age")}),
        (lambda t: t.append_column("more", pa.array(np.linspace(0, 1, 200))), {("column_new", "more")}),
        (lambda t: _set(t, "age", ["many words here"] * 99 + ["and others there"] * 101), {("type", "age")}),
        (lambda t: t.slice(0, 50), {("rows", None)}),
    ],
)
def test_what_has_changed_is_told(workspace, write, change, wanted):
    suite = infer_suite(workspace, write(people()).ref)
    assert _codes(check_version(workspace, write(change(people())).ref, suite)) == wanted


def test_rows_must_be_fresh(workspace, write):
    version = write(people())
    suite = Suite("people", {}, other_columns="allow", fresh=Freshness("seen", 3600.0, "error"))
    newest = START.timestamp() + 199 * 3600
    assert check_version(workspace, version.ref, suite, clock=lambda: newest + 3599) == []
    (found,) = check_version(workspace, version.ref, suite, clock=lambda: newest + 2 * 86_400)
    assert "2.0 days old" in found.message
    suite = replace(suite, fresh=Freshness("age", 1.0))
    assert _codes(check_version(workspace, version.ref, suite)) == {("freshness", "age")}


def test_references_must_be_there(workspace, write):
    write(pa.table({"region": ["north", "west"] * 20, "size": [1.5, 2.5] * 20}), "regions")
    version = write(people())
    suite = Suite("people", {"region": ColumnExpectation("text", refers_to="regions.region", severity="error")},
                  other_columns="allow")  # fmt: skip
    (found,) = check_version(workspace, version.ref, suite)
    assert found.code == "reference"
    assert "'south'" in found.message
    lost = Suite("people", {"region": ColumnExpectation("text", refers_to="regins.region")}, other_columns="allow")
    (found,) = check_version(workspace, version.ref, lost)
    assert "regions" in found.message


def test_an_error_blocks_a_version_until_the_gate_is_opened(workspace, write):
    first = write(people())
    suite = infer_suite(workspace, first.ref)
    strict = replace(suite, columns={**suite.columns, "region": replace(suite.columns["region"], severity="error")})
    keep_suite(workspace, strict, actor="ann")
    assert not judge(workspace, first.ref).blocked
    gate(workspace, first.ref)
    second = write(_set(people(), "region", ["east", "north"] * 100))
    gate(workspace, second.ref)  # never judged
    assert judge(workspace, second.ref).blocked
    with pytest.raises(DataError, match=r"blocked by its checks.*region.*'east'"):
        gate(workspace, second.ref)
    with pytest.raises(DataError, match="with a reason"):
        open_gate(workspace, second.ref, reason=" ")
    open_gate(workspace, second.ref, reason="east is new", actor="ann")
    gate(workspace, second.ref)
    standing = verdict(workspace, second.ref)
    assert not standing.blocked
    assert standing.findings[0].column == "region"
    told = [(e.kind, e.actor) for e in workspace.journal.read("audit")]
    assert ("dataset_gate_opened", "ann") in told
    assert load_suite(workspace, "people") == strict


def test_warnings_do_not_block(workspace, write):
    suite = infer_suite(workspace, write(people()).ref)
    version = write(_set(people(), "region", ["east", "north"] * 100))
    found = judge(workspace, version.ref, suite)
    assert [f.severity for f in found.findings] == ["warning"]
    assert not found.blocked
    gate(workspace, version.ref)


def test_what_was_never_judged_has_no_gate_to_open(workspace, write):
    version = write(people())
    assert verdict(workspace, version.ref) is None
    with pytest.raises(NotFoundError, match="never judged"):
        open_gate(workspace, version.ref, reason="because")
    with pytest.raises(NotFoundError):
        judge(workspace, version.ref)


_severities = st.sampled_from(SEVERITIES)
_shares = st.floats(0, 1)
_columns = st.builds(
    ColumnExpectation,
    st.sampled_from(KINDS),
    _shares,
    st.none() | st.floats(-1e6, 0),
    st.none() | st.floats(0, 1e6),
    st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple),
    _shares,
    st.booleans(),
    st.none() | st.just("other.column"),
    _severities,
)
_suites = st.builds(
    Suite,
    st.text(min_size=1, max_size=8),
    st.dictionaries(st.text(min_size=1, max_size=6), _columns, max_size=3),
    st.integers(0, 10**6),
    st.none() | st.builds(Freshness, st.text(min_size=1, max_size=5), st.floats(0, 1e9), _severities),
    st.sampled_from([*SEVERITIES, "allow"]),
)


@settings(max_examples=30)  # PyYAML reads slowly
@given(_suites)
def test_yaml_reads_as_it_was_written(suite):
    assert Suite.from_yaml(suite.to_yaml()) == suite


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("dataset: [", 1, "can't be read"),
        ("columns: {}", 1, "name of the dataset"),
        ("- a\n- b", 1, "Names with values"),
        ("dataset: d\ncolumns:\n  a: {typ: number}", 3, "Did you mean 'type'"),
        ("dataset: d\ncolumns:\n  a:\n    type: numbr\n", 4, "one of number, text"),
        ("dataset: d\ncolumns:\n  a:\n    type: number\n    low: 3\n    high: 1\n", 3, "`low <= high`"),
        ("dataset: d\ncolumns:\n  a:\n    type: number\n    missing_at_most: 3\n", 5, "between 0 and 1"),
        ("dataset: d\ncolumns:\n  a:\n    type: text\n    values: x\n", 5, "list of texts"),
        ("dataset: d\ncolumns:\n  a:\n    type: text\n    severity: fatal\n", 5, "info, warning or error"),
        ("dataset: d\ncolumns:\n  a:\n    type: text\n    refers_to: other\n", 5, "dataset.column"),
        ("dataset: d\nrows_at_least: many\n", 2, "at least 0"),
        ("dataset: d\nfresh:\n  column: t\n  within_s: soon\n", 4, "at least 0"),
        ("dataset: !!python/object/apply:os.system [ls]", 1, "can't be read"),
        ("dataset: d\nother_columns: maybe\n", 2, "allow"),
    ],
)
def test_a_mistake_in_the_yaml_is_told_with_its_line(text, line, message):
    with pytest.raises(DataError, match=message) as caught:
        Suite.from_yaml(text, where="people.yaml")
    assert f"line {line}" in str(caught.value)
    assert "people.yaml" in str(caught.value)
