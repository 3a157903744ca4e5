"""An endpoint in numbers for people: traffic, latency, what moved, how good it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.reference.columns import ColumnReference
from tidemill.bundle.reference.file import Reference
from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.task import JOINT
from tidemill.deploy.watch import history
from tidemill.deploy.watch.facts import Facts
from tidemill.deploy.watch.judge import dropped, judge
from tidemill.deploy.watch.prometheus import OBJECTIVE
from tidemill.deploy.watch.sketch import Sketch, key_of
from tidemill.deploy.watch.sources import RecordSources, folder_of
from tidemill.deploy.watch.truth import REST
from tidemill.deploy.watch.window import DEPLOY_WINDOW, STAGES, Window, burn_rate, merge, quantile_ms

if TYPE_CHECKING:
    from tidemill.store.workspace import Workspace

TOP = 10
"""Columns whose histograms are shown."""


def report(
    workspace: Workspace,
    endpoint: str,
    *,
    hours: float = 24.0,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Sum up what all serving processes saw.

    Parameters
    ----------
    workspace : Workspace
        Where they wrote it.
    endpoint : str
        Of which endpoint.
    hours : float
        How far back drift looks; counters go back to the beginning.
    clock : callable
        Gives the time in seconds since 1970.

    Returns
    -------
    dict
        ``endpoint``, ``hours``, ``objective`` and ``revisions``, each with traffic, latency in milliseconds, drift with
        histograms of the columns that moved most, estimated and true accuracy; and ``captured`` rows by reason.

    Raises
    ------
    NotFoundError
        If nobody has described or served such an endpoint.
    """
    sources = RecordSources(workspace)
    sources.refresh()
    folder = folder_of(workspace, endpoint)
    now = clock()
    windows = read_windows(workspace, endpoint)
    described = sources.endpoint(endpoint)
    if described is None and not windows:
        known = {r.key.partition("/")[0] for r in workspace.records.find(DEPLOY_WINDOW)}
        known |= {r.key for r in workspace.records.find("endpoint")}
        raise NotFoundError.of("endpoint", endpoint, known)
    periods = history.read_periods(folder / "drift", since=now - hours * 3600)
    order = [r.id for r in described.revisions] if described else []
    names = [*order, *sorted(windows.keys() - set(order))]
    return {
        "endpoint": endpoint,
        "at": now,
        "hours": hours,
        "objective": OBJECTIVE,
        "target_ms": described.target_ms if described else None,
        "revisions": [
            {
                "revision": name,
                "traffic": (described.traffic.get(name, 0.0) if described else None),
                **_traffic(windows.get(name, Window()), now),
                **_model(
                    windows.get(name, Window()),
                    Facts.load(sources.bundle(endpoint, name)),
                    _added(p.sketch for p in periods.get(name, ())),
                ),
            }
            for name in names
        ],
        "captured": _captured(folder / "captured"),
    }


def read_windows(workspace: Workspace, endpoint: str) -> dict[str, Window]:
    """Counters of all fronts by revision."""
    parts: dict[str, list[Window]] = {}
    for record in workspace.records.find(DEPLOY_WINDOW, f"{endpoint}/"):
        revision = record.key.split("/", 2)[1]
        parts.setdefault(revision, []).append(Window.from_json(record.body))
    return {revision: merge(windows) for revision, windows in parts.items()}


def _traffic(window: Window, now: float) -> dict[str, Any]:
    latency: dict[str, Any] = {}
    for stage in STAGES:
        counts = window.latency_counts[stage]
        answers = sum(counts)
        latency[stage] = {
            "mean": window.latency_sums_us[stage] / 1e3 / answers if answers else None,
            **{f"p{round(q * 100)}": quantile_ms(counts, q) for q in (0.5, 0.9, 0.99)},
        }
    return {
        **{
            n: getattr(window, n)
            for n in ("requests", "rows", "errors", "refusals", "retries", "deaths", "slow", "shadow_requests")
        },
        "rows_per_batch": window.rows / window.batches if window.batches else None,
        "latency_ms": latency,
        "burn_rate": {f"{h}h": burn_rate(window.slo, now, h * 3600.0, OBJECTIVE) for h in (1, 6)},
        "predictions": dict(window.label_counts.most_common(TOP)),
        "compared": window.compared,
        "disagreements": window.disagreements,
    }


def _model(window: Window, facts: Facts, sketch: Sketch) -> dict[str, Any]:
    read = window.feedback_characters
    judged = window.feedback_right + window.feedback_wrong
    truth = {
        "rows": window.feedback,
        "accuracy": window.feedback_right / judged if judged else None,
        "f1": _f1_of_labels(window.confusion) if facts.several else _f1(window.confusion, facts.classes),
        "mean_absolute_error": window.feedback_error_sum / window.feedback if window.feedback and not judged else None,
        "character_error_rate": window.feedback_character_errors / read if read else None,
        "confusion": dict(window.confusion),
    }
    reference = facts.reference
    if reference is None:
        return {"drift": {"watched": False, "reason": facts.word}, "estimate": {}, "truth": truth}
    values = sketch.expected.estimate(facts.cost) if sketch.expected else {}
    return {
        "drift": _drift(reference, sketch, window.drift),
        "estimate": {
            "values": values,
            "rows": sketch.expected.total if sketch.expected else 0,
            "usual": dict(reference.quality),
            "why": dropped(values, reference, sketch.rows),
            "alarm": bool(window.estimate.get("alarm", False)),
        },
        "truth": truth,
    }


