"""What is packed comes back; what is damaged or forged gives `DataError`, quickly and in bounded memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tidemill.core.errors import DataError
from tidemill.core.pack import pack, unpack

DTYPES = st.sampled_from(["<f4", "<f8", "<f2", ">f8", "<i8", "|i1", "|u1", "<u4", "|b1"])
ARRAY = DTYPES.flatmap(lambda d: arrays(np.dtype(d), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20) | ARRAY
KEY = st.text(max_size=5).filter(lambda k: not k.startswith("$"))
TREE = st.recursive(LEAF, lambda t: st.lists(t, max_size=4) | st.dictionaries(KEY, t, max_size=4), max_leaves=12)


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b or (a != a and b != b)


@given(TREE)
def test_what_is_packed_comes_back(tree):
    assert same(tree, unpack(pack(tree)))


def test_arrays_come_back_writable_and_in_order():
    source = np.arange(12.0).reshape(3, 4)
    got = unpack(pack([source.T, source[:, ::2]]))
    assert (got[0] == source.T).all()
    assert (got[1] == source[:, ::2]).all()
    got[0][0, 0] = 7


def test_tuples_and_numpy_scalars_become_plain():
    assert unpack(pack({"a": (1, np.float64(2.5), np.int64(3))})) == {"a": [1, 2.5, 3]}


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([1j]), np.array([object()]), {1: 2}, {"$a": 1}, {1, 2}])
def test_what_cannot_be_packed_is_refused(value):
    with pytest.raises(TypeError):
        pack(value)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(DataError):
        unpack(data)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_random_bytes_behind_a_good_head_are_refused(data, size):
    with pytest.raises(DataError):
        unpack(b"TMPK1\n" + struct.pack("<Q", size) + data)


GOOD = pack({"w": np.arange(100.0), "n": [np.arange(3, dtype=np.int8), "text", None], "b": b"bytes"})


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(at, change):
    broken = bytearray(GOOD)
    broken[at] ^= change
    try:
        got = unpack(bytes(broken))
    except DataError:
        return
    # Some bits of a deflate stream's head carry nothing.
    assert same(got, unpack(GOOD))


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=4))
def test_a_cut_or_a_longer_file_is_noticed(cut, tail):
    with pytest.raises(DataError):
        unpack(GOOD[:cut])
    if tail:
        with pytest.raises(DataError):
            unpack(GOOD + tail)


def forged(tree, data=b"", size=None):
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    body = struct.pack("<Q", len(text)) + text + data
    return b"TMPK1\n" + struct.pack("<Q", len(body) if size is None else size) + zlib.compress(body)


@pytest.mark.parametrize(
    "tree",
    [
        {"$array": ["<f8", [3], 0]},
        {"$array": ["<f8", [-1], 0]},
        {"$array": ["<f8", [2**32, 2**32], 0]},
        {"$array": ["<f8", [2**70, 0, 2**70], 0]},
        {"$array": ["<f8", [1], -8]},
        {"$array": ["<f8", [1.0], 0]},
        {"$array": ["<f8", [True], 0]},
        {"$array": ["<f8", 1, 0]},
        {"$array": ["<f3", [1], 0]},
        {"$array": ["|O8", [1], 0]},
        {"$array": ["(2,)f4", [1], 0]},
        {"$array": [["<f8"], [1], 0]},
        {"$array": None},
        {"$array": {}},
        {"$bytes": [0, 17]},
        {"$bytes": [-1, 1]},
        {"$bytes": ["0", 1]},
        {"$bytes": [0]},
        {"$bytes": [2**80, 1]},
        [{"$bytes": [0, 16]}, {"$bytes": [0, 16]}],
        b"[" * 100_000,
        b"9" * 5000,
        b"\xff",
        b"{",
    ],
)
def test_a_forged_tree_is_refused(tree):
    with pytest.raises(DataError):
        unpack(forged(tree, bytes(16)))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["<f8", "|u1", "<i4", [], [2], 0, 1]),
        lambda t: (
            st.lists(t, max_size=4)
            | st.dictionaries(st.sampled_from(["$array", "$bytes", "a"]), t, max_size=2)
            | st.fixed_dictionaries({"$array": st.tuples(t, t, t)})
            | st.fixed_dictionaries({"$bytes": st.tuples(t, t)})
        ),
        max_leaves=8,
    )
)
def test_any_tree_of_plain_values_is_read_or_refused(tree):
    try:
        unpack(forged(tree, bytes(32)))
    except DataError as error:
        assert error.message  # noqa: PT017 - most examples raise nothing


class TestMemory:
    def peak_of(self, data, **options):
        tracemalloc.start()
        with pytest.raises(DataError):
            unpack(data, **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    @pytest.mark.parametrize("size", [0, 1, 1000, 2**63, 2**64 - 1])
    def test_a_stream_longer_than_promised_is_not_unrolled(self, size):
        bomb = b"TMPK1\n" + struct.pack("<Q", size) + zlib.compress(bytes(50_000_000), 9)
        assert self.peak_of(bomb) < 2_000_000

    def test_a_limit_is_kept(self):
        data = pack(np.zeros(4_000_000))
        assert self.peak_of(data, max_bytes=1_000_000) < 200_000

    def test_bytes_are_used_once(self):
        """A small file that names the same bytes again and again would fill the memory."""
        one = {"$array": ["|u1", [100_000], 0]}
        assert self.peak_of(forged([one] * 5000, bytes(100_000))) < 10_000_000

    def test_no_array_is_made_before_its_size_is_checked(self):
        assert self.peak_of(forged({"$array": ["<f8", [10**12], 0]})) < 200_000
