"""CSV and its kin: what was written is read, and what can't be read is told with its place."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError
from tidemill.data.ingest import read
from tidemill.data.ingest.delimited import sniff

# No carriage return: readers of text files are free to turn it into a line feed.
cell = st.text(st.characters(codec="utf-8", exclude_characters="\r\0\ufeff"), max_size=12)


@st.composite
def tables(draw):
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1, max_size=8))
    return [f"c{i}" for i in range(width)], rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("csv")


@given(
    tables(),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(deadline=None)
def test_what_is_written_is_read(folder, table, delimiter, quoting, newline):
    names, rows = table
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=newline)
    writer.writerow(names)
    writer.writerows(rows)
    path = folder / "t.csv"
    path.write_bytes(out.getvalue().encode())
    assume(sniff(out.getvalue()) == (delimiter if len(names) > 1 else ","))  # cells full of another delimiter
    got = read(path)
    assert got.table.column_names == names
    assert [list(r.values()) for r in got.table.to_pylist()] == rows


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_encodings(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes("name,city\nZoë,Zürich\nJosé,Málaga\n".encode(encoding))
    got = read(path)
    assert got.table.to_pylist() == [{"name": "Zoë", "city": "Zürich"}, {"name": "José", "city": "Málaga"}]
    assert bool(got.notices) == (encoding not in ("utf-8", "utf-8-sig", "utf-16", "utf-32"))


def test_other_alphabets_are_guessed(tmp_path):
    path = tmp_path / "t.csv"
    text = "город,улица\n" + "Москва,Большая Дмитровка\nСанкт-Петербург,Невский проспект\n" * 20
    path.write_bytes(text.encode("cp1251"))
    got = read(path)
    assert got.table.column_names == ["город", "улица"]
    assert "cp1251" in got.notices[0]


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)]
)
def test_compression(tmp_path, suffix, pack):
    data = b"a,b\n1,2\n3,4\n"
    path = tmp_path / f"t.csv.{suffix}"
    path.write_bytes(pack(data))
    assert read(path).table.to_pydict() == {"a": ["1", "3"], "b": ["2", "4"]}
    path.write_bytes(pack(data * 10_000)[:-5])
    with pytest.raises(DataError, match="damaged or cut off"):
        read(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(tmp_path, delimiter):
    path = tmp_path / "t.txt"
    path.write_text(f'a{delimiter}b\n"x{delimiter}y"{delimiter}1\nz{delimiter}2\n')
    assert read(path).table.to_pydict() == {"a": [f"x{delimiter}y", "z"], "b": ["1", "2"]}


def test_commas_as_decimal_marks_do_not_confuse(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a;b\n1,5;2,5\n3,5;4,5\n")
    assert read(path).table.column_names == ["a", "b"]


def test_one_column_of_texts_with_commas(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('text\n"well, yes"\nno\n"a, b, c"\n')
    assert read(path).table.to_pydict() == {"text": ["well, yes", "no", "a, b, c"]}


def test_a_cell_of_a_megabyte(tmp_path):
    path = tmp_path / "t.csv"
    big = "word, and \n" * 120_000
    path.write_text(f'a,b\n"{big}",1\nx,2\n')
    assert read(path).table["a"].to_pylist() == [big, "x"]


def test_names_are_trimmed_and_made_up_where_absent(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(", a ,b\n1,2,3\n")
    assert read(path).table.column_names == ["column_1", "a", "b"]


def test_a_missing_header_is_doubted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("1,2\n3,4\n")
    assert "is the header missing" in read(path).notices[0]


def test_cells_stay_as_they_stand(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n 007 ,NA\n,null\n")
    assert read(path).table.to_pydict() == {"a": [" 007 ", ""], "b": ["NA", "null"]}


# ------------------------------------------------------------------------------------------------------- bad input


def refuse(path, *parts):
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    for part in parts:
        assert part in message, message
    assert caught.value.exit_code == 2


def test_missing_file_offers_the_nearest(tmp_path):
    (tmp_path / "train.csv").write_text("a\n1\n")
    refuse(tmp_path / "trian.csv", "no such file", "'train.csv'")
    refuse(tmp_path / "nowhere" / "t.csv", "no such file", "does not exist")


def test_folder(tmp_path):
    refuse(tmp_path, "folder")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf\n", gzip.compress(b"", mtime=0)])
def test_empty_file(tmp_path, data):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    refuse(path, "empty")


@pytest.mark.parametrize("data", ["a,b", "a,b\n", "a,b\r\n\r\n"])
def test_header_only(tmp_path, data):
    path = tmp_path / "t.csv"
    path.write_text(data)
    refuse(path, "no rows")


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("a,b\n1,2\n3\n", 3, 1),
        ("a,b\n1,2\n3,4,5\n6,7\n", 3, 3),
        ('a,b\n"x\ny",2\n\n3,4,5\n', 5, 3),
        ("\n\na,b\n1,2\n1,2\n1,2\n1,2\n3\n", 8, 1),
        ("a,b\r\n1,2\r\n3\r\n", 3, 1),
    ],
)
def test_ragged_rows_are_told_by_line(tmp_path, text, line, found):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    refuse(path, f"Line {line} has {found} fields where the header has 2")


def test_a_quote_that_is_never_closed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,2\n"x,3\n4,5\n')
    refuse(path, "line 3")


@pytest.mark.parametrize(
    ("data", "offset"),
    [(b"a,b\n1,\xff\xfe\x81\n", 6), ("a,b\nä,ö\n".encode() + b"\xe4,1\n", 10), (b"a,b\n1,\x81\x8d\n", 6)],
)
def test_undecodable_bytes_are_told_by_offset(tmp_path, data, offset):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    refuse(path, f"offset {offset}")


def test_a_utf16_file_that_is_cut_off(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\n1,2\n".encode("utf-16")[:-1])
    refuse(path, "offset")


def test_binary_junk(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(bytes(range(256)) * 10)
    refuse(path, "not a text file", "offset 0")


def test_duplicate_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b, a\n1,2,3\n")
    refuse(path, "'a' in columns 1, 3")


# --------------------------------------------------------------------------------------------------- larger than memory


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_what_does_not_fit_is_sampled_evenly(tmp_path, encoding):
    path = tmp_path / "t.csv.gz"
    rows = 60_000
    text = "row,text\n" + "".join(f'{i},"é, {i}"\n' for i in range(rows))
    path.write_bytes(gzip.compress(text.encode(encoding), 1))
    got = read(path, memory_bytes=800_000)
    assert got.rows_total == rows
    assert f"of {rows:,} rows" in got.notices[-1]
    assert 1000 < got.rows < rows / 2
    assert got.table.nbytes <= 200_000
    kept = [int(v) for v in got.table["row"].to_pylist()]
    assert kept == sorted(set(kept))
    assert abs(sum(kept) / len(kept) / rows - 0.5) < 0.03
    assert got.table["text"][0].as_py() == f"é, {kept[0]}"
    assert read(path, memory_bytes=800_000).table.equals(got.table)


def test_a_ragged_row_in_a_file_that_does_not_fit(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 100_000 + "3\n")
    with pytest.raises(DataError, match="1 fields where the header has 2"):
        read(path, memory_bytes=100_000)


def test_max_rows_is_a_uniform_sample(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "\n".join(map(str, range(1000))) + "\n")
    got = read(path, max_rows=100)
    assert got.rows == 100
    assert got.rows_total == 1000
    assert "100 of 1,000" in got.notices[0]
