"""What nets say of lines is kept to three digits, and joined as a product of experts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tidemill.core.errors import InternalError
from tidemill.core.frames import Frames, joined, read_together
from tidemill.core.pack import pack, unpack

ALPHABET = "ab"


def logs_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True)))


def lines() -> st.SearchStrategy[list[NDArray[np.float64]]]:
    return st.lists(
        st.integers(0, 5).flatmap(lambda n: arrays(np.float64, (n, 3), elements=st.floats(-8, 8))).map(logs_of),
        min_size=1, max_size=6,
    )  # fmt: skip


@given(lines())
def test_what_is_kept_comes_back_to_three_digits(said: list[NDArray[np.float64]]) -> None:
    back = Frames.from_tree(unpack(pack(Frames.of(said, ALPHABET).to_tree())))
    assert len(back) == len(said)
    assert back.beside(Frames.of(said, ALPHABET))
    for line, known in zip(back.lines(), said, strict=True):
        assert line.shape == known.shape
        assert np.allclose(line, known, rtol=1e-3, atol=1e-6)


@given(lines(), st.floats(0.0, 1.0))
def test_a_net_beside_itself_says_the_same(said: list[NDArray[np.float64]], share: float) -> None:
    frames = Frames.of(said, ALPHABET)
    seen = []
    for places, logs in read_together([frames, frames], [share, 1 - share]):
        seen += places.tolist()
        for place, line in zip(places, logs, strict=True):
            assert np.allclose(line, said[place], atol=0.02)
            assert np.allclose(np.exp(line).sum(axis=1), 1.0, atol=1e-5)
    assert sorted(seen) == list(range(len(said)))


def test_the_order_of_nets_is_of_no_account() -> None:
    rng = np.random.default_rng(0)
    several = [logs_of(rng.normal(size=(4, 3))) for _ in range(3)]
    weights = [0.2, 0.3, 0.5]
    assert np.allclose(joined(several, weights), joined(several[::-1], weights[::-1]), atol=1e-6)


def test_two_who_doubt_are_outvoted_by_one_who_is_sure() -> None:
    sure, doubting = np.log([[0.98, 0.01, 0.01]]), np.log([[0.3, 0.4, 0.3]])
    assert joined([sure, doubting, doubting], [1 / 3] * 3).argmax() == 0


def test_nets_of_other_characters_or_steps_are_not_joined() -> None:
    one = Frames.of([np.log(np.full((2, 3), 1 / 3))], "ab")
    for other in (Frames.of([np.log(np.full((3, 3), 1 / 3))], "ab"), Frames.of([np.log(np.full((2, 3), 1 / 3))], "ac")):
        assert not one.beside(other)
        with pytest.raises(InternalError, match="can't be joined"):
            list(read_together([one, other], [0.5, 0.5]))
    with pytest.raises(InternalError, match="2 nets, but 1 weights"):
        joined([np.zeros((1, 2))] * 2, [1.0])
