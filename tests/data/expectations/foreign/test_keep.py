"""Suites of other tools come from files, are kept with their dataset, and need no tool until they run."""

from __future__ import annotations

import json
import sys

import pyarrow as pa
import pytest

from tidemill.core.errors import DataError, MissingExtraError, NotFoundError, OptionError
from tidemill.data.expectations.expected import load_expected
from tidemill.data.expectations.foreign import (
    ForeignSuite,
    check_foreign,
    drop_foreign,
    keep_foreign,
    load_foreign,
    read_foreign,
)
from tidemill.data.expectations.foreign.run import frame_of
from tidemill.data.versions.governance import audit_of

GX = {"name": "s", "expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "age"}}]}
PANDERA = "schema_type: dataframe\ncolumns:\n  age: {dtype: float64, nullable: true, checks: {ge: 0}}\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(GX))
    (tmp_path / "s.yaml").write_text(PANDERA)
    (tmp_path / "s.py").write_text("raise SystemExit('this ran')\n")
    return tmp_path


def test_a_suite_is_kept_told_and_taken_away(workspace, write, files):
    write(pa.table({"age": [1.5, 2.5]}))
    assert load_foreign(workspace, "people") == []
    assert not load_expected(workspace, "people")
    for word in (f"gx:{files / 's.json'}", f"pandera:{files / 's.yaml'}"):
        suite = read_foreign(word)
        assert keep_foreign(workspace, "people", suite, actor="ann")
        assert not keep_foreign(workspace, "people", suite, actor="ann")
    kept = load_foreign(workspace, "people")
    assert [(s.kind, s.where) for s in kept] == [("gx", "s.json of people"), ("pandera", "s.yaml of people")]
    assert json.loads(kept[0].text) == GX
    assert load_foreign(workspace, "peopl") == []
    drop_foreign(workspace, "people", "gx", actor="ann")
    assert [s.kind for s in load_expected(workspace, "people").foreign] == ["pandera"]
    with pytest.raises(NotFoundError, match="'gx'"):
        drop_foreign(workspace, "people", "gx")
    assert {e.payload.get("suite") for e in audit_of(workspace, "people")} == {"gx", "pandera"}


def test_code_is_neither_kept_nor_run_by_reading_it(workspace, write, files):
    write(pa.table({"age": [1.5, 2.5]}))
    suite = read_foreign(f"pandera:{files / 's.py'}::Schema")
    assert (suite.is_code, suite.chosen) == (True, "Schema")
    with pytest.raises(OptionError, match="a workspace holds no code"):
        keep_foreign(workspace, "people", suite)


@pytest.mark.parametrize(
    ("word", "text", "error", "said"),
    [
        ("s.json", "", OptionError, "names no suite"),
        ("ge:FILE.json", "{}", OptionError, "Known: 'gx', 'pandera'"),
        ("gx:none.json", None, DataError, "can't be read"),
        ("gx:FILE.json", "{", DataError, "no JSON"),
        ("gx:FILE.json", "[" * 100_000, DataError, "no JSON"),
        ("gx:FILE.json", "[]", DataError, "list of `expectations`"),
        ("gx:FILE.json", '{"expectations": {}}', DataError, "list of `expectations`"),
        ("gx:FILE.json::A", "{}", OptionError, "Only a Python file"),
        ("pandera:FILE.yaml", "a: [", DataError, "YAML can't be read"),
        ("pandera:FILE.yaml", "columns: [a]", DataError, "`columns` by name"),
        ("pandera:FILE.yaml", "!!python/object/apply:os.system ['true']", DataError, "YAML can't be read"),
    ],
)
def test_files_that_hold_no_suite(tmp_path, word, text, error, said):
    path = tmp_path / ("x." + word.partition("::")[0].rpartition(".")[2])
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=said):
        read_foreign(word.replace(f"FILE{path.suffix}", str(path)))


@pytest.mark.parametrize(("kind", "package", "text"), [("gx", "great_expectations", json.dumps(GX)),
                                                      ("pandera", "pandera.pandas", PANDERA)])  # fmt: skip
def test_without_the_tool_it_is_said_what_to_install(workspace, write, monkeypatch, kind, package, text):
    pytest.importorskip("pandas")
    version = write(pa.table({"age": [1.5, 2.5]}))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"tidemill\[{kind}\]"):
        check_foreign(workspace, version.ref, ForeignSuite(kind, text, "s"))


def test_without_pandas_it_is_said_what_to_install(workspace, write, monkeypatch):
    version = write(pa.table({"age": [1.5, 2.5]}))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="dataframes"):
        check_foreign(workspace, version.ref, ForeignSuite("gx", json.dumps(GX), "s"))


def test_columns_have_the_types_that_they_came_with(workspace, write):
    pytest.importorskip("pandas")
    rows = 40
    version = write(
        pa.table(
            {
                "id": pa.array(range(1000, 1000 + rows)),
                "code": [f"{i:03d}" for i in range(rows)],
                "count": pa.array([i % 7 for i in range(rows)]),
                "gaps": pa.array([None if i == 3 else i % 7 for i in range(rows)]),
                "half": [i / 2 for i in range(rows)],
                "ok": [i % 2 == 0 for i in range(rows)],
                "y": pa.array([i % 5 for i in range(rows)]),
            }
        ),
        target="y",
    )
    frame = frame_of(workspace, version.ref)
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds["id"] == kinds["count"] == kinds["y"] == "int64"
    assert kinds["gaps"] == kinds["half"] == "float64"
    assert kinds["ok"] == "bool"
    assert kinds["code"] in ("str", "object", "category")
    assert frame["code"].tolist()[7] == "007"
    assert frame["id"].tolist() == list(range(1000, 1000 + rows))
    assert len(frame) == rows
