"""The plan: what was chosen, what was not and why, as values that can be printed, kept and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tidemill.core.errors import DataError, NotFoundError
from tidemill.train.planner.estimate import Correction, Estimate
from tidemill.train.planner.hardware import Hardware
from tidemill.train.types import Placement


@dataclass(frozen=True)
class Rejected:
    """The best placement of a kind that was not chosen.

    Parameters
    ----------
    placement : Placement
        Which.
    estimate : Estimate
        What it would take.
    reason : str
        One sentence with numbers.
    """

    placement: Placement
    estimate: Estimate
    reason: str


@dataclass(frozen=True)
class Plan:
    """Where to train, with reasons.

    Parameters
    ----------
    placement : Placement
        What was chosen; `tidemill.train.runtime.train` takes it.
    estimate : Estimate
        What it takes.
    reason : str
        Why it, in one sentence with numbers.
    rejected : tuple of Rejected
        The best of each other kind, quickest first, those that don't fit last.
    hardware : Hardware
        What it is for.
    batch : int
        Samples of an optimiser step.
    precision : str
        Of the arithmetic.
    parameters : int
        Of the model.
    notes : tuple of str
        What to know about the numbers.
    correction : Correction
        What the numbers were multiplied by.
    """

    placement: Placement
    estimate: Estimate
    reason: str
    rejected: tuple[Rejected, ...]
    hardware: Hardware
    batch: int
    precision: str
    parameters: int
    notes: tuple[str, ...] = ()
    correction: Correction = field(default_factory=Correction)

    def to_json(self) -> dict[str, Any]:
        """Give the plan as plain JSON; `read_placement` reads its placement from a file of it."""
        return {
            "placement": asdict(self.placement),
            "describe": self.placement.describe(),
            "estimate": self.estimate.to_json(),
            "reason": self.reason,
            "rejected": [
                {
                    "placement": asdict(r.placement),
                    "describe": r.placement.describe(),
                    "estimate": r.estimate.to_json(),
                    "reason": r.reason,
                }
                for r in self.rejected
            ],
            "hardware": self.hardware.to_json(),
            "batch": self.batch,
            "precision": self.precision,
            "parameters": self.parameters,
            "notes": list(self.notes),
            "correction": asdict(self.correction),
        }


def read_placement(path: Path) -> Placement:
    """Read the placement of a plan that was written as JSON, or a placement alone.

    Raises
    ------
    DataError
        For a file that can't be read.
    NotFoundError
        For an entry that no placement has.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"The plan can't be read: {error}.", where=str(path)) from error
    inner = values.get("placement", values) if isinstance(values, dict) else None
    if not isinstance(inner, Mapping):
        raise DataError("A plan is a JSON object with a placement.", where=str(path))
    known = {f.name for f in fields(Placement)}
    for name in inner:
        if name not in known:
            raise NotFoundError.of("entry of a placement", str(name), known)
    kinds = {"replicas": int, "shards": int, "device": str, "recompute": str, "offload": bool}
    wrong = [n for n, k in kinds.items() if n in inner and (type(inner[n]) is not k)]
    if wrong or not isinstance(inner.get("micro_batch"), (int, type(None))):
        raise DataError(
            f"The plan has an entry of the wrong type: {', '.join(wrong) or 'micro_batch'}.", where=str(path)
        )
    return Placement(**inner)
