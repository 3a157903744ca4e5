"""For several labels a row: each label with what is found, what is right, and where its threshold lies."""

from __future__ import annotations

import numpy as np

from tidemill.core.metrics.ranking import average_precision, roc_auc
from tidemill.report.analysis import Analysis
from tidemill.report.blocks import Block, Cell, Note, Section, Table
from tidemill.report.words import label, number, percent, score

MOST_ROWS = 60


def by_label(analysis: Analysis) -> Section:
    """The table by label, and how many labels rows have."""
    evidence, task = analysis.evidence, analysis.facts.task
    assert evidence is not None
    assert analysis.decisions is not None
    true, given = np.asarray(evidence.y) > 0, analysis.decisions > 0
    scores = np.asarray(evidence.scores, dtype=np.float64)
    stands, named, hits = true.sum(axis=0), given.sum(axis=0), (true & given).sum(axis=0)
    f1 = 2 * hits / np.maximum(stands + named, 1)
    bars = analysis.measure.decision.thresholds or (0.5,) * task.n_classes
    rows: list[list[str | Cell]] = []
    for k in np.argsort(f1, kind="stable")[:MOST_ROWS].tolist():
        ranked = 0 < stands[k] < len(true)
        p = np.ascontiguousarray(scores[:, k])
        rows.append([
            label(task.classes[k], 60),
            number(float(stands[k])),
            percent(hits[k] / stands[k]) if stands[k] else "–",
            percent(hits[k] / named[k]) if named[k] else "–",
            score(float(f1[k])) if stands[k] else "–",
            score(average_precision(true[:, k], p)) if ranked else "–",
            score(roc_auc(true[:, k], p)) if ranked else "–",
            number(float(bars[k])),
        ])  # fmt: skip
    headers = [
        "Label", "Rows", "Found (recall)", "Right when named (precision)", "F1", "Average precision", "ROC AUC",
        "Named above",
    ]  # fmt: skip
    more = f" The worst {MOST_ROWS} of {task.n_classes} are shown." if task.n_classes > MOST_ROWS else ""
    caption = (
        "Label by label, worst first. Look for labels with many rows and a low share found; of a label with few rows "
        f"the shares are rough. A label is named where its probability is above the number in the last column.{more}"
    )
    blocks: list[Block] = [Table(headers, rows, caption, frozenset(range(1, len(headers))))]
    mean, given_mean = float(true.sum(axis=1).mean()), float(given.sum(axis=1).mean())
    blocks.append(Note(f"A row has {number(mean)} labels on average, and is given {number(given_mean)}."))
    return Section("labels", "How well it does on each label", blocks)
