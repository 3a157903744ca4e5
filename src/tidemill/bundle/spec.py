"""``bundle.json``: what a bundle says of itself, as a type, read strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tidemill.bundle.manifest import FORMAT, FORMAT_VERSION
from tidemill.core.calibration import Calibration
from tidemill.core.decision import Decision
from tidemill.core.errors import BundleError, TidemillError
from tidemill.core.schema import Schema
from tidemill.core.task import Task

NAME = "bundle.json"


@dataclass(frozen=True)
class MetricValue:
    """One metric with its 95 % confidence interval.

    Parameters
    ----------
    source : str
        ``"out_of_fold"`` or ``"test"``.
    name : str
        Of the metric.
    value, low, high : float
        The value over all rows, and the interval by bootstrap.
    rows : int
        Rows that it was measured on.
    greater_is_better : bool
        False for losses and errors.
    """

    source: str
    name: str
    value: float
    low: float
    high: float
    rows: int
    greater_is_better: bool


@dataclass(frozen=True)
class BundleInfo:
    """What the one who builds a bundle knows and the recipe does not.

    Parameters
    ----------
    name : str
        For people; default the name of the folder.
    objective : str
        Text of the objective.
    lineage : dict
        Where it comes from: study, dataset version, trials, seed, library versions. JSON-able.
    cost : dict
        Parameters, FLOPs, size and latency as the search counted them.
    notes : tuple of str
        What a reader of the card should know: dropped columns, notices of the data, a constraint that nothing met.
    created_at : str
        UTC in ISO form; default now.
    """

    name: str = ""
    objective: str = ""
    lineage: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    created_at: str = ""


@dataclass(frozen=True)
class BundleSpec:
    """Everything that stands in ``bundle.json``.

    Parameters
    ----------
    info : BundleInfo
        Name, objective, lineage, cost, notes, time.
    task, schema : Task, Schema
        The problem, and all columns with their units.
    decision, calibration : Decision, Calibration or None
        How a label is decided in the graph.
    members : tuple of dict
        ``{name, weight, parts}`` of the ensemble.
    metrics : tuple of MetricValue
        How good it is.
    parity : dict
        `ParityReport.to_json`: how near the graph is to the trained model, and the bars.
    performance : dict
        `Performance.to_json`: latency curve, best batch, peak memory.
    opset : dict
        Operator set by domain.
    versions : dict
        Of Tidemill and the libraries that wrote the bundle.
    decode : dict
        How texts are searched for behind the graph, as its metadata has it, too; empty, and not written, where they
        aren't.
    """

    info: BundleInfo
    task: Task
    schema: Schema
    decision: Decision
    calibration: Calibration | None
    members: tuple[dict[str, Any], ...]
    metrics: tuple[MetricValue, ...]
    parity: dict[str, Any]
    performance: dict[str, Any]
    opset: dict[str, int]
    ir_version: int
    versions: dict[str, str]
    decode: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.info.name,
            "created_at": self.info.created_at,
            "objective": self.info.objective,
            "task": self.task.to_json(),
            "schema": self.schema.to_json(),
            "decision": self.decision.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "members": list(self.members),
            "metrics": [vars(m) for m in self.metrics],
            "parity": self.parity,
            "performance": self.performance,
            "opset": self.opset,
            "ir_version": self.ir_version,
            "cost": self.info.cost,
            "lineage": self.info.lineage,
            "notes": list(self.info.notes),
            "versions": self.versions,
            **({"decode": self.decode} if self.decode else {}),
        }

    @classmethod
    def from_json(cls, data: Any) -> BundleSpec:
        """Rebuild from `to_json`; every field must be there and have its type.

        Raises
        ------
        BundleError
            With the field that is wrong.
        """
        _check(data)
        try:
            return cls(
                info=BundleInfo(
                    data["name"],
                    data["objective"],
                    data["lineage"],
                    data["cost"],
                    tuple(data["notes"]),
                    data["created_at"],
                ),
                task=Task.from_json(data["task"]),
                schema=Schema.from_json(data["schema"]),
                decision=Decision.from_json(data["decision"]),
                calibration=None if data["calibration"] is None else Calibration.from_json(data["calibration"]),
                members=tuple(data["members"]),
                metrics=tuple(MetricValue(**m) for m in data["metrics"]),
                parity=data["parity"],
                performance=data["performance"],
                opset=data["opset"],
                ir_version=data["ir_version"],
                versions=data["versions"],
                decode=data.get("decode", {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError, TidemillError) as error:
            raise BundleError(f"A field of the bundle's description is wrong ({error}).", where=NAME) from error

    def render(self) -> bytes:
        """Bytes of ``bundle.json``; NaN never stands in it."""
        return (json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "format_version": int,
    "name": str,
    "created_at": str,
    "objective": str,
    "task": dict,
    "schema": list,
    "decision": dict,
    "calibration": (dict, type(None)),
    "members": list,
    "metrics": list,
    "parity": dict,
    "performance": dict,
    "opset": dict,
    "ir_version": int,
    "cost": dict,
    "lineage": dict,
    "notes": list,
    "versions": dict,
}
_OPTIONAL: dict[str, type | tuple[type, ...]] = {"decode": dict}


def _check(data: Any) -> None:
    if not isinstance(data, dict):
        raise BundleError("The bundle's description is not a JSON object.", where=NAME)
    if data.get("format") != FORMAT:
        raise BundleError(f"The bundle's format must be {FORMAT!r}, but is {data.get('format')!r}.", where=NAME)
    version = data.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"The bundle has format {version}, but this Tidemill reads formats up to {FORMAT_VERSION}.",
            where=NAME,
            hint="Install a newer Tidemill.",
        )
    wrong = [f"{name!r} is missing" for name in _FIELDS if name not in data]
    known = {**_FIELDS, **_OPTIONAL}
    wrong += [f"{name!r} is not known" for name in data if name not in known]
    wrong += [
        f"{name!r} has the wrong type ({type(data[name]).__name__})"
        for name, kind in known.items()
        if name in data and not isinstance(data[name], kind)
    ]
    if wrong:
        raise BundleError(f"The bundle's description does not fit: {'; '.join(wrong)}.", where=NAME)
