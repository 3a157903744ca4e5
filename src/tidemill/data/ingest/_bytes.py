"""From a file to UTF-8 bytes: decompression and encodings."""

from __future__ import annotations

import codecs
import io
import lzma
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from tidemill.core.errors import DataError

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CHUNK = 1 << 22

# Characters outside ASCII that stand in Western European tables. Left out are ÿ, þ, ð and the like: where they are
# frequent, the bytes are another alphabet or no text at all.
_WESTERN = frozenset(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýŒœŠšŽžŸ‘’“”„–—…€£¥©®°±²³½¼¾µ§«»·¡¿ºª×¢\u00a0"
)


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed where its first bytes say that it is compressed."""
    with path.open("rb") as file:
        head = file.read(6)
    kind = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if kind == "xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    return cast(BinaryIO, pa.input_stream(str(path), compression=kind))


def read_up_to(path: Path, limit: int) -> tuple[bytes, bool]:
    """Read at most about ``limit`` bytes, decompressed; also say whether that is the whole file."""
    chunks: list[bytes] = []
    size = 0
    with open_bytes(path) as stream:
        try:
            while size <= limit:
                chunk = stream.read(_CHUNK)
                if not chunk:
                    return b"".join(chunks), True
                chunks.append(chunk)
                size += len(chunk)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise DataError(
                f"The compressed file is damaged or cut off after {size:,} bytes ({error}).",
                where=str(path), hint="Fetch or compress it again.",
            ) from error  # fmt: skip
    return b"".join(chunks), False


def find_encoding(data: bytes, where: str, *, whole: bool = True) -> tuple[str, int, str | None]:
    """Say how text is encoded: the codec, the length of the byte order mark, and a notice where it was guessed.

    Raises
    ------
    DataError
        Where it is no text, with the offset of the first byte that can't be read.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name, len(mark), None
    wide = _wide(data[:4096])
    if wide:
        return wide, 0, f"The file has no byte order mark; it was read as {wide.upper()}."
    _refuse_binary(data, where)
    offset = first_bad_utf8(data, whole=whole)
    if offset is None:
        return "utf-8", 0, None
    guess = _guess(data, offset)
    if guess is None:
        line = data.count(b"\n", 0, offset) + 1
        raise DataError(
            f"The byte 0x{data[offset]:02x} at offset {offset:,} (line {line:,}) can't be decoded as UTF-8, and no "
            "other encoding fits.",
            where=where, hint="Repair that byte, or save the file as UTF-8.",
        )  # fmt: skip
    return guess, 0, f"The file is not UTF-8 (offset {offset:,}); it was read as {guess}."


def to_utf8(data: bytes, where: str) -> tuple[bytes, str | None]:
    """Return text as UTF-8 without a byte order mark, and a notice where the encoding was guessed."""
    name, skip, notice = find_encoding(data, where)
    if name == "utf-8":
        body = data[skip:] if skip else data
        offset = first_bad_utf8(body) if skip else None
        if offset is not None:
            raise DataError(
                f"The byte 0x{body[offset]:02x} at offset {offset + skip:,} can't be decoded as UTF-8.",
                where=where, hint="Save the file as UTF-8 again.",
            )  # fmt: skip
        return body, notice
    try:
        return data[skip:].decode(name).encode("utf-8"), notice
    except UnicodeDecodeError as error:
        raise DataError(
            f"The bytes at offset {error.start + skip:,} can't be decoded as {name.upper()}.",
            where=where, hint="The file may be cut off; save it as UTF-8.",
        ) from error  # fmt: skip


def first_bad_utf8(data: bytes, *, whole: bool = True) -> int | None:
    """Offset of the first byte that is not UTF-8; a sequence that the end cuts is bad only in a ``whole`` text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = 0
    while start < len(data):
        # A chunk never ends inside a sequence, so that the decoder's offsets are offsets in the chunk.
        end = min(start + _CHUNK, len(data))
        while end < len(data) and end > start + _CHUNK - 4 and data[end] & 0xC0 == 0x80:
            end -= 1
        try:
            decoder.decode(data[start:end], final=whole or end < len(data))
        except UnicodeDecodeError as error:
            return start + error.start
        start = end
    return None


def _wide(head: bytes) -> str | None:
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = max(1, len(head) // 2)
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.4 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _refuse_binary(data: bytes, where: str) -> None:
    control = bytes(b for b in range(32) if b not in b"\t\n\r\f\v\x1a")
    head = data[:8192]
    junk = len(head) - len(head.translate(None, control))
    zero = data.find(b"\0")
    if zero < 0 and (junk < 8 or junk <= 0.1 * len(head)):
        return
    offset = zero if zero >= 0 else next(i for i, b in enumerate(head) if b in control)
    raise DataError(
        f"This is not a text file: there is a byte 0x{data[offset]:02x} at offset {offset:,}.",
        where=where, hint="Give CSV, Parquet, Arrow, JSON lines, Excel or a database.",
    )  # fmt: skip


def _guess(data: bytes, offset: int) -> str | None:
    """Guess a one-byte or East Asian encoding from the lines that hold bytes outside ASCII."""
    sample = b"\n".join(
        line for line in data[max(0, offset - 2000) : offset + (1 << 20)].splitlines() if not line.isascii()
    )
    sample = sample[: 1 << 16]
    if _has_utf8_sequences(data[:offset]):
        return None  # it is UTF-8, and damaged
    text = sample.decode("cp1252", "replace")
    strange = [c for c in text if ord(c) > 127]
    if strange and sum(c in _WESTERN for c in strange) >= 0.98 * len(strange) and not _runs(text, len(strange)):
        return "cp1252" if _decodes(data, "cp1252") else "latin-1"
    if len(strange) < 20:
        return None
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None or not _decodes(data, best.encoding):
        return None
    return best.encoding


def _has_utf8_sequences(data: bytes) -> bool:
    return not data.isascii()


def _runs(text: str, strange: int) -> bool:
    """Say whether characters outside ASCII come in long runs, as in a text in another alphabet."""
    threes = sum(
        ord(a) > 127 and ord(b) > 127 and ord(c) > 127 for a, b, c in zip(text, text[1:], text[2:], strict=False)
    )
    return threes > 0.2 * strange


def _decodes(data: bytes, name: str) -> bool:
    try:
        data.decode(name)
    except (UnicodeDecodeError, LookupError):
        return False
    return True


class Recoder(io.RawIOBase):
    """A stream in another encoding, read as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str, where: str) -> None:
        self._stream, self._where, self._encoding = stream, where, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest = b""
        self._end = False

    def readable(self) -> bool:
        """Is always so."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Read at most ``size`` bytes of UTF-8."""
        while not self._end and (size < 0 or len(self._rest) < size):
            chunk = self._stream.read(_CHUNK)
            self._end = not chunk
            try:
                self._rest += self._decoder.decode(chunk, final=self._end).encode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"Some bytes can't be decoded as {self._encoding}.", where=self._where, hint="Save it as UTF-8."
                ) from error
        out = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(out) :]
        return out

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer."""
        out = self.read(len(buffer))
        buffer[: len(out)] = out
        return len(out)
