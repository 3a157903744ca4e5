"""Rows are the same exactly where their values are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidemill.data.versions.identity import groups, row_ids

WORDS = st.one_of(st.none(), st.text(max_size=20), st.text("ab\0", max_size=30), st.text("ab", min_size=120))


@given(st.lists(WORDS, min_size=1, max_size=40))
def test_texts_are_the_same_row_where_they_are_equal(words: list[str | None]) -> None:
    codes, count = groups(row_ids(pa.table({"w": pa.array(words, pa.string())})))
    assert count == len(set(words))
    assert len({(word, int(code)) for word, code in zip(words, codes, strict=True)}) == count


@given(st.lists(WORDS, min_size=2, max_size=30), st.integers(0, 5))
def test_a_hash_depends_on_nothing_but_the_value(words: list[str | None], cut: int) -> None:
    whole = pa.array(words, pa.string())
    parts = pa.chunked_array([whole.slice(0, cut), whole.slice(cut)], pa.string())
    ids = row_ids(pa.table({"w": whole}))
    assert np.array_equal(ids, row_ids(pa.table({"w": parts})))
    assert np.array_equal(ids[1:], row_ids(pa.table({"w": whole.slice(1)})))
    assert np.array_equal(ids, row_ids(pa.table({"w": whole.cast(pa.large_string())})))


def test_hashes_of_near_words_spread_over_all_bits() -> None:
    ids = row_ids(pa.table({"w": [f"p{i}" for i in range(20_000)]}))
    for lane in (0, 1):
        bits = np.unpackbits(ids[:, lane].copy().view(np.uint8)).reshape(-1, 64).mean(axis=0)
        assert np.all(np.abs(bits - 0.5) < 0.02)
        assert len(np.unique(ids[:, lane])) == 20_000
