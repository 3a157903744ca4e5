"""Transcripts as they are learned and compared; lines as plain files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tidemill.data.images.lines import read_lines, write_lines
from tidemill.data.images.transcripts import transcripts_of


def test_marks_are_composed_and_space_around_is_no_part() -> None:
    column = pa.chunked_array([["a\u0308", None], ["  two words\t", "x\r\ny", "0012", ""]])
    assert transcripts_of(column).tolist() == ["\u00e4", "", "two words", "x y", "0012", ""]


def test_numbers_and_categories_are_texts() -> None:
    assert transcripts_of(pa.chunked_array([[12, None]])).tolist() == ["12", ""]
    assert transcripts_of(pa.chunked_array([pa.array(["a", "b", "a"]).dictionary_encode()])).tolist() == ["a", "b", "a"]


def test_lines_come_back_from_files_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = np.empty(5, dtype=object)
    for i, width in enumerate((3, 1, 40, 3, 16)):
        lines[i] = rng.integers(0, 256, (8, width)).astype(np.uint8)
    found = read_lines(write_lines(lines, tmp_path / "x"))
    assert [line.shape for line in found] == [line.shape for line in lines]
    assert all(np.array_equal(a, b) for a, b in zip(found, lines, strict=True))
