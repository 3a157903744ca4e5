"""What can be said of an image without a model is said alike in training and in production."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tidemill.bundle.images.properties import PROPERTIES, joined, properties_of, seen_in

RNG = np.random.default_rng(4)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 3))
def test_properties_are_those_of_the_pixels(height: int, width: int, count: int) -> None:
    images = np.random.default_rng(height * 91 + width).integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    found = properties_of(images)
    assert tuple(found) == PROPERTIES
    assert found["width"].tolist() == [width] * count
    assert found["height"].tolist() == [height] * count
    tones = images.reshape(count, -1) / 255
    assert np.abs(found["brightness"] - tones.mean(axis=1)).max() < 1e-9
    assert np.abs(found["contrast"] - tones.std(axis=1)).max() < 1e-9


def test_of_a_large_image_some_pixels_tell() -> None:
    image = RNG.integers(0, 256, (1, 900, 700, 3)).astype(np.uint8)
    found = properties_of(image)
    assert found["brightness"][0] == pytest.approx(image.mean() / 255, abs=0.01)
    assert found["contrast"][0] == pytest.approx(image.std() / 255, abs=0.01)


def test_files_and_pixels_of_a_request_say_the_same() -> None:
    images = RNG.integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
    cells = np.empty(4, dtype=object)
    for i, image in enumerate(images):
        out = io.BytesIO()
        Image.fromarray(image).save(out, format="PNG")
        cells[i] = out.getvalue()
    of_files, of_pixels = seen_in({"image": cells}, 9), seen_in({"image": images}, 9)
    assert all(np.array_equal(of_files[n], of_pixels[n]) for n in PROPERTIES)
    assert len(of_files["width"]) == 4


def test_some_are_looked_at_and_what_can_t_be_read_is_passed_over() -> None:
    assert len(seen_in({"image": np.zeros((50, 2, 2, 3), np.uint8)}, 7)["width"]) == 7
    bad = np.empty(2, dtype=object)
    bad[:] = [b"no image", b""]
    assert all(len(v) == 0 for v in seen_in({"image": bad}, 5).values())
    assert all(len(v) == 0 for v in seen_in({"age": np.zeros((3, 1))}, 5).values())


def test_stacks_follow_each_other() -> None:
    stacks = [properties_of(np.zeros((n, n, 2, 3), np.uint8)) for n in (1, 3)]
    assert joined(stacks)["height"].tolist() == [1, 3, 3, 3]
