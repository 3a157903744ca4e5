"""Best-path decoding says the same in numpy and in the graph."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import session
from tidemill.bundle.lines.decode import BLANK, greedy, write_greedy

ALPHABET = "aß€𝄞 "


@pytest.fixture(scope="module")
def run() -> Any:
    graph = GraphBuilder()
    frames = graph.input("frames", np.float32, ["N", "T", len(ALPHABET) + 1])
    text, confidence = write_greedy(graph, frames, ALPHABET)
    graph.output(text, "text", str, ["N"])
    graph.output(confidence, "confidence", np.float32, ["N"])
    return session(graph.model().SerializeToString())


FRAMES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9), st.just(len(ALPHABET) + 1)),
    elements=st.floats(-8, 0, width=16),
)  # fmt: skip


@given(FRAMES)
def test_the_graph_reads_what_numpy_reads(run: Any, frames: NDArray[Any]) -> None:
    texts, confidence = greedy(frames, ALPHABET)
    text, sure = run.run(None, {"frames": frames})
    assert text.tolist() == texts
    np.testing.assert_allclose(sure, confidence, rtol=1e-5)


@given(st.lists(st.integers(0, len(ALPHABET)), min_size=1, max_size=12))
def test_repetitions_are_one_character_and_blanks_part_them(path: list[int]) -> None:
    frames = np.full((1, len(path), len(ALPHABET) + 1), -9.0)
    frames[0, np.arange(len(path)), path] = 0.0
    texts, confidence = greedy(frames, ALPHABET)
    assert texts == ["".join(ALPHABET[i - 1] for i, _ in groupby(path) if i != BLANK)]
    assert confidence.tolist() == [1.0]


def test_a_near_tie_goes_to_the_output_that_comes_first() -> None:
    frames = np.log(np.array([[[0.2, 0.4, 0.4 + 1e-8]]]))
    assert greedy(frames, "ab")[0] == ["a"]
    assert greedy(frames, "ab", 0.0)[0] != [""]
