"""No byte of a manifest can change unseen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.bundle.manifest import FileEntry, parse, render
from tidemill.core.errors import BundleError

FILES = {"1/model.onnx": FileEntry(10, "ab" * 32), "README.md": FileEntry(0, "cd" * 32)}


def test_what_was_rendered_is_parsed() -> None:
    assert parse(render(FILES)) == FILES


@given(position=st.integers(0, len(render(FILES)) - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(position: int, bit: int) -> None:
    data = bytearray(render(FILES))
    data[position] ^= 1 << bit
    with pytest.raises(BundleError):
        parse(bytes(data))


@given(st.integers(0, len(render(FILES)) - 1))
def test_every_cut_is_found(length: int) -> None:
    with pytest.raises(BundleError):
        parse(render(FILES)[:length])


def test_a_newer_format_says_so() -> None:
    with pytest.raises(BundleError, match="Install a newer Tidemill"):
        parse(render(FILES).replace(b'"format_version": 1', b'"format_version": 2'))
