"""The resize that training and bundle share."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.images.encoder import IMAGE, ImageEncoder
from tidemill.bundle.runner.stacks import MOST_IMAGES, stacks
from tidemill.core.errors import OptionError

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_the_right_size_keeps_its_pixels(channels: int) -> None:
    grey = RNG.integers(0, 256, (256, 4, 5, 1)).astype(np.uint8)
    grey[:, 0, 0, 0] = np.arange(256)  # every tone there is
    image = np.repeat(grey, 3, axis=3)
    got = ImageEncoder(4, 5, channels).transform({IMAGE: image})
    assert got.shape == (256, channels, 4, 5)
    assert np.array_equal(got, np.repeat(grey.transpose(0, 3, 1, 2), channels, axis=1).astype(np.float32))


def test_what_gets_smaller_is_smoothed() -> None:
    lines = np.zeros((1, 64, 64, 3), np.uint8)
    lines[:, ::2] = 255
    got = ImageEncoder(8, 8, 3).transform({IMAGE: lines})
    assert np.abs(got[:, :, 2:-2, 2:-2] - 127.5).max() <= 2


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_any_size_becomes_whole_tones_of_one_size(height: int, width: int, channels: int) -> None:
    image = np.random.default_rng(height * 41 + width).integers(0, 256, (1, height, width, 3)).astype(np.uint8)
    got = ImageEncoder(7, 9, channels).transform({IMAGE: image})
    assert got.shape == (1, channels, 7, 9)
    assert np.array_equal(got, np.rint(got))
    assert 0 <= got.min() <= got.max() <= 255
    if channels == 3:
        low, high = image.min(axis=(1, 2)), image.max(axis=(1, 2))
        assert (got.min(axis=(2, 3)) >= low - 1e-3).all()
        assert (got.max(axis=(2, 3)) <= high + 1e-3).all()


def test_images_of_many_sizes_keep_their_order() -> None:
    images = np.empty(4, dtype=object)
    for i, side in enumerate((3, 9, 9, 3)):
        images[i] = np.full((side, side, 3), 10 * i, np.uint8)
    got = ImageEncoder(5, 5, 1).transform({IMAGE: images})
    assert got[:, 0, 0, 0].tolist() == [0, 10, 20, 30]


def test_inside_of_a_larger_graph_the_pixels_are_the_same() -> None:
    encoder = ImageEncoder(16, 16, 3)
    graph = GraphBuilder()
    x = encoder.emit(graph, {IMAGE: graph.input(IMAGE, np.uint8, ["N", "H", "W", 3])})
    kernel = graph.const(np.ones((1, 3, 3, 3), np.float32))
    y = graph.op("Relu", graph.op("Conv", x, kernel, pads=[1, 1, 1, 1]))
    graph.output(x, "pixels", np.float32, ["N", 3, 16, 16])
    graph.output(y, "map", np.float32, ["N", 1, 16, 16])
    run = onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    image = RNG.integers(0, 256, (2, 61, 37, 3)).astype(np.uint8)
    assert np.array_equal(run.run(None, {IMAGE: image})[0], encoder.transform({IMAGE: image}))


def test_a_state_makes_the_same_encoder() -> None:
    encoder = ImageEncoder(3, 4, 1)
    assert ImageEncoder.restore(encoder.checkpoint()) == encoder


@pytest.mark.parametrize("wrong", [(0, 4, 3), (4, 4, 2)])
def test_an_impossible_size_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(OptionError, match="at least one pixel"):
        ImageEncoder(*wrong)


@given(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=200))
def test_stacks_hold_every_image_once_and_in_order(sides: list[int | None]) -> None:
    images = [None if s is None else np.full((s, s, 3), i % 251, np.uint8) for i, s in enumerate(sides)]
    places: list[int] = []
    for some, stack in stacks(images):
        assert 1 <= len(some) == len(stack) <= MOST_IMAGES
        assert all(np.array_equal(stack[k], images[i]) for k, i in enumerate(some))
        places += some
    assert places == [i for i, s in enumerate(sides) if s is not None]


@given(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=100), st.integers(1, 5))
def test_stacks_are_the_same_for_who_sees_a_part_from_a_multiple_on(sides: list[int | None], pieces: int) -> None:
    images = [None if s is None else np.zeros((s, s, 3), np.uint8) for s in sides]
    whole = [places for places, _ in stacks(images)]
    size = pieces * MOST_IMAGES
    parts = [
        [start + place for place in places]
        for start in range(0, len(images), size)
        for places, _ in stacks(images[start : start + size])
    ]
    assert parts == whole
