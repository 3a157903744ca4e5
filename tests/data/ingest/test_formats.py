"""Every format and every table in memory gives the same rows."""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.data.coerce import encode_target, to_columns
from tidemill.data.infer import infer_schema, infer_task
from tidemill.data.ingest import RawTable, read

MOMENTS = ["1990-05-17", "1993-12-01", None, "1976-02-29T06:30"]
ROWS = {
    "age": [31, None, 28, 45] * 5,
    "height": [1.75, 1.8, None, 1.62] * 5,
    "member": [True, False, True, None] * 5,
    "city": ["Ulm", "Köln, am Rhein", "Ulm", None] * 5,
    "born": [moment and dt.datetime.fromisoformat(moment) for moment in MOMENTS] * 5,
    "y": ["a", "b", "b", "a"] * 5,
}
TABLE = pa.table(ROWS)


def as_csv(path):
    lines = [",".join(ROWS)]
    for row in zip(*ROWS.values(), strict=True):
        cells = ["" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in row]
        lines.append(",".join(f'"{c}"' if "," in c else c for c in cells))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def as_jsonl(path):
    path.write_text("\n".join(json.dumps(r, default=str) for r in TABLE.to_pylist()), encoding="utf-8")
    return path


def as_json(path):
    path.write_text(json.dumps(TABLE.to_pylist(), default=str), encoding="utf-8")
    return path


def as_excel(path):
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(list(ROWS))
    for row in zip(*ROWS.values(), strict=True):
        book.active.append(list(row))
    book.save(path)
    return path


def as_stream(path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, TABLE.schema) as out:
        out.write_table(TABLE)
    return path


def as_sqlite(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE people (age INT, height REAL, member TEXT, city TEXT, born TEXT, y TEXT)")
        rows = [
            tuple(str(v) if isinstance(v, (bool, dt.datetime)) else v for v in row)
            for row in zip(*ROWS.values(), strict=True)
        ]
        connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    return path


def as_duckdb(path):
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(path)) as connection:
        connection.register("given", TABLE)
        connection.execute("CREATE TABLE people AS SELECT * FROM given")
    return path


def written(writer):
    def write(path):
        writer(TABLE, path)
        return path

    return write


FILES = {
    "t.csv": as_csv,
    "t.parquet": written(pq.write_table),
    "t.feather": written(feather.write_feather),
    "t.arrows": as_stream,
    "t.jsonl": as_jsonl,
    "t.json": as_json,
    "t.xlsx": as_excel,
    "t.sqlite": as_sqlite,
    "t.duckdb": as_duckdb,
}


def pandas_frame():
    return pytest.importorskip("pandas").DataFrame(ROWS)


def pandas_indexed():
    return pandas_frame().set_index(np.arange(5, 25)[::-1])


def pandas_categories():
    frame = pandas_frame()
    frame["city"] = frame["city"].astype("category")
    return frame


def polars_frame():
    return pytest.importorskip("polars").DataFrame(ROWS)


def polars_lazy():
    return polars_frame().lazy()


def structured():
    kinds = [("age", "f8"), ("height", "f8"), ("member", "O"), ("city", "O"), ("born", "M8[s]"), ("y", "U1")]
    return np.array(list(zip(*ROWS.values(), strict=True)), dtype=kinds)


FRAMES = [pandas_frame, pandas_indexed, pandas_categories, polars_frame, polars_lazy, structured]


@pytest.fixture(scope="module")
def expected():
    return physical(read(TABLE))


def physical(raw):
    assert isinstance(raw, RawTable)
    schema = infer_schema(raw, "y")
    task = infer_task(raw, schema)
    columns = to_columns(raw, schema)
    columns["y"] = encode_target(raw, task)
    types = {c.name: c.type.value for c in schema}
    return types, columns


def same(got, expected):
    assert got[0] == expected[0]
    assert list(got[1]) == list(expected[1])
    for name in got[1]:
        np.testing.assert_array_equal(got[1][name], expected[1][name])


@pytest.mark.parametrize("name", list(FILES))
def test_files(tmp_path, expected, name):
    same(physical(read(FILES[name](tmp_path / name))), expected)


@pytest.mark.parametrize("make", FRAMES)
def test_frames(expected, make):
    same(physical(read(make())), expected)


def test_dicts(expected):
    same(physical(read(ROWS)), expected)


def test_a_file_is_known_by_its_content(tmp_path, expected):
    path = FILES["t.parquet"](tmp_path / "t.parquet")
    same(physical(read(path.rename(tmp_path / "t.csv"))), expected)


def test_frames_of_mixed_cells():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, "x", None, 2.5], 7: [b"x", "y", True, float("nan")]})
    assert read(frame).table.to_pydict() == {"a": ["1", "x", None, "2.5"], "7": ["x", "y", "true", None]}


def test_categoricals_of_numbers_are_categories():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": pandas.Categorical([1, 2, None]), "b": [1.5, 2, 3]})
    schema = infer_schema(read(frame))
    assert schema["a"].type.value == "category"
    assert to_columns(read({"a": ["1", "2.0"], "b": [0, 0]}), schema)["a"].tolist() == ["1", "2"]


