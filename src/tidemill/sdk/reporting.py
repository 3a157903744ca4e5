"""From a study to the facts of its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.runtime import Bundle
from tidemill.core.metrics import get_metric
from tidemill.core.schema import take_rows
from tidemill.core.task import TaskKind
from tidemill.report.facts import Evidence, ReportFacts
from tidemill.report.html import write_report
from tidemill.sdk.decoding import decoding_of

if TYPE_CHECKING:
    from tidemill.sdk.study import Study


def report(study: Study, path: Path, deadline: float | None = None, bundle: Bundle | None = None) -> Path:
    """Write the report of a study under its objective.

    Parameters
    ----------
    study : Study
        The study.
    path : Path
        File to write.
    deadline : float, optional
        `time.monotonic` value at which it should be done.
    bundle : Bundle, optional
        The exported candidate; without it importance and dependence ask the trained models themselves.
    """
    return write_report(facts_of(study, deadline, bundle), path)


def facts_of(study: Study, deadline: float | None = None, bundle: Bundle | None = None) -> ReportFacts:
    """Gather everything that a report shows."""
    choice, search = study.best, study.search
    metric = get_metric(choice.metric)
    return ReportFacts(
        study=study.name,
        task=study.task,
        schema=study.modality.report_schema(study.prepared),
        objective=str(choice.candidate.objective),
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        leaderboard=_board(study, choice.candidate.weights, metric.name),
        pareto=[str(row["trial"]) for row in study.pareto()],
        history=_history(study, metric.name),
        curves=_curves(study),
        evidence=_evidence(study),
        predict=study.modality.predict(study, bundle),
        findings=[
            {"severity": f.severity, "column": f.column, "message": f.message, "hint": f.hint}
            for f in study.prepared.findings
        ],
        constraints=[
            {"constraint": str(r.constraint), "value": r.value, "satisfied": r.satisfied}
            for r in choice.candidate.constraints
        ],
        steps=_steps(study),
        bundle={} if bundle is None else _bundle_facts(bundle),
        deadline=deadline,
        seed=int(search.record.settings.get("seed", 0)),
    )


def _board(study: Study, weights: Mapping[int, float], metric: str) -> list[dict[str, Any]]:
    """Whole trials as the report's table wants them, best first."""
    trials = {t.number: t for t in study.search.trials()}
    return [
        {
            "trial": row["trial"],
            "family": row["family"],
            "value": row.get(metric),
            "latency_ms": row["latency_ms"],
            "size_bytes": row["size_bytes"],
            "params": row["params"],
            "folds": trials[row["number"]].folds,
            "wall_s": trials[row["number"]].usage.wall_s,
            "state": trials[row["number"]].state.value,
            "weight": weights.get(row["number"]),
        }
        for row in study.leaderboard()
    ]


def _bundle_facts(bundle: Bundle) -> dict[str, Any]:
    performance, parity = bundle.spec.performance, bundle.spec.parity
    curve = {point["batch"]: point for point in performance["latency"]}
    fastest = max(point["rows_per_s"] for point in performance["latency"])
    return {
        "path": bundle.path.name,
        "size_bytes": bundle.model_path.stat().st_size,
        "latency_ms": curve[1]["p50_ms"],
        "best batch": performance["best_batch"],
        "rows per second": fastest,
        "peak memory (bytes)": performance["peak_memory_bytes"],
        "rows proven equal": parity.get("rows"),
        "largest difference": parity["max_rel" if bundle.task.kind is TaskKind.REGRESSION else "max_abs_dp"],
        **({"texts": decoding_of(bundle)} if bundle.task.kind is TaskKind.RECOGNITION else {}),
        "opset": ", ".join(f"{domain or 'ai.onnx'} {n}" for domain, n in bundle.spec.opset.items()),
    }


def _history(study: Study, metric: str) -> list[tuple[float, float]]:
    """Seconds since the study's creation and score of each whole trial, in order of finish."""
    begin = study.search.record.created_at
    ended = [t for t in study.search.whole.values() if t.finished_at is not None and metric in t.scores]
    return sorted((float(t.finished_at or begin) - begin, t.scores[metric]) for t in ended)


def _curves(study: Study) -> dict[str, list[tuple[float, float]]]:
    """Learning curves by trial: whole ones as on the leaderboard, then those that paused or were left behind."""
    ranked = {row["number"]: place for place, row in enumerate(study.leaderboard())}
    known = [t for t in study.search.trials() if t.curve]
    known.sort(key=lambda t: (ranked.get(t.number, len(ranked)), t.number))
    return {t.name: [(float(step), value) for step, value in t.curve] for t in known}


def _evidence(study: Study) -> list[Evidence]:
    choice, search, prepared = study.best, study.search, study.prepared
    places = {"out_of_fold": prepared.train[search.covered_rows], "test": prepared.test}
    names = {"out_of_fold": "out of fold", "test": "locked test slice"}
    return [
        Evidence(
            names[e.source], e.y, e.scores, _decisions(study, e.scores), take_rows(prepared.columns, places[e.source])
        )
        for e in choice.evidence()
    ]


def _decisions(study: Study, scores: NDArray[Any]) -> NDArray[np.int64] | None:
    if not study.task.kind.has_labels:
        return None
    return study.best.candidate.decision.apply(np.asarray(scores, dtype=np.float64))


def _steps(study: Study) -> list[str]:
    """What was done, one plain sentence each."""
    prepared, search = study.prepared, study.search
    trials = search.trials()
    states = [t.state.value for t in trials]
    used = prepared.schema.features
    dropped = [c.name for c in prepared.schema if not c.type.is_feature and c.name != study.task.target]
    seen = f"{len(used)} columns are used"
    if prepared.schema.has_images or prepared.schema.has_texts:
        seen = f"the {'image' if prepared.schema.has_images else 'text'} is all that is seen"
    steps = [f"{len(prepared.y):,} rows were read; {seen} to predict {study.task.target!r}."]
    if dropped:
        steps.append("Left out: " + ", ".join(repr(d) for d in dropped) + " (the reasons are in the table of columns).")
    if len(prepared.test):
        steps.append(f"{len(prepared.test):,} rows were locked away before the search and looked at once, at its end.")
    steps.append(study.modality.how_trained(study))
    tried = sorted({t.family for t in trials})
    steps.append(f"{states.count('complete')} trials finished, of these families: {', '.join(tried)}.")
    if "failed" in states:
        steps.append(f"{states.count('failed')} trials failed; their reasons are kept (`tidemill show`).")
    steps.append(f"Chosen: {study.best.candidate.name}.")
    return steps
