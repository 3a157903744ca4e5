"""A summary of every column as plain values: for the report, and as the reference that later rows are compared with."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import Column, Columns, Schema

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BARS = 20
_TOP = 20


def profile(columns: Columns, schema: Schema) -> dict[str, Any]:
    """Summarise the features of a table.

    Parameters
    ----------
    columns : Columns
        Physical columns (`tidemill.data.coerce.to_columns`).
    schema : Schema
        What they mean.

    Returns
    -------
    dict
        JSON-able: ``rows``, and for each of ``columns`` its ``name``, ``type``, ``missing`` (share) and ``distinct``;
        numeric ones with ``min, max, mean, std, infinite, quantiles`` and a ``histogram`` (``edges``, ``counts``;
        the outermost bars reach beyond the 1 % and 99 % quantiles), others with the ``top`` values and their counts.

    Examples
    --------
    >>> import numpy as np
    >>> from tidemill.core.schema import Column, Schema, SemanticType
    >>> schema = Schema((Column("sex", SemanticType.CATEGORY),))
    >>> profile({"sex": np.array(["f", "m", "f", ""], dtype=object)}, schema)["columns"][0]["top"]
    [['f', 2], ['m', 1]]
    """
    rows = len(next(iter(columns.values()))) if columns else 0
    return {"rows": rows, "columns": [_describe(c, columns[c.name]) for c in schema.features if c.name in columns]}


def _describe(column: Column, values: NDArray[Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": column.name, "type": column.type.value}
    return out | (_words(values) if values.dtype == object else _numbers(values))


def _words(values: NDArray[Any]) -> dict[str, Any]:
    counts = Counter(values.tolist())
    missing = counts.pop("", 0)
    lengths = np.fromiter((len(w) for w in counts), dtype=np.int64, count=len(counts))
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
    return {
        "missing": missing / max(1, len(values)),
        "distinct": len(counts),
        "longest": int(lengths.max()) if len(lengths) else 0,
        "top": [[word[:200], count] for word, count in top],
    }


def _numbers(values: NDArray[np.float64]) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    out: dict[str, Any] = {
        "missing": float(np.isnan(values).mean()) if len(values) else 0.0,
        "infinite": int(np.isinf(values).sum()),
        "distinct": len(np.unique(values[~np.isnan(values)])),
    }
    if not len(finite):
        return out
    quantiles = np.quantile(finite, _QUANTILES)
    low, high = float(quantiles[0]), float(quantiles[-1])
    if low == high:
        low, high = float(finite.min()), float(finite.max())
    edges = np.linspace(low, high, _BARS + 1) if high > low else np.array([low, low])
    counts = np.histogram(np.clip(finite, low, high), edges)[0] if high > low else np.array([len(finite)])
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(finite.mean()), float(finite.std())
    return out | {
        "min": float(finite.min()),
        "max": float(finite.max()),
        "mean": mean if np.isfinite(mean) else None,
        "std": std if np.isfinite(std) else None,
        "quantiles": {f"{q:g}": float(v) for q, v in zip(_QUANTILES, quantiles, strict=True)},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
