"""Texts travel in plain arrays and come back as they were."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tidemill.data.texts.packed import PackedTexts, read_texts, write_texts

ANY = st.text(st.characters(codec="utf-8"))


@given(st.lists(ANY))
def test_packing_and_unpacking_is_nothing(texts: list[str]) -> None:
    assert PackedTexts.of(texts).unpack().tolist() == texts


def test_they_lie_in_files_without_pickle(tmp_path: Path) -> None:
    place = write_texts(["", "a\0b", "naïve 🙂"], tmp_path / "x")
    assert read_texts(place).tolist() == ["", "a\0b", "naïve 🙂"]
    assert read_texts(write_texts([], tmp_path / "none")).tolist() == []


def test_what_utf8_can_t_say_becomes_a_question_mark() -> None:
    assert PackedTexts.of(["a\ud800b"]).unpack().tolist() == ["a?b"]