def _drift(reference: Reference, sketch: Sketch, newest: Mapping[str, Any]) -> dict[str, Any]:
    columns = {c.name: c for c in reference.features}
    columns |= {key_of(c, prediction=True): c for c in reference.predictions}
    judged = judge(reference, sketch)
    return {
        "watched": True,
        "rows": sketch.rows,
        "columns": len(columns),
        "moved": [j.name for j in judged if j.beyond],
        "alarms": list(newest.get("alarms", ())),
        "unreadable": dict(sketch.unreadable),
        "top": [
            {
                **j.to_json(),
                "new_values": sorted(sketch.examples.get(j.name, ())),
                "plot": plot(columns[j.name], sketch.counts[j.name]),
            }
            for j in judged[:TOP]
        ],
    }


def plot(column: ColumnReference, seen: NDArray[np.int64]) -> dict[str, Any]:
    """A column's histogram beside the reference's: names of the cells, and shares of rows.

    Examples
    --------
    >>> age = ColumnReference("age", "age", "number", edges=(0.0, 10.0, 20.0), counts=(0, 0, 5, 5, 0, 0, 0))
    >>> plot(age, np.array([0, 0, 1, 2, 1, 0, 0]))["cells"]
    ['-inf', '< 0', '0 … 10', '10 … 20', '> 20', 'inf', 'missing']
    """
    reference = np.asarray(column.counts, dtype=np.int64)
    if column.kind == "category":
        names = [*column.values, "other", "new", "missing"]
    elif column.kind == "date":
        names = ["present", "missing"]
    else:
        shown = [f"{e:.6g}" for e in column.edges]
        inner = [f"{a} … {b}" for a, b in pairwise(shown)]
        names = ["-inf", f"< {shown[0]}", *inner, f"> {shown[-1]}", "inf", "missing"]
    return {"cells": names, "reference": _shares(reference), "seen": _shares(seen)}


def _shares(counts: NDArray[np.int64]) -> list[float]:
    return [round(float(v), 6) for v in counts / max(int(counts.sum()), 1)]


def _added(sketches: Any) -> Sketch:
    out = Sketch()
    for sketch in sketches:
        try:
            out = out.merged(sketch)
        except DataError:  # counted with the cells of another version of the reference
            continue
    return out


def _f1(confusion: Mapping[str, int], classes: tuple[str, ...]) -> float | None:
    """F1 of the second of two classes, else the mean over classes that occur."""
    pairs: list[tuple[str, str, int]] = []
    for key, count in confusion.items():
        truth, tab, predicted = key.partition("\t")
        if tab:
            pairs.append((truth, predicted, count))
    names = [classes[1]] if len(classes) == 2 else sorted({p[0] for p in pairs} | {p[1] for p in pairs})
    each: list[float] = []
    for name in names:
        right = sum(n for t, p, n in pairs if t == p == name)
        wrong = sum(n for t, p, n in pairs if (t == name) != (p == name))
        if right + wrong:
            each.append(2 * right / (2 * right + wrong))
    return float(np.mean(each)) if each else None


def _f1_of_labels(confusion: Mapping[str, int]) -> float | None:
    r"""Mean F1 over the labels that occur, where a row may have several; None where not all pairs are known by name.

    Examples
    --------
    >>> round(_f1_of_labels({"boat;sea\tboat": 1, "sea\tsea": 1}), 3)  # boat 1, sea 2/3
    0.833
    """
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for key, count in confusion.items():
        if key == f"{REST}\t{REST}":
            return None
        told, _, answer = key.partition("\t")
        truth, predicted = (set(side.split(JOINT)) - {""} for side in (told, answer))
        right.update(dict.fromkeys(truth & predicted, count))
        wrong.update(dict.fromkeys(truth ^ predicted, count))
    each = [2 * right[name] / (2 * right[name] + wrong[name]) for name in right.keys() | wrong.keys()]
    return float(np.mean(each)) if each else None


def _captured(folder: Path) -> dict[str, int]:
    """Rows by reason as they lie on disk; the same content may be in several hours."""
    import orjson
    import pyarrow.parquet as pq

    from tidemill.deploy.watch import segments
    from tidemill.deploy.watch.capture import META

    found: Counter[str] = Counter()
    for path in segments.segments_of(folder) if folder.is_dir() else ():
        slots = {(i["reason"], i["revision"], i["slot"]) for i in map(orjson.loads, segments.read(path))}
        found.update(reason for reason, *_ in slots)
    for path in sorted(folder.glob("*.parquet")) if folder.is_dir() else ():
        found.update(pq.read_table(path, columns=[f"{META}reason"])[f"{META}reason"].to_pylist())
    return dict(found.most_common())
