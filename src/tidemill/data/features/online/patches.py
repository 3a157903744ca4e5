"""Patches: the few features of an entity that changed since its row was written, merged when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError
from tidemill.data.features.online._base import STAMP_BYTES, Cell, newest_stamp
from tidemill.data.features.online.rows import PATCH_MARK, Block, Layout, Parts, schema_of
from tidemill.data.features.types import FeatureGroup

COMPACT_SHARE = 0.25
"""A patch that holds more than this share of the features is merged into the row."""


class Rows:
    """All schema versions of one group's rows, read as the newest.

    Parameters
    ----------
    group : FeatureGroup
        As it is now.

    Examples
    --------
    >>> from tidemill.data.features.types import EntityKey, Feature
    >>> rows = Rows(FeatureGroup("user", (EntityKey("id"),), (Feature("a"), Feature("b"))))
    >>> none = np.empty((2, 0), np.int64), [[], []], np.empty((2, 0), np.bool_)
    >>> old, new = rows.layout.pack(Block(np.float32([[1, 2], [1, 5]]), *none), [10, 11], [10, 11])
    >>> cell = rows.changed((old, None), new)
    >>> rows.read(cell).numbers.tolist()
    [1.0, 5.0]
    """

    def __init__(self, group: FeatureGroup) -> None:
        self.group = group
        self.layout = Layout.of(group)
        self._older = {group.schema_version: self.layout}
        layout = self.layout
        packed = {f.name: i for i, f in enumerate(layout.packed)}
        words = {f.name: i for i, f in enumerate(layout.words)}
        texts = {f.name: i for i, f in enumerate(layout.texts)}
        # Place of each feature in its section, -1 where it is in another one.
        self._places = np.array(
            [[place.get(f.name, -1) for place in (packed, words, texts)] for f in group.features], np.int64
        )
        self.sub_layout = lru_cache(maxsize=1024)(self._sub_layout)

    def layout_at(self, schema: int) -> Layout:
        """Give the layout of an older schema version; raises `DataError` for one that is not known."""
        found = self._older.get(schema)
        if found is None:
            if not 1 <= schema < self.group.schema_version:
                raise DataError(
                    f"A row of group {self.group.name!r} has schema version {schema}, but the group has "
                    f"{self.group.schema_version}.",
                    hint="Open the group again.",
                )
            found = self._older[schema] = Layout.of(self.group.at_version(schema))
        return found

    def _sub_layout(self, indices: tuple[int, ...]) -> Layout:
        return Layout([self.group.features[i] for i in indices], self.group.packing, self.group.schema_version)

    def places(self, indices: Sequence[int], section: int) -> NDArray[np.int64]:
        """Give the places of features in a section: 0 numbers, 1 words, 2 texts."""
        found = self._places[list(indices), section]
        return found[found >= 0]

    def read(self, cell: Cell) -> Parts:
        """Read a whole cell, patch included, in the newest layout; features that came later are missing."""
        row, patch = cell
        parts = self._empty() if row is None else self._grown(row)
        return parts if patch is None else self._merged(parts, patch)

    def changed(self, cell: Cell, row: bytes) -> Cell:
        """Bring a cell to the values of a whole row: by a patch where few differ, else by the row itself.

        Parameters
        ----------
        cell : Cell
            What stands there; given back as it is where it is newer.
        row : bytes
            In the newest layout.
        """
        when = row[:STAMP_BYTES]
        if newest_stamp(cell) > when:
            return cell
        if cell[0] is None or schema_of(cell[0]) != self.group.schema_version:
            return row, None
        old, new = self.read(cell), self.layout.split(row)
        same = self.layout.absent(old.numbers) & self.layout.absent(new.numbers)
        differ = [
            ~(same | (old.numbers == new.numbers)),
            (old.words != new.words) | (old.missing != new.missing)[: len(old.words)],
            np.array([a != b for a, b in zip(old.texts, new.texts, strict=True)], np.bool_)
            | (old.missing != new.missing)[len(old.words) :],
        ]
        indices = self._indices_of(differ) or (0,)  # without a difference the patch says the new time
        if len(indices) > COMPACT_SHARE * len(self.group.features):
            return row, None
        fresh = self.sub_layout(indices).join(self._picked_parts(new, indices), when, mark=PATCH_MARK)
        patch = _with_indices(fresh, indices)
        if cell[1] is not None:
            patch = self._joined(cell[1], patch)
        if len(_indices(patch)) > COMPACT_SHARE * len(self.group.features):
            return row, None
        return cell[0], patch

    def _indices_of(self, differ: Sequence[NDArray[np.bool_]]) -> tuple[int, ...]:
        """Give the features of the group whose places in the sections are marked."""
        hit = np.zeros(len(self.group.features), np.bool_)
        for section, marks in enumerate(differ):
            places = self._places[:, section]
            inside = places >= 0
            hit[inside] |= marks[places[inside]]
        return tuple(np.flatnonzero(hit).tolist())

    def _picked_parts(self, parts: Parts, indices: Sequence[int]) -> Parts:
        return Parts(
            parts.numbers[self.places(indices, 0)],
            parts.words[self.places(indices, 1)],
            [parts.texts[i] for i in self.places(indices, 2)],
            parts.missing[self._missing_places(indices)],
        )

    def compacted(self, cell: Cell) -> Cell:
        """Merge a patch into its row."""
        if cell[1] is None:
            return cell
        return self.layout.join(self.read(cell), newest_stamp(cell)), None

    def overlaid(self, whole: Block, indices: tuple[int, ...], part: Block) -> Block:
        """Give one whole row with other values of some features."""
        numbers, words, missing = whole.numbers.copy(), whole.words.copy(), whole.missing.copy()
        numbers[0, self.places(indices, 0)] = part.numbers[0]
        words[0, self.places(indices, 1)] = part.words[0]
        missing[0, self._missing_places(indices)] = part.missing[0]
        texts = [list(row) for row in whole.texts]
        for place, text in zip(self.places(indices, 2), part.texts[0] if part.texts else (), strict=True):
            texts[0][place] = text
        return Block(numbers, words, texts, missing)

    def _joined(self, old: bytes, new: bytes) -> bytes:
        """Make one patch of two."""
        indices = tuple(sorted({*_indices(old), *_indices(new)}))
        both = self._merged(self._merged(self._empty(), old), new)
        pick = self._picked_parts(both, indices)
        return _with_indices(self.sub_layout(indices).join(pick, new[:STAMP_BYTES], mark=PATCH_MARK), indices)

    def _missing_places(self, indices: Sequence[int]) -> NDArray[np.int64]:
        return np.concatenate([self.places(indices, 1), len(self.layout.words) + self.places(indices, 2)])

    def _empty(self) -> Parts:
        layout = self.layout
        numbers = np.full(layout.width, -128 if layout.dtype.kind == "i" else np.nan, layout.dtype)
        words = np.zeros(len(layout.words), np.int64)
        return Parts(numbers, words, [""] * len(layout.texts), np.ones(len(words) + len(layout.texts), np.bool_))

    def _grown(self, row: bytes) -> Parts:
        layout = self.layout_at(schema_of(row))
        parts = layout.split(row)
        if layout is self.layout:
            return parts
        whole = self._empty()
        whole.numbers[: layout.width] = parts.numbers
        whole.words[: len(layout.words)] = parts.words
        whole.texts[: len(layout.texts)] = parts.texts
        whole.missing[: len(layout.words)] = parts.missing[: len(layout.words)]
        first = len(self.layout.words)
        whole.missing[first : first + len(layout.texts)] = parts.missing[len(layout.words) :]
        return whole

    def patch_numbers(self, patch: bytes) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Give the places of the packed numbers in a patch, and the numbers as stored."""
        indices, new = self._opened(patch)
        return self.places(indices, 0), new.numbers

    def _opened(self, patch: bytes) -> tuple[tuple[int, ...], Parts]:
        indices = _indices(patch)
        if indices[-1] >= len(self.group.features):
            raise DataError(f"A patch of group {self.group.name!r} has unknown features.", hint="Open the group again.")
        body = patch[: len(patch) - 4 * len(indices) - 4]
        # A patch of an older schema version says so, but its features are the same ones.
        schema = schema_of(patch)
        same = schema == self.group.schema_version
        features = [self.group.features[i] for i in indices]
        layout = self.sub_layout(indices) if same else Layout(features, self.group.packing, schema)
        return indices, layout.split(body, mark=PATCH_MARK)

    def _merged(self, parts: Parts, patch: bytes) -> Parts:
        indices, new = self._opened(patch)
        numbers, words, texts, missing = parts.numbers.copy(), parts.words.copy(), [*parts.texts], parts.missing.copy()
        numbers[self.places(indices, 0)] = new.numbers
        words[self.places(indices, 1)] = new.words
        for place, text in zip(self.places(indices, 2), new.texts, strict=True):
            texts[place] = text
        missing[self._missing_places(indices)] = new.missing
        return Parts(numbers, words, texts, missing)


def _with_indices(body: bytes, indices: Sequence[int]) -> bytes:
    return body + np.array([*indices, len(indices)], "<u4").tobytes()


def _indices(patch: bytes) -> tuple[int, ...]:
    """Read which features a patch holds, ascending."""
    count = int.from_bytes(patch[-4:], "little")
    if not 0 < count <= (len(patch) - STAMP_BYTES) // 4 - 1:
        raise DataError("These bytes are no patch: it doesn't say which features it holds.")
    indices = tuple(np.frombuffer(patch, "<u4", count, len(patch) - 4 * count - 4).tolist())
    if any(a >= b for a, b in pairwise(indices)):
        raise DataError("These bytes are no patch: its features are out of order.")
    return indices
