"""Whether neighbours know of each other."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.core import transcripts
from tidemill.models.recognition.neighbours import independent

WORDS = ["the", "tide", "turns", "at", "noon", "and", "the", "mill", "goes", "on", "until", "it", "ebbs", "away"]


def drawn(letters: str, length: int, count: int, rng: np.random.Generator) -> list[str]:
    return ["".join(rng.choice(list(letters), length)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_characters_drawn_one_by_one_are_independent(seed: int) -> None:
    texts = drawn("abcdefghijklmnopqrstuvwxyz0123456789", 8, 300, np.random.default_rng(seed))
    assert independent(transcripts.to_codes(texts))


@pytest.mark.parametrize("seed", range(5))
def test_a_format_is_no_dependence(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [a + b for a, b in zip(drawn("ABCDEF", 3, 300, rng), drawn("0123456789", 5, 300, rng), strict=True)]
    assert independent(transcripts.to_codes(texts))


@pytest.mark.parametrize("count", [30, 300])
def test_words_are_dependent(count: int) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]
    assert not independent(transcripts.to_codes(texts))


def test_lengths_that_differ_are_no_dependence() -> None:
    rng = np.random.default_rng(1)
    texts = [drawn("0123456789", int(rng.integers(1, 12)), 1, rng)[0] for _ in range(300)]
    assert independent(transcripts.to_codes(texts))


def test_lines_of_letters_beside_lines_of_digits_are_no_language() -> None:
    rng = np.random.default_rng(2)
    kinds = ["abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijklmnopqrstuvwxyz"]
    texts = [drawn(kinds[int(rng.integers(2))], 8, 1, rng)[0] for _ in range(1000)]
    assert independent(transcripts.to_codes(texts))


@pytest.mark.parametrize("texts", [[], [""], ["a", "b"], ["ab"] * 20])
def test_too_few_pairs_tell_nothing(texts: list[str]) -> None:
    assert not independent(transcripts.to_codes(texts))