def test_duplicate_names_in_a_frame():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match="a"):
        read(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_neither_pandas_nor_polars_is_needed(tmp_path):
    path = as_csv(tmp_path / "t.csv")
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('pandas', 'polars', 'duckdb', 'psycopg'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from tidemill.data.ingest import read; from tidemill.data.infer import infer_schema\n"
        f"read({{'a': [1]}}); infer_schema(read({str(path)!r}), 'y')\n"
        "print({'sklearn', 'openpyxl', 'charset_normalizer', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("bad", [object(), 3, np.zeros(3), {"a": 1}, {"a": [1], "b": [1, 2]}, {}, np.zeros((0, 2))])
def test_what_is_no_table_is_refused(bad):
    with pytest.raises(DataError):
        read(bad)


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.xlsx", "t.sqlite", "t.arrows"])
def test_damaged_files_are_refused(tmp_path, name):
    path = FILES[name](tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=name):
        read(path)


@pytest.mark.parametrize("name", ["t.parquet", "t.xls"])
def test_files_with_a_wrong_name_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=name):
        read(path)


def test_json_lines_say_which_line_is_wrong(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n\n{"a": }\n')
    with pytest.raises(DataError, match="Line 3"):
        read(path)
    path.write_text('{"a": 1}\n[1]\n')
    with pytest.raises(DataError, match="Line 2 is an array"):
        read(path)


@pytest.mark.parametrize("cells", [[0.5, True], [True, 0.5]])
def test_true_among_numbers_is_text_wherever_it_stands(cells):
    assert read({"x": cells}).table["x"].to_pylist() == [{True: "true", 0.5: "0.5"}[c] for c in cells]


def test_json_cells_of_mixed_types_become_text(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1, "b": [1]}\n{"a": "x"}\n{"c": null}\n')
    got = read(path).table
    assert got["a"].to_pylist() == ["1", "x", None]
    assert infer_schema(got)["b"].type.value == "ignored"


def test_excel_sheets(tmp_path):
    import openpyxl

    path = tmp_path / "t.xlsx"
    book = openpyxl.Workbook()
    book.active.title = "first"
    book.active.append(["a", None])
    book.active.append([1, 2, None])
    book.create_sheet("second").append(["b"])
    book["second"].append(["x"])
    book.save(path)
    got = read(path)
    assert got.table.to_pydict() == {"a": [1], "column_2": [2]}
    assert "first" in got.notices[0]
    assert read(path, sheet="second").table.to_pydict() == {"b": ["x"]}
    with pytest.raises(NotFoundError, match="'second'"):
        read(path, sheet="secnd")


def test_queries(tmp_path):
    path = as_sqlite(tmp_path / "t.db")
    assert read(f"sqlite:///{path}", query="SELECT age + 1 AS next FROM people LIMIT 2").table.to_pydict() == {
        "next": [32, None]
    }
    assert read(path, query="people").rows == 20
    with pytest.raises(NotFoundError, match="'people'"):
        read(path, query="peple")
    with pytest.raises(DataError, match="SQLite says"):
        read(path, query="SELECT nothing FROM people")
    with pytest.raises(DataError, match=r"read-?only"):
        read(path, query="DELETE FROM people WHERE age = 31")
    with pytest.raises(OptionError, match="needs a database"):
        read(as_csv(tmp_path / "t.csv"), query="SELECT 1")
    with pytest.raises(DataError, match="no such file"):
        read("sqlite:///" + str(tmp_path / "none.db"), query="SELECT 1")


def test_duckdb_reads_files_by_query(tmp_path):
    pytest.importorskip("duckdb")
    path = FILES["t.parquet"](tmp_path / "t.parquet")
    assert read("duckdb://", query=f"SELECT count(*) AS n FROM '{path}'").table.to_pydict() == {"n": [20]}
    with pytest.raises(DataError, match="DuckDB says"):
        read("duckdb://", query="SELECT * FROM nothing")


def test_postgresql_reads_and_hides_the_password():
    url = os.environ.get("TIDEMILL_TEST_POSTGRES")
    if not url:
        pytest.skip("no PostgreSQL server: TIDEMILL_TEST_POSTGRES is not set")
    pytest.importorskip("psycopg")
    got = read(url, query="SELECT i AS a, i::text AS b, NULL AS c FROM generate_series(1, 3) AS i")
    assert got.table.to_pydict() == {"a": [1, 2, 3], "b": ["1", "2", "3"], "c": [None] * 3}
    with pytest.raises(DataError, match="PostgreSQL says"):
        read(url, query="SELECT * FROM nothing_there")


def test_a_password_is_never_shown():
    pytest.importorskip("psycopg")
    with pytest.raises(DataError) as caught:
        read("postgresql://me:s3cret@127.0.0.1:9/none?connect_timeout=1", query="SELECT 1")
    assert "s3cret" not in str(caught.value)


def test_parquet_that_does_not_fit_is_sampled(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"row": np.arange(200_000)}), path)
    got = read(path, memory_bytes=400_000)
    assert got.rows_total == 200_000
    assert got.table.nbytes <= 200_000
    assert abs(np.mean(got.table["row"].to_numpy()) / 200_000 - 0.5) < 0.03
    assert "uniform sample" in got.notices[0]
