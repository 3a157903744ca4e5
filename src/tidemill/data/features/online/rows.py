"""Packed rows: an entity's features as one run of bytes, read without a loop over features.

::

    0   stamp     16 bytes, event time and created time, see `_base.stamp`
    16  mark      2 bytes, "tr" for a row, "tp" for a patch
    18  version   1 byte, 1
    19  packing   1 byte, 0 float32, 1 float16, 2 int8
    20  schema    4 bytes, schema version of the group
    24  length    4 bytes, of the whole
    28  checksum  4 bytes, CRC-32 of what follows the header, begun with the flags
    32  counts    3 × 4 bytes: packed numbers, words of 8 bytes, texts
    44  flags     4 bytes, 1: something is missing, the bitmap is there
    48  numbers   in the group's packing; missing is NaN, in int8 -128
        words     from the next multiple of 8: 64-bit numbers, times, whole numbers that the packing doesn't hold
        bitmap    one bit for each feature (numbers, words, texts), set where it is missing; only if one is
        texts     4 bytes for the end of each, then UTF-8

Numbers are little-endian, but for the stamp.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError
from tidemill.data.features.online._base import stamp
from tidemill.data.features.packing import STORAGE, encode
from tidemill.data.features.types import PACKED_DTYPES, Feature, FeatureGroup, Packing

HEADER_BYTES = 48
ROW_MARK, PATCH_MARK = b"tr", b"tp"
FORMAT_VERSION = 1
HAS_MISSING = 1
_MISSING_CODE = -128

_HEAD = struct.Struct("<2sBBIIIIIII")
_CODES = {Packing.FLOAT32: 0, Packing.FLOAT16: 1, Packing.INT8: 2}

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """Values of some rows, features in the order of a `Layout`: numbers, then words, then texts.

    Parameters
    ----------
    numbers : float32 array of shape (rows, numbers)
        NaN is missing.
    words : int64 array of shape (rows, words)
        Whole numbers and nanoseconds as they are, float64 by their bits; 0 where missing.
    texts : sequence of lists
        One list of texts for each row; "" where missing.
    missing : bool array of shape (rows, words + texts)
        Where there is no value.
    """

    numbers: Floats
    words: NDArray[np.int64]
    texts: Sequence[Sequence[str]]
    missing: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Sequence[int]) -> Block:
        """Give some of the rows."""
        texts = [self.texts[i] for i in rows] if len(self.texts) else ()
        return Block(self.numbers[rows], self.words[rows], texts, self.missing[rows])


@dataclass(frozen=True)
class Parts:
    """What `Layout.split` finds in the bytes of one row, or of one patch.

    Parameters
    ----------
    numbers : array of shape (numbers,)
        In the group's packing, not yet decoded; shares memory with the bytes.
    words : int64 array of shape (words,)
        See `Block`.
    texts : list of str
        See `Block`.
    missing : bool array of shape (words + texts,)
        See `Block`.
    """

    numbers: NDArray[Any]
    words: NDArray[np.int64]
    texts: list[str]
    missing: NDArray[np.bool_]


class Layout:
    """Where each feature of a list stands in a packed row.

    Parameters
    ----------
    features : sequence of Feature
        In the group's order.
    packing : Packing
        Number type of the packed numbers.
    schema : int
        Schema version of the group that it belongs to.

    Examples
    --------
    >>> from tidemill.data.features.types import DType, EntityKey
    >>> group = FeatureGroup("user", (EntityKey("id"),), (Feature("age"), Feature("city", DType.STRING)))
    >>> layout = Layout.of(group)
    >>> block = Block(np.float32([[31]]), np.empty((1, 0), np.int64), [["Ulm"]], np.array([[False]]))
    >>> row = layout.pack(block, [2], [3])[0]
    >>> layout.split(row).texts, layout.numbers(row).tolist()
    (['Ulm'], [31.0])
    """

    def __init__(self, features: Sequence[Feature], packing: Packing, schema: int) -> None:
        self.packing = packing
        self.schema = schema
        self.features = tuple(features)
        self.packed = tuple(f for f in features if f.dtype in PACKED_DTYPES[packing])
        others = [f for f in features if f.dtype not in PACKED_DTYPES[packing]]
        self.words = tuple(f for f in others if not f.dtype.is_text)
        self.texts = tuple(f for f in others if f.dtype.is_text)
        self.dtype = STORAGE[packing]
        self.width = len(self.packed)
        self.words_at = HEADER_BYTES + _up(self.width * self.dtype.itemsize)
        self.bitmap_at = self.words_at + 8 * len(self.words)
        self._gap = bytes(self.words_at - HEADER_BYTES - self.width * self.dtype.itemsize)
        self._counts = (self.width, len(self.words), len(self.texts))
        self._bitmap_bytes = _up(-(-sum(self._counts) // 8), 4)
        self._steps = _steps(self.packed) if packing is Packing.INT8 else None
        self._is_float32 = packing is Packing.FLOAT32
        # Without texts a row has one of two lengths; all of its header but stamp and checksum follows from that.
        lengths = () if self.texts else ((self.bitmap_at, 0), (self.bitmap_at + self._bitmap_bytes, HAS_MISSING))
        self._known = {self._fixed(length, flags): length for length, flags in lengths}

    def _fixed(self, length: int, flags: int) -> bytes:
        head = _HEAD.pack(ROW_MARK, FORMAT_VERSION, _CODES[self.packing], self.schema, length, 0, *self._counts, flags)
        return head[:12] + head[16:]

    @classmethod
    def of(cls, group: FeatureGroup) -> Layout:
        """Give the layout of a group at its schema version."""
        return cls(group.features, group.packing, group.schema_version)

    def pack(
        self, block: Block, event_ns: Sequence[int], created_ns: Sequence[int], *, mark: bytes = ROW_MARK
    ) -> list[bytes]:
        """Write rows.

        Raises
        ------
        DataError
            For a value that the packing can't hold; names the feature.
        """
        codes = np.ascontiguousarray(encode(block.numbers, self.packed, self.packing))
        words = np.ascontiguousarray(block.words, "<i8")
        bits = _bitmaps(np.isnan(block.numbers), block.missing)
        return [
            self._join(
                codes[i].data,
                words[i].data,
                block.texts[i] if self.texts else (),
                bits.get(i, b""),
                stamp(event_ns[i], created_ns[i]),
                mark,
            )
            for i in range(len(block))
        ]

    def join(self, parts: Parts, when: bytes, *, mark: bytes = ROW_MARK) -> bytes:
        """Write a row from what `split` found in others; nothing is rounded a second time."""
        gone = np.concatenate([self.absent(parts.numbers), parts.missing])
        bits = np.packbits(gone, bitorder="little").tobytes() if gone.any() else b""
        return self._join(parts.numbers.tobytes(), parts.words.tobytes(), parts.texts, bits, when, mark)

    def _join(
        self,
        codes: bytes | memoryview,
        words: bytes | memoryview,
        texts: Sequence[str],
        bits: bytes,
        when: bytes,
        mark: bytes,
    ) -> bytes:
        pieces = [codes, self._gap, words]
        if bits:
            pieces += [bits, bytes(self._bitmap_bytes - len(bits))]
        if self.texts:
            pieces.append(_join_texts(texts))
        body, flags = b"".join(pieces), HAS_MISSING if bits else 0
        head = _HEAD.pack(
            mark,
            FORMAT_VERSION,
            _CODES[self.packing],
            self.schema,
            HEADER_BYTES + len(body),
            zlib.crc32(body, flags),
            *self._counts,
            flags,
        )
        return b"".join((when, head, body))

    def absent(self, codes: NDArray[Any]) -> NDArray[np.bool_]:
        """Say which stored numbers are missing."""
        gone: NDArray[np.bool_] = codes == _MISSING_CODE if self.packing is Packing.INT8 else np.isnan(codes)
        return gone

    def numbers(self, row: bytes) -> Floats:
        """Read the packed numbers of a row of this layout; missing ones are NaN. For float32 it is a view."""
        codes = np.frombuffer(row, self.dtype, self.width, HEADER_BYTES)
        return codes if self._is_float32 else self.decode(codes)

    def holds(self, row: bytes) -> bool:
        """Say whether a row is of this layout's schema version; finds what `check` finds, in a fraction of its time.

        Raises
        ------
        DataError
            Where it says that it is, but has another form.
        """
        if self._known.get(row[16:28] + row[32:HEADER_BYTES]) == len(row):
            return True
        if schema_of(row) != self.schema:
            return False
        self.check(row)
        return True

    def decode(self, codes: NDArray[Any], columns: Any = slice(None)) -> Floats:
        """Turn stored numbers into float32; ``columns`` says which features they are, where not all."""
        if self._steps is None:
            return codes if codes.dtype == np.float32 else codes.astype(np.float32)
        low, step = self._steps
        values: Floats = ((codes.astype(np.float64) + 127) * step[columns] + low[columns]).astype(np.float32)
        values[codes == _MISSING_CODE] = np.nan
        return values

    def split(self, row: bytes, *, mark: bytes = ROW_MARK) -> Parts:
        """Read everything in a row.

        Raises
        ------
        DataError
            Where the bytes are no row of this layout.
        """
        flags = self.check(row, mark=mark)
        numbers = np.frombuffer(row, self.dtype, self.width, HEADER_BYTES)
        words = np.frombuffer(row, "<i8", len(self.words), self.words_at)
        missing = np.zeros(len(self.words) + len(self.texts), np.bool_)
        at = self.bitmap_at
        if flags & HAS_MISSING:
            bits = np.frombuffer(row, np.uint8, self._bitmap_bytes, at)
            every = np.unpackbits(bits, count=sum(self._counts), bitorder="little").astype(np.bool_)
            missing = every[self.width :]
            at += self._bitmap_bytes
        return Parts(numbers, words, _cut_texts(row, at, len(self.texts)), missing)

    def check(self, row: bytes, *, mark: bytes = ROW_MARK, whole: bool = False) -> int:
        """Refuse bytes that are no row of this layout; gives the flags.

        Parameters
        ----------
        row : bytes
            What is said to be a row.
        mark : bytes
            ``ROW_MARK`` or ``PATCH_MARK``.
        whole : bool
            Compare the checksum, too (some microseconds).
        """
        found, version, packing, schema, length, checksum, *counts, flags = read_head(row)
        if found != mark or version != FORMAT_VERSION:
            raise _foreign(row, "it begins otherwise")
        if schema != self.schema or packing != _CODES[self.packing] or tuple(counts) != self._counts:
            raise _foreign(row, f"it belongs to schema version {schema}, not to {self.schema}")
        least = self.bitmap_at + (self._bitmap_bytes if flags & HAS_MISSING else 0) + 4 * len(self.texts)
        if length != len(row) or length < least or flags & ~HAS_MISSING:
            raise _foreign(row, f"it should have {length:,} bytes, but has {len(row):,}")
        if whole and zlib.crc32(memoryview(row)[HEADER_BYTES:], flags) != checksum:
            raise _foreign(row, "its checksum differs")
        return int(flags)


def read_head(row: bytes) -> tuple[Any, ...]:
    """Read mark, format version, packing, schema version, length, checksum, three counts and flags."""
    if len(row) < HEADER_BYTES:
        raise _foreign(row, f"it has {len(row)} bytes, less than a header")
    return _HEAD.unpack_from(row, 16)


def schema_of(row: bytes) -> int:
    """Read the schema version of a row, without any check."""
    return int.from_bytes(row[20:24], "little")


def _bitmaps(gone: NDArray[np.bool_], missing: NDArray[np.bool_]) -> dict[int, bytes]:
    """Give the bitmaps of the rows in which something is missing."""
    holed = np.flatnonzero(gone.any(axis=1) | missing.any(axis=1))
    bits = np.packbits(np.concatenate([gone[holed], missing[holed]], axis=1), axis=1, bitorder="little")
    return {row: line.tobytes() for row, line in zip(holed.tolist(), bits, strict=True)}


def _up(size: int, step: int = 8) -> int:
    return -(-size // step) * step


def _steps(features: Sequence[Feature]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low = np.array([f.validation.low for f in features], np.float64)
    high = np.array([f.validation.high for f in features], np.float64)
    return low, (high - low) / 254


def _join_texts(texts: Sequence[str]) -> bytes:
    words = [text.encode() for text in texts]
    ends = np.cumsum([len(w) for w in words], dtype="<u4")
    return ends.tobytes() + b"".join(words)


def _cut_texts(row: bytes, at: int, count: int) -> list[str]:
    if not count:
        if at != len(row):
            raise _foreign(row, "there is more than its features")
        return []
    first = at + 4 * count
    ends = [first + int(end) for end in np.frombuffer(row, "<u4", count, at)]
    starts = [first, *ends[:-1]]
    if ends[-1] != len(row) or any(end < start for start, end in zip(starts, ends, strict=True)):
        raise _foreign(row, "its texts don't end where they should")
    try:
        return [row[start:end].decode() for start, end in zip(starts, ends, strict=True)]
    except UnicodeDecodeError as error:
        raise _foreign(row, "a text is no UTF-8") from error


def _foreign(row: bytes, why: str) -> DataError:
    return DataError(
        f"These bytes are no packed row: {why}.",
        hint="Materialize the group again.",
        where=f"row {bytes(row[:24]).hex()}…",
    )
