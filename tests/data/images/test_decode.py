"""Every image that can be seen can be read, and what can't be is told in words."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tidemill.data.images.decode import decode, from_array

RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def file_of(image: Image.Image, form: str = "PNG", **words: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=form, **words)
    return out.getvalue()


def test_colours_come_back_as_they_are() -> None:
    assert np.array_equal(decode(file_of(Image.fromarray(COLOUR))), COLOUR)


def test_grey_is_three_equal_channels() -> None:
    grey = COLOUR[..., 0]
    assert np.array_equal(decode(file_of(Image.fromarray(grey))), np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    bits = COLOUR[..., 0] > 100
    assert np.array_equal(decode(file_of(Image.fromarray(bits)))[..., 1], bits * np.uint8(255))


def test_what_is_transparent_stands_on_white() -> None:
    alpha = np.dstack([COLOUR, np.zeros((5, 7), np.uint8)])
    alpha[0, 0, 3] = 255
    got = decode(file_of(Image.fromarray(alpha)))
    assert np.array_equal(got[0, 0], COLOUR[0, 0])
    assert (got.reshape(-1, 3)[1:] == 255).all()


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P")
    assert (decode(file_of(image, transparency=0)) == 255).all()


def test_sixteen_bits_keep_their_upper_half() -> None:
    deep = np.array([[0, 257, 65535], [256, 32768, 511]], dtype=np.uint16)
    assert np.array_equal(decode(file_of(Image.fromarray(deep)))[..., 0], (deep >> 8).astype(np.uint8))


def test_fractions_are_shares_of_white() -> None:
    got = decode(file_of(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), "TIFF"))
    assert got[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_becomes_rgb() -> None:
    got = decode(file_of(Image.new("CMYK", (3, 2), (0, 0, 0, 255)), "TIFF"))
    assert got.shape == (2, 3, 3)
    assert (got == 0).all()


def test_an_image_is_turned_as_its_exif_data_say() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    got = decode(file_of(Image.fromarray(COLOUR), exif=exif))
    assert np.array_equal(got, np.rot90(COLOUR, k=-1))


def test_of_many_frames_the_first_counts() -> None:
    frames = [Image.new("RGB", (2, 2), c) for c in ("black", "white")]
    assert (decode(file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])) == 0).all()


def test_one_pixel_is_an_image() -> None:
    assert decode(file_of(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM"])
def test_a_file_that_is_cut_off_is_told(form: str) -> None:
    whole = file_of(Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)), form)
    with pytest.raises(ValueError, match=r"damaged or cut off|no image"):
        decode(whole[: len(whole) // 2])


def test_a_form_that_would_start_another_program_is_no_image() -> None:
    """Pillow hands PostScript to Ghostscript."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ValueError, match="no image of a known form"):
        decode(eps)


def test_an_empty_file_is_told() -> None:
    with pytest.raises(ValueError, match="the file is empty"):
        decode(b"")


def test_an_image_that_would_fill_the_memory_is_refused_before_it_does() -> None:
    with pytest.raises(ValueError, match=r"7 × 5 pixels, more than 30"):
        decode(file_of(Image.fromarray(COLOUR)), 30)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_image_or_a_value_error(data: bytes) -> None:
    for given_data in (data, file_of(Image.fromarray(COLOUR))[:20] + data):
        try:
            pixels = decode(given_data)
        except ValueError:
            continue
        assert pixels.ndim == 3


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_arrays_become_rgb(shape: tuple[int, ...]) -> None:
    values = RNG.integers(0, 256, shape).astype(np.uint8)
    got = from_array(values)
    assert got.shape == (4, 5, 3)
    assert got.dtype == np.uint8


def test_an_array_with_alpha_stands_on_white() -> None:
    assert from_array(np.zeros((2, 2, 4), np.uint8)).min() == 255


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 2)), np.array([["a"]])])
def test_an_array_that_is_no_image_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="an image"):
        from_array(wrong)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_a_tiff_are_read_in_either_order_of_bytes(order: str) -> None:
    dark = np.array([[0, 200, 65535], [300, 25700, 255]], dtype=order)
    expected = np.array([[0, 0, 255], [1, 100, 0]])
    assert np.array_equal(decode(file_of(Image.fromarray(dark), "TIFF"))[..., 0], expected)
    assert np.array_equal(decode(_tiff(dark))[..., 0], expected)
    assert np.array_equal(from_array(dark)[..., 0], expected)


def _tiff(values: np.ndarray[Any, Any]) -> bytes:
    """Write a TIFF of one strip in the order of bytes that the values have; Pillow itself writes little-endian ones."""
    sign = values.dtype.byteorder.replace("=", "<" if np.little_endian else ">")
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 3, height), (279, 4, values.nbytes)]  # fmt: skip
    out = struct.pack(f"{sign}2sHI", b"II" if sign == "<" else b"MM", 42, 8 + values.nbytes) + values.tobytes()
    out += struct.pack(f"{sign}H", len(tags))
    for tag, kind, value in tags:
        cell = struct.pack(f"{sign}HH" if kind == 3 else f"{sign}I", *((value, 0) if kind == 3 else (value,)))
        out += struct.pack(f"{sign}HHI", tag, kind, 1) + cell
    return out + struct.pack(f"{sign}I", 0)
