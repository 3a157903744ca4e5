"""Categories: a code by falling frequency, missing to NaN, unseen to -1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.bundle.graph import ML, GraphBuilder
from tidemill.core.schema import Columns
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix

UNSEEN = -1.0
MAX_CODES = 10_000
"""The most frequent values have a code each; the others that were seen share one further code, "rare"."""
MAX_VALUES = 200_000
"""Values beyond these, by falling frequency, count as unseen: they'd only make the graph large."""


@dataclass(frozen=True)
class CategoryBlock:
    """The categorical columns, each with its vocabulary."""

    names: tuple[str, ...]
    vocabularies: tuple[tuple[str, ...], ...]
    _codes: list[dict[str, float]] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        for vocabulary in self.vocabularies:
            codes = {value: float(min(i, MAX_CODES)) for i, value in enumerate(vocabulary)}
            codes[""] = float("nan")
            self._codes.append(codes)

    @classmethod
    def fit(cls, names: tuple[str, ...], columns: Columns) -> CategoryBlock:
        """Learn each column's vocabulary, by falling frequency, then by name."""
        return cls(names, tuple(_vocabulary(columns[n]) for n in names))

    @property
    def features(self) -> tuple[Feature, ...]:
        """One per column."""
        sizes = (min(len(v), MAX_CODES + 1) for v in self.vocabularies)
        return tuple(Feature(n, n, FeatureKind.CATEGORY, k) for n, k in zip(self.names, sizes, strict=True))

    def transform(self, columns: Columns) -> Matrix:
        """Encode rows with numpy."""
        out = np.empty((len(columns[self.names[0]]), len(self.names)), dtype=np.float32)
        for i, (name, codes) in enumerate(zip(self.names, self._codes, strict=True)):
            values, index = _factorize(columns[name])
            table = np.array([codes.get(v, UNSEEN) for v in values], dtype=np.float32)
            out[:, i] = table[index] if len(values) else np.nan
        return out

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the same into a graph."""
        return graph.concat(
            *(
                graph.op(
                    "LabelEncoder",
                    inputs[name],
                    domain=ML,
                    keys_strings=[k.encode() for k in codes],
                    values_floats=list(codes.values()),
                    default_float=UNSEEN,
                )
                for name, codes in zip(self.names, self._codes, strict=True)
            )
        )

    def checkpoint(self) -> dict[str, Any]:
        """Plain values that rebuild the block."""
        return {"names": list(self.names), "vocabularies": [list(v) for v in self.vocabularies]}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> CategoryBlock:
        """Undo `checkpoint`."""
        return cls(tuple(state["names"]), tuple(tuple(v) for v in state["vocabularies"]))


def _factorize(values: NDArray[Any]) -> tuple[list[str], NDArray[np.int32]]:
    """Distinct values, and for each row the position of its value among them."""
    coded = pa.array(values, type=pa.large_string()).dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False)


def _vocabulary(values: NDArray[Any]) -> tuple[str, ...]:
    distinct, index = _factorize(values)
    counts = np.bincount(index, minlength=len(distinct)).tolist()
    ranked = sorted((-n, v) for n, v in zip(counts, distinct, strict=True) if v)
    return tuple(v for _, v in ranked[:MAX_VALUES])
