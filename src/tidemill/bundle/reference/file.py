"""``monitor/reference.json``: written, read, and held against the manifest."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidemill.bundle import manifest
from tidemill.bundle.reference.columns import ColumnReference, Limit
from tidemill.bundle.reference.limits import LEVEL
from tidemill.core.errors import BundleError

NAME = "monitor/reference.json"
FORMAT = "tidemill-reference"
FORMAT_VERSION = 1
NOT_WATCHED = "The bundle has no monitor/reference.json, so drift is not watched; export it again to have one."


@dataclass(frozen=True)
class Reference:
    """How a bundle's inputs and answers looked when it was made.

    Parameters
    ----------
    features, predictions : tuple of ColumnReference
        Inputs, and the answers: ``label`` and `CONFIDENCE`, or ``prediction``.
    source : str
        Rows that the predictions come from: ``"test"``, ``"out_of_fold"``, or ``"train"`` where there is nothing
        better.
    quality : mapping
        Metrics on rows that the model was not trained on, by name; empty where there were none.
    quality_rows : int
        Number of those rows.
    """

    features: tuple[ColumnReference, ...]
    predictions: tuple[ColumnReference, ...]
    source: str = "train"
    quality: Mapping[str, float] = field(default_factory=dict)
    quality_rows: int = 0

    @property
    def columns(self) -> tuple[ColumnReference, ...]:
        """Features, then predictions."""
        return (*self.features, *self.predictions)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "level": LEVEL,
            "source": self.source,
            "quality": dict(self.quality),
            "quality_rows": self.quality_rows,
            "features": [_to_json(c) for c in self.features],
            "predictions": [_to_json(c) for c in self.predictions],
        }

    @classmethod
    def from_json(cls, data: Any) -> Reference:
        """Rebuild from `to_json`.

        Raises
        ------
        BundleError
            If it is damaged, or of a newer version.
        """
        try:
            if data["format"] == FORMAT and data["format_version"] > FORMAT_VERSION:
                raise BundleError(
                    f"The reference has format {data['format_version']}, but this Tidemill reads up to "
                    f"{FORMAT_VERSION}.",
                    where=NAME,
                    hint="Install a newer Tidemill.",
                )
            found = cls(
                tuple(_from_json(c) for c in data["features"]),
                tuple(_from_json(c) for c in data["predictions"]),
                str(data["source"]),
                {str(k): float(v) for k, v in data["quality"].items()},
                int(data["quality_rows"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"The reference is damaged ({error}).", where=NAME) from error
        wrong = [c.name for c in found.columns if not _fits(c)]
        if data["format"] != FORMAT or wrong:
            raise BundleError(f"The reference is damaged{_of(wrong)}.", where=NAME, hint="Export the bundle again.")
        return found

    def render(self) -> bytes:
        """Bytes of the file."""
        return (json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()


def _of(names: Sequence[str]) -> str:
    return f" (column {names[0]!r})" if names else ""


def _to_json(column: ColumnReference) -> dict[str, Any]:
    shown = {k: getattr(column, k) for k in ("name", "input", "kind")}
    lists = {k: list(getattr(column, k)) for k in ("edges", "values", "others", "counts") if getattr(column, k)}
    return {**shown, **lists, "limits": [[x.rows, x.psi, x.ks] for x in column.limits]}


def _from_json(data: Mapping[str, Any]) -> ColumnReference:
    return ColumnReference(
        str(data["name"]),
        str(data["input"]),
        str(data["kind"]),
        tuple(float(v) for v in data.get("edges", ())),
        tuple(str(v) for v in data.get("values", ())),
        tuple(str(v) for v in data.get("others", ())),
        tuple(int(v) for v in data.get("counts", ())),
        tuple(Limit(int(n), float(psi), float(ks)) for n, psi, ks in data["limits"]),
    )


def _fits(column: ColumnReference) -> bool:
    if column.kind not in ("number", "category", "text", "date"):
        return False
    rising = all(a <= b for a, b in zip(column.edges, column.edges[1:], strict=False))
    needs_edges = column.kind in ("number", "text")
    return (
        rising
        and (len(column.edges) >= 2) == needs_edges
        and len(column.counts) == column.size
        and min(column.counts) >= 0
        and all(math.isfinite(e) for e in column.edges)
    )


def read_reference(folder: Path) -> Reference | None:
    """Read a bundle's reference; None for an older bundle that has none (then drift is not watched).

    Raises
    ------
    BundleError
        If the file is not the one that the manifest lists, or can't be read.
    """
    path = folder / NAME
    try:
        listed = manifest.parse((folder / manifest.NAME).read_bytes()).get(NAME)
        if listed is None:
            return None
        if manifest.entry_of(path) != listed:
            raise BundleError("The file is damaged: its hash is not the one in the manifest.", where=str(path))
        return Reference.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise BundleError(f"The reference can't be read ({error}).", where=str(path)) from error
