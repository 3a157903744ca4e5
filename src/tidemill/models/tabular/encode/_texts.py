"""Texts: counts of frequent words and word pairs, and the number of words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.schema import Columns
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix

MAX_WORDS = 512
"""Words of one cell that are read; a cell of 1 MB must not make a batch of rows grow without bound."""
_FIT_ROWS = 20_000
"""Rows that the vocabulary is chosen from: document frequencies need no more."""


@dataclass(frozen=True)
class TextBlock:
    """One text column.

    A word is what stands between spaces, with the letters A to Z in lower case: exactly what the operators
    StringNormalizer (locale "C", the only one that every machine has) and StringSplit give.
    """

    name: str
    terms: tuple[tuple[str, ...], ...]
    """Words (1-tuples), then pairs of neighbours (2-tuples), each by falling document frequency."""
    max_words: int = MAX_WORDS
    _words: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for term in self.terms:
            for word in term:
                self._words.setdefault(word, len(self._words))

    @classmethod
    def fit(cls, name: str, columns: Columns, max_tokens: int, max_words: int = MAX_WORDS) -> TextBlock:
        """Choose the terms that stand in most cells, at least in two and not in every one."""
        values = columns[name]
        if len(values) > _FIT_ROWS:
            values = values[np.linspace(0, len(values) - 1, _FIT_ROWS).astype(np.int64)]
        row, tokens = _tokens(values, max_words)
        coded = tokens.dictionary_encode()
        words: list[str] = coded.dictionary.to_pylist()
        ids = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        base = max(len(words), 1)
        first, second = _neighbours(row)
        single = [(n, (words[i],)) for i, n in _document_frequency(row, ids)]
        pairs = [
            (n, (words[i // base], words[i % base]))
            for i, n in _document_frequency(row[first], ids[first] * base + ids[second])
        ]
        ranked = sorted(
            ((-n, term) for n, term in single + pairs if 2 <= n < max(len(values), 3)),
            key=lambda item: (item[0], len(item[1]), item[1]),
        )
        kept = [term for _, term in ranked[:max_tokens]]
        return cls(name, tuple(sorted(kept, key=len)), max_words)

    @property
    def features(self) -> tuple[Feature, ...]:
        """One per term, and the number of words."""
        counts = [Feature(f"{self.name}: {' '.join(t)!r}", self.name, FeatureKind.COUNT) for t in self.terms]
        return (*counts, Feature(f"{self.name}: words", self.name, FeatureKind.NUMBER))

    def transform(self, columns: Columns) -> Matrix:
        """Encode rows with numpy."""
        values = columns[self.name]
        out = np.zeros((len(values), len(self.terms) + 1), dtype=np.float32)
        row, tokens = _tokens(values, self.max_words)
        out[:, -1] = np.bincount(row, minlength=len(values))
        if not self.terms:
            return out
        coded = tokens.dictionary_encode()
        known = np.array([self._words.get(w, -1) for w in coded.dictionary.to_pylist()], dtype=np.int64)
        ids = known[coded.indices.to_numpy(zero_copy_only=False)] if len(known) else np.empty(0, np.int64)
        base = len(self._words)
        columns_of = {self._key(term, base): i for i, term in enumerate(self.terms)}
        keys = np.array(sorted(columns_of), dtype=np.int64)
        order = np.array([columns_of[int(k)] for k in keys], dtype=np.int64)
        first, second = _neighbours(row)
        both = (ids[first] >= 0) & (ids[second] >= 0)
        seen = np.concatenate([ids, (ids[first][both] + 1) * base + ids[second][both]])
        where = np.concatenate([row, row[first][both]])
        spot = np.minimum(np.searchsorted(keys, seen), len(keys) - 1)
        hit = keys[spot] == seen
        np.add.at(out, (where[hit], order[spot[hit]]), np.float32(1))
        return out

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the same into a graph."""
        # One row is added in front and taken off at the end: the string operators refuse a batch of none.
        flat = graph.op("Reshape", inputs[self.name], graph.const([-1], np.int64))
        flat = graph.op("Concat", graph.const(np.array(["a"], dtype=object)), flat, axis=0)
        lower = graph.op("StringNormalizer", flat, case_change_action="LOWER", is_case_sensitive=1, locale="C")
        words, count = graph.ops("StringSplit", lower, outputs=2, maxsplit=self.max_words)
        limit = graph.const(self.max_words, np.int64)
        total = graph.op("Unsqueeze", graph.op("Min", count, limit), graph.const([1], np.int64))
        parts = [graph.cast(total, np.float32)]
        if self.terms:
            ends = [graph.const([v], np.int64) for v in (0, self.max_words, 1)]
            parts.insert(0, self._emit_terms(graph, graph.op("Slice", words, *ends)))
        joined = graph.concat(*parts)
        bounds = [graph.const([v], np.int64) for v in (1, np.iinfo(np.int64).max, 0)]
        return graph.op("Slice", joined, *bounds)

    def checkpoint(self) -> dict[str, Any]:
        """Plain values that rebuild the block."""
        return {"name": self.name, "terms": [list(t) for t in self.terms], "max_words": self.max_words}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> TextBlock:
        """Undo `checkpoint`."""
        return cls(state["name"], tuple(tuple(t) for t in state["terms"]), state["max_words"])

    def _key(self, term: tuple[str, ...], base: int) -> int:
        ids = [self._words[w] for w in term]
        return ids[0] if len(ids) == 1 else (ids[0] + 1) * base + ids[1]

    def _emit_terms(self, graph: GraphBuilder, words: str) -> str:
        pool = [w.encode() for term in self.terms for w in term]
        single = sum(len(t) == 1 for t in self.terms)
        longest = max(len(t) for t in self.terms)
        return graph.op(
            "TfIdfVectorizer",
            words,
            mode="TF",
            min_gram_length=1 if single else 2,
            max_gram_length=longest,
            max_skip_count=0,
            ngram_counts=[0, single][:longest],
            ngram_indexes=list(range(len(self.terms))),
            pool_strings=pool,
        )


def _tokens(values: NDArray[Any], max_words: int) -> tuple[NDArray[np.int64], Any]:
    """The words of all rows in order, as row numbers and an Arrow array."""
    lower = pc.ascii_lower(pa.array(values, type=pa.large_string()))
    lists = pc.split_pattern(lower, " ")
    offsets = lists.offsets.to_numpy()
    row = np.repeat(np.arange(len(values)), np.diff(offsets))
    words = lists.values
    full = pc.greater(pc.binary_length(words), 0).to_numpy(zero_copy_only=False)
    row, words = row[full], words.filter(pa.array(full))
    begin = np.searchsorted(row, np.arange(len(values)))
    early = np.arange(len(row)) - begin[row] < max_words if len(row) else np.empty(0, dtype=bool)
    return row[early], words.filter(pa.array(early))


def _neighbours(row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of words that stand side by side in one row."""
    first = np.flatnonzero(row[:-1] == row[1:])
    return first, first + 1


def _document_frequency(row: NDArray[np.int64], ids: NDArray[np.int64]) -> list[tuple[int, int]]:
    """How many rows each id stands in."""
    order = np.lexsort((row, ids))
    i, r = ids[order], row[order]
    new = np.ones(len(i), dtype=bool)
    new[1:] = (i[1:] != i[:-1]) | (r[1:] != r[:-1])
    distinct, counts = np.unique(i[new], return_counts=True)
    return list(zip(distinct.tolist(), counts.tolist(), strict=True))
