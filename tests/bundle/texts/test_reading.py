"""Laws of reading: every text is read once, alone, and by what is listed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.bundle.runner.texts.reading import (
    MOST_CHARACTERS,
    PADDING,
    batches,
    grams_of,
    open_tokenizer,
    read_grams,
    read_tokens,
)
from tidemill.bundle.texts.readers import Reader

ANY = st.lists(st.text(max_size=60), max_size=80)
KINDS = st.sampled_from([("words", 1, 2), ("characters", 3, 5)])


@given(ANY, st.integers(1, 40))
def test_batches_hold_every_text_once_and_the_longer_ones_later(texts: list[str], size: int) -> None:
    found = list(batches(texts, size))
    assert sorted(place for places in found for place in places) == list(range(len(texts)))
    assert all(len(places) <= size for places in found)
    lengths = [len(texts[place]) for places in found for place in places]
    assert lengths == sorted(lengths)


@given(ANY, KINDS)
def test_pieces_are_counted_as_they_stand_there(texts: list[str], how: tuple[str, int, int]) -> None:
    kind, low, high = how
    known = sorted({gram for text in texts for gram in grams_of(text, kind, low, high)})[::2]
    places = {gram: place for place, gram in enumerate(known)}
    grams, counts = read_grams(places, kind, low, high, texts)
    assert grams.dtype == np.int64
    assert counts.dtype == np.float32
    for text, row, often in zip(texts, grams, counts, strict=True):
        wanted = [gram for gram in grams_of(text, kind, low, high) if gram in places]
        found = {known[p]: n for p, n in zip(row, often, strict=True) if p != PADDING}
        assert found == {gram: wanted.count(gram) for gram in wanted}
        assert (often[row == PADDING] == 0).all()


@given(st.text(max_size=50))
def test_runs_of_characters_stay_within_words(text: str) -> None:
    for gram in grams_of(text, "characters", 2, 4):
        assert not gram.strip() or gram.strip() in text.lower()


def test_a_very_long_text_is_cut() -> None:
    assert grams_of("a " * MOST_CHARACTERS, "words", 1, 1) == ["a"] * (MOST_CHARACTERS // 2)


def test_a_key_is_content_and_where_it_cuts() -> None:
    one, two = Reader.of_tokens("{}", 8), Reader.of_tokens("{}", 16)
    assert one.key != two.key
    assert one.file == two.file
    assert one.key == Reader.of_tokens("{}", 8).key


def test_tokens_are_filled_up_and_cut() -> None:
    pytest.importorskip("tokenizers", reason="reads tokens")
    from tests.models.text.made import tokenizer_json

    tokenizer = open_tokenizer(tokenizer_json().encode(), 6)
    found = read_tokens(tokenizer, ["fox", "", "the fox " * 30, "unheard"])
    assert found.shape == (4, 6)
    assert found.dtype == np.int64
    assert found[0].tolist()[3:] == [PADDING] * 3
    assert (found[1] >= 0).sum() == 2, "an empty text has its two marks"
    assert found[2, -1] == 3, "a cut text still ends as a text ends"
    assert found[3].tolist()[:3] == [2, 1, 3]
