"""What a study keeps: the truth once, and for every trial its predictions and models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.frames import Frames
from tidemill.core.pack import pack, unpack
from tidemill.core.protocols import ArtifactStore
from tidemill.core.schema import Columns
from tidemill.core.trial import Predictions
from tidemill.search.splits import Splits

FRAMES, TEST_FRAMES = "frames", "test_frames"
"""Names of a trial's artifacts, and of parts of its result, that hold what a net said of every step along its lines."""
TRUTH = "truth"
"""Name of the study's artifact that holds its `Truth`."""
MOST_VALUES = 2_000
"""A column with more distinct values than this can't be asked for by slice."""


@dataclass(frozen=True)
class Truth:
    """All that is needed to judge stored predictions, without the data.

    Parameters
    ----------
    y, rows, weight : ndarray
        Targets, row ids and weights of the training rows; shape (n,).
    splits : ndarray of int8, shape (splits, n)
        What each row was in each split.
    columns : Columns
        Raw columns of the training rows that a slice may be made of.
    y_test, rows_test, columns_test
        The same of the locked test slice, or None.
    """

    y: NDArray[Any]
    rows: NDArray[np.int64]
    splits: Splits
    columns: Columns
    weight: NDArray[np.float64] | None = None
    y_test: NDArray[Any] | None = None
    rows_test: NDArray[np.int64] | None = None
    columns_test: Columns | None = None

    def pack(self) -> bytes:
        """Bytes for the artifact store."""
        return pack(
            {
                "y": self.y,
                "rows": self.rows,
                "splits": self.splits,
                "columns": _pack_columns(self.columns),
                "weight": self.weight,
                "y_test": self.y_test,
                "rows_test": self.rows_test,
                "columns_test": None if self.columns_test is None else _pack_columns(self.columns_test),
            }
        )

    @classmethod
    def unpack(cls, data: bytes) -> Truth:
        """Undo `pack`."""
        tree = unpack(data)
        test = tree["columns_test"]
        return cls(
            **{
                **tree,
                "columns": _unpack_columns(tree["columns"]),
                "columns_test": None if test is None else _unpack_columns(test),
            }
        )


def put_predictions(store: ArtifactStore, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> str:
    """Keep the rows that have scores."""
    there = ~np.isnan(scores).any(axis=1)
    return store.put(pack({"rows": rows[there], "scores": np.ascontiguousarray(scores[there], dtype=np.float32)}))


def get_predictions(store: ArtifactStore, key: str) -> Predictions:
    """Read what `put_predictions` kept."""
    tree = unpack(store.get(key))
    return Predictions(tree["rows"], tree["scores"])


def get_frames(store: ArtifactStore, key: str) -> Frames:
    """Read what a net said of every step along its lines."""
    return Frames.from_tree(unpack(store.get(key)))


def put_result(
    store: ArtifactStore, result: Mapping[str, Any], rows: NDArray[np.int64], rows_test: NDArray[np.int64] | None
) -> dict[str, str]:
    """Keep the heavy parts of a trial's result and return their hashes."""
    artifacts = {"oof": put_predictions(store, rows, result["oof"])}
    if result["test"] is not None and rows_test is not None:
        artifacts["test"] = put_predictions(store, rows_test, result["test"])
    for name in (FRAMES, TEST_FRAMES):
        frames: Frames | None = result.get(name)
        if frames is not None:
            artifacts[name] = store.put(pack(frames.to_tree()))
    if result["checkpoint"] is not None:
        artifacts["checkpoint"] = store.put(result["checkpoint"])
    return artifacts


def _pack_columns(columns: Columns) -> dict[str, Any]:
    """Distinct values and codes; columns with too many values are left out."""
    out: dict[str, Any] = {}
    for name, values in columns.items():
        text = values.dtype.kind not in "fiub"
        distinct, codes = np.unique(values.astype(str) if text else values, return_inverse=True)
        if len(distinct) <= MOST_VALUES:
            # Names come from data and may begin with anything; the pack keeps "$" for itself.
            out[f"c:{name}"] = {
                "values": list(distinct.tolist()) if text else distinct,
                "codes": codes.astype(np.int32),
            }
    return out


def _unpack_columns(tree: Mapping[str, Any]) -> Columns:
    out: Columns = {}
    for name, item in tree.items():
        values = item["values"]
        table = np.array(values, dtype=object) if isinstance(values, list) else values
        out[name[2:]] = table[item["codes"]]
    return out
