"""Tables that somebody sent: whole or not at all, and no word about where they lay."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError
from tidemill.data.ingest.sent import ARROW, ARROW_FILE, CSV, FORMS, NDJSON, PARQUET, TSV, mapped, of_rows, unpack

ROWS = [{"age": 31 + i, "city": "Ulm" if i % 2 else None} for i in range(10)]
TABLE = pa.Table.from_pylist(ROWS)
MOST = 1 << 20


def as_bytes(form: str, table: pa.Table = TABLE) -> bytes:
    sink = io.BytesIO()
    if form in (CSV, TSV):
        mark = "," if form == CSV else "\t"
        lines = [mark.join(table.column_names), *(f"{r['age']}{mark}{r['city'] or ''}" for r in table.to_pylist())]
        return "\n".join(lines).encode()
    if form == NDJSON:
        return "\n".join(json.dumps(r) for r in table.to_pylist()).encode()
    if form == PARQUET:
        pq.write_table(table, sink)
    elif form == ARROW_FILE:
        feather.write_feather(table, sink)  # compressed
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


def run(folder: Path, data: bytes, form: str, most: int = MOST) -> dict[str, Any]:
    path = folder / "sent"
    path.write_bytes(data)
    return unpack(str(path), form, str(folder / "out.arrow"), most)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rows(tmp_path: Path, form: str) -> None:
    assert run(tmp_path, as_bytes(form), form) == {"notices": [], "fits": True}
    raw = mapped(tmp_path / "out.arrow", [])
    (tmp_path / "out.arrow").unlink()
    found = [{"age": int(r["age"]), "city": r["city"] or None} for r in raw.table.to_pylist()]
    assert found == ROWS
    assert raw.source == "the body"


@pytest.mark.parametrize("form", [PARQUET, ARROW])
def test_values_in_a_dictionary_are_written_out_and_counted(tmp_path: Path, form: str) -> None:
    table = pa.table({"word": pa.array(["x" * 1000] * 5000).dictionary_encode()})
    assert table.nbytes < 100_000
    assert run(tmp_path, as_bytes(form, table), form) == {"notices": [], "fits": False}
    assert not (tmp_path / "out.arrow").exists()
    assert run(tmp_path, as_bytes(form, table), form, 8 << 20)["fits"]
    assert mapped(tmp_path / "out.arrow", []).table.schema.field("word").type == pa.string()


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (CSV, gzip.compress(b"a,b\n" + b"1,2\n" * 500_000)),
        (NDJSON, gzip.compress(b'{"a": 1, "b": 2}\n' * 100_000)),
        (PARQUET, None),
    ],
)
def test_what_unfolds_to_too_much_is_no_sample(tmp_path: Path, form: str, data: bytes | None) -> None:
    sent = as_bytes(PARQUET, pa.table({"x": [0.0] * 1_000_000})) if data is None else data
    assert len(sent) < 100_000
    assert run(tmp_path, sent, form) == {"notices": [], "fits": False}


@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FORMS), st.binary(max_size=60), st.integers(0, 400), st.booleans())
def test_strange_bytes_are_rows_or_an_error_without_a_path(
    tmp_path: Path, form: str, noise: bytes, at: int, whole: bool
) -> None:
    good = as_bytes(form)
    data = noise if whole else good[:at] + noise + good[at + len(noise) :]
    said = ""
    try:
        run(tmp_path, data, form)
    except DataError as error:
        said = str(error)
    assert str(tmp_path) not in said
    assert not said or "the body" in said


def test_texts_that_are_none_are_found(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(DataError, match="can't be read"):
        run(tmp_path, as_bytes(ARROW, pa.table({"a": bad})), ARROW)


CELLS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
)


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=3), CELLS, max_size=3), max_size=4))
def test_rows_in_json_are_a_table_or_an_error(rows: list[dict[str, Any]]) -> None:
    where = None
    try:
        found = of_rows(rows).rows
    except DataError as error:
        where = error.where
    assert where == "the body" if where is not None else found == len(rows)
