"""A line keeps its proportions, whatever its size, and the graph is the only implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.bundle.lines.encoder import STEP, LineEncoder
from tidemill.core.errors import OptionError


@given(st.integers(1, 90), st.integers(1, 400), st.integers(1, 40))
def test_every_size_becomes_the_height_and_a_width_of_whole_steps(height: int, width: int, to: int) -> None:
    encoder = LineEncoder(to, 8 * STEP)
    (line,) = encoder.transform({"image": [np.full((height, width, 3), 77, np.uint8)]})
    assert line.shape == (to, encoder.width(height, width))
    assert line.shape[1] % STEP == 0
    assert (line == 77).all()


def test_a_line_of_the_height_keeps_its_pixels_and_repeats_its_edge() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 21, 1)).astype(np.uint8).repeat(3, axis=2)
    (line,) = LineEncoder(16, 64).transform({"image": [image]})
    assert np.array_equal(line[:, :21], image[..., 0])
    assert (line[:, 21:] == image[:, -1:, 0]).all()


def test_lines_of_different_sizes_keep_their_places() -> None:
    images = [np.full((8, 8 * k, 3), 10 * k, np.uint8) for k in (1, 2, 2, 9)]
    found = LineEncoder(8, 64).transform({"image": images})
    assert [(line.shape, int(line[0, 0])) for line in found] == [
        ((8, 16), 10), ((8, 16), 20), ((8, 16), 20), ((8, 64), 90)
    ]  # fmt: skip


def test_it_is_kept_as_plain_values() -> None:
    encoder = LineEncoder(32, 128)
    assert LineEncoder.restore(encoder.checkpoint()) == encoder
    with pytest.raises(OptionError, match="a multiple of 16 of width"):
        LineEncoder(32, 100)
