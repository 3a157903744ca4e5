"""Logs by offset."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.jobs.queue.folders import log_path, read_log


@given(st.text(max_size=60), st.integers(4, 40))
def test_pieces_of_a_log_make_the_whole_and_split_no_character(
    tmp_path_factory: pytest.TempPathFactory, text: str, limit: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    pieces, offset = [], 0
    while True:
        piece = read_log(path, offset=offset, limit=limit)
        pieces.append(piece.text)
        assert piece.offset > offset or piece.offset == piece.size
        offset = piece.offset
        if offset == piece.size:
            break
    assert "".join(pieces) == path.read_bytes().decode("utf-8", errors="replace")


def test_bytes_that_are_no_text_are_replaced_and_do_not_stop_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"\xff\x80\x80\x80\x80ab")
    first = read_log(path, limit=4)
    rest = read_log(path, offset=first.offset)
    assert first.offset > 0
    assert (first.text + rest.text).endswith("ab")


def test_a_negative_offset_counts_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("0123456789", encoding="ascii")
    assert read_log(path, offset=-3).text == "789"
    assert read_log(path, offset=-99).text == "0123456789"
    assert read_log(path, offset=99).text == ""


def test_a_log_that_is_not_here_says_where_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="on the machine that ran it"):
        read_log(log_path(tmp_path, 1, 1))
    with pytest.raises(OptionError, match="At least 4"):
        read_log(tmp_path / "a", limit=3)
