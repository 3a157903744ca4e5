"""For classification: order, decisions, calibration, class by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidemill.core.metrics import confusion_matrix, get_metric
from tidemill.core.task import TaskKind
from tidemill.report.analysis import Analysis
from tidemill.report.blocks import Block, Cell, Figure, Note, Section, Table
from tidemill.report.figures._base import Easel
from tidemill.report.figures.calibration import draw_calibration, reliability
from tidemill.report.figures.decisions import MOST_CLASSES, draw_confusion
from tidemill.report.figures.ranking import Curve, curve_of, draw_precision_recall, draw_roc
from tidemill.report.words import count, label, number, percent, quoted, score

MOST_CURVES = 10
MOST_ROWS = 40


def ranking(analysis: Analysis, easel: Easel) -> Section:
    """ROC and precision over recall."""
    curves, total = _curves(analysis)
    if not curves:
        note = Note("The rows hold a single class, so that there is no ROC or precision-recall curve to draw.")
        return Section("ranking", "How well it ranks", [note])
    of = f"the {len(curves)} most frequent of {total} classes" if total > len(curves) else "each class"
    against = f" One line for {of}, against all others." if analysis.facts.task.n_classes > 2 else ""
    roc = (
        "ROC. The line should climb steeply at the left and lie far above the dotted one, which is guessing. The area "
        f"is the chance that a row of the class is scored above another.{against}"
    )
    flat = " The dotted line is guessing." if len(curves) == 1 else ""
    pr = (
        "Precision over recall. Pick the share that must be found and read off how many alarms are then right; look "
        f"for where the line breaks down.{flat}"
    )
    blocks: list[Block] = [Figure(draw_roc(easel, curves), roc), Figure(draw_precision_recall(easel, curves), pr)]
    return Section("ranking", "How well it ranks", blocks)


def _curves(analysis: Analysis) -> tuple[list[Curve], int]:
    """Curves of the classes that can be told from the rest, the most frequent ones; and how many there are."""
    evidence, task = analysis.evidence, analysis.facts.task
    assert evidence is not None
    counts = np.bincount(evidence.y, minlength=task.n_classes)
    usable = [int(k) for k in np.flatnonzero((counts > 0) & (counts < len(evidence.y)))]
    if task.kind is TaskKind.BINARY:
        usable = [k for k in usable if k == 1]
    chosen = sorted(sorted(usable, key=lambda k: -counts[k])[:MOST_CURVES])
    scores = np.asarray(evidence.scores, dtype=np.float64)
    area, precision = get_metric("roc_auc"), get_metric("average_precision")
    out = []
    for k in chosen:
        name = task.classes[k]
        one = area(evidence.y, scores, task=task, label=name)
        two = precision(evidence.y, scores, task=task, label=name)
        out.append(curve_of(name, evidence.y == k, scores[:, k], one, two))
    return out, len(usable)


def decisions(analysis: Analysis, easel: Easel) -> Section:
    """Confusion matrix and the table by class."""
    evidence, task = analysis.evidence, analysis.facts.task
    assert evidence is not None
    assert analysis.decisions is not None
    counts = confusion_matrix(evidence.y, analysis.decisions, task.n_classes)
    blocks: list[Block] = []
    if task.n_classes <= MOST_CLASSES:
        caption = (
            f"Rows are what is true, columns what was decided {_rule(analysis)}. All should lie on the diagonal; look "
            "for dark cells beside it: those classes are taken for each other. The shade is the share of the row."
        )
        blocks.append(Figure(draw_confusion(easel, counts, task.classes), caption))
    else:
        blocks.append(
            Note(f"A matrix of {task.n_classes} classes can't be read; the table names the worst confusions.")
        )
    blocks.append(_by_class(analysis, counts))
    return Section("decisions", "What it decides", blocks)


def _rule(analysis: Analysis) -> str:
    rule = analysis.measure.decision
    if rule.kind == "cost":
        return "(the cheapest by the cost matrix)"
    if rule.kind == "argmax":
        return "(the most probable class)"
    positive = quoted(analysis.facts.task.classes[1])
    return f"({positive} where its probability is above about {number(rule.threshold)})"


def _by_class(analysis: Analysis, counts: NDArray[np.float64]) -> Table:
    task = analysis.facts.task
    truth, named, hits = counts.sum(axis=1), counts.sum(axis=0), np.diagonal(counts)
    wrong = counts - np.diag(hits)
    f1 = np.divide(2 * hits, truth + named, out=np.zeros(len(hits)), where=truth + named > 0)
    order = np.argsort(f1, kind="stable") if task.n_classes > 2 else np.arange(2)[::-1]
    rows: list[list[str | Cell]] = []
    for k in order[:MOST_ROWS]:
        worst = int(wrong[k].argmax())
        taken = f"{label(task.classes[worst], 40)} ({number(wrong[k, worst])})" if wrong[k, worst] else "–"
        rows.append([
            label(task.classes[k], 60),
            number(truth[k]),
            percent(hits[k] / truth[k]) if truth[k] else "–",
            percent(hits[k] / named[k]) if named[k] else "–",
            score(float(f1[k])) if truth[k] else "–",
            taken,
        ])  # fmt: skip
    headers = ["Class", "Rows", "Found (recall)", "Right when named (precision)", "F1", "Most often taken for"]
    more = f" The worst {MOST_ROWS} of {task.n_classes} are shown." if task.n_classes > MOST_ROWS else ""
    caption = f"Class by class{', worst first' if task.n_classes > 2 else ''}. Look for classes with many rows and a low share found; of a class with few rows the shares are rough.{more}"  # noqa: E501
    return Table(headers, rows, caption, frozenset({1, 2, 3, 4}))


def calibration(analysis: Analysis, easel: Easel) -> Section:
    """Stated against observed probabilities."""
    evidence, task = analysis.evidence, analysis.facts.task
    assert evidence is not None
    scores = np.asarray(evidence.scores, dtype=np.float64)
    if task.n_classes == 2:
        stated, hit, what = scores[:, 1], evidence.y == 1, label(task.classes[1], 20)
    else:
        top = scores.argmax(axis=1)
        stated, hit, what = scores[np.arange(len(top)), top], top == evidence.y, "the most probable class"
    found = reliability(stated, hit)
    caption = (
        f"Calibration error (ECE) {score(found.error)} over {count(len(found.rows), 'bin')}. The line should follow "
        "the dotted one: of all rows given 70 %, 70 % should come true. Below it the model promises too much, above it "
        "too little. Bars below show how many rows stand behind each point; where they are few, trust the line less."
    )
    return Section("calibration", "Whether its probabilities can be trusted", [
        Figure(draw_calibration(easel, found, what), caption)
    ])  # fmt: skip
