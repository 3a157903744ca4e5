"""Between a search and its trainings: points come once, what is no point harms nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tidemill.search.signals import CurvePoint, Switchboard


def test_points_come_once_and_of_their_trial_alone(tmp_path: Path) -> None:
    board = Switchboard(tmp_path / "signals")
    one, other = board.line(1), board.line(2)
    assert board.news(1) == []
    one.tell(10, 1.0, 0.5)
    other.tell(5, 0.5, 0.9)
    one.tell(20, 2.0, 0.25)
    assert board.news(1) == [CurvePoint(10, 1.0, 0.5), CurvePoint(20, 2.0, 0.25)]
    assert board.news(1) == []
    one.tell(30, 3.0, 0.125)
    assert board.news(1) == [CurvePoint(30, 3.0, 0.125)]
    assert board.news(2) == [CurvePoint(5, 0.5, 0.9)]


def test_a_line_that_is_half_written_waits_for_its_end(tmp_path: Path) -> None:
    board = Switchboard(tmp_path / "signals")
    file = tmp_path / "signals" / "1.points"
    file.write_bytes(b"[10, 1.0, 0.5]\n[20, 2.")
    assert board.news(1) == [CurvePoint(10, 1.0, 0.5)]
    assert board.news(1) == []
    with file.open("ab") as more:
        more.write(b"0, 0.25]\n")
    assert board.news(1) == [CurvePoint(20, 2.0, 0.25)]


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"null", b"7", b"[1, 2]", b"[1, 2, 3, 4]", b'["a", 1, 2]', b"[1, 2, NaN]", b"[Infinity, 1, 2]",
     b"[1, 2, 3", b"[10, 1.0[20, 2.0, 0.5]", b"\xff\x00", b"[" * 100_000, b"[" + b"9" * 5000 + b", 1, 2]"],
)  # fmt: skip
def test_what_is_no_point_is_left_out(tmp_path: Path, line: bytes) -> None:
    board = Switchboard(tmp_path / "signals")
    (tmp_path / "signals" / "1.points").write_bytes(line + b"\n[20, 2.0, 0.25]\n")
    assert board.news(1) == [CurvePoint(20, 2.0, 0.25)]


def test_a_line_without_end_is_not_read_again_and_again(tmp_path: Path) -> None:
    board = Switchboard(tmp_path / "signals")
    (tmp_path / "signals" / "1.points").write_bytes(b"x" * 2_000_000 + b"\n[20, 2.0, 0.25]\n")
    found = [point for _ in range(20) for point in board.news(1)]
    assert found == [CurvePoint(20, 2.0, 0.25)]


def test_a_folder_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    board = Switchboard(tmp_path / "signals")
    line = board.line(1)
    (tmp_path / "signals").rmdir()
    line.tell(1, 1.0, 1.0)
    assert not line.asked_to_end()
    assert board.news(1) == []


def test_a_training_is_asked_to_end_and_the_next_search_begins_anew(tmp_path: Path) -> None:
    board = Switchboard(tmp_path / "signals")
    line = board.line(1)
    line.tell(1, 1.0, np.float64(0.5))
    assert not line.asked_to_end()
    board.ask_to_end()
    assert line.asked_to_end()
    board = Switchboard(tmp_path / "signals")
    assert not board.line(1).asked_to_end()
    assert board.news(1) == []


def test_sentences_come_once_and_beside_the_points(tmp_path: Path) -> None:
    board = Switchboard(tmp_path / "s")
    board.line(3).say("The disk is full.\nReally.")
    board.line(3).tell(1, 0.5, 0.25)
    assert board.said(3) == ["The disk is full.\nReally."]
    assert board.news(3) == [CurvePoint(1, 0.5, 0.25)]
    assert board.said(3) == board.news(3) == board.said(4) == []
