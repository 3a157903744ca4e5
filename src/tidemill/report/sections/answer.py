"""The answer in plain words: what the model does, how good that is, and what to beware of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.metrics import confusion_matrix
from tidemill.core.task import Task, TaskKind
from tidemill.report.analysis import Analysis
from tidemill.report.blocks import Block, Cards, Items, Note, Section, Text
from tidemill.report.sections.lines import decoding_words, recognition_words
from tidemill.report.words import (
    count,
    interval,
    joined,
    label,
    metric_words,
    number,
    percent,
    quoted,
    score,
    seconds,
    size,
)

FEW_ROWS = 200


def answer(analysis: Analysis) -> Section:
    """Build the first section."""
    blocks: list[Block] = []
    if analysis.evidence is None:
        blocks.append(Note(analysis.left_out["evidence"]))
    else:
        first, *rest = _in_words(analysis)
        blocks.append(Text(first, lead=True))
        blocks += [Text(sentence) for sentence in rest]
    blocks.append(Cards(_cards(analysis)))
    beware = _beware(analysis)
    if beware:
        blocks.append(Items(beware))
    return Section("answer", "The answer", blocks, "plain")


def _in_words(analysis: Analysis) -> list[str]:
    evidence, task = analysis.evidence, analysis.facts.task
    assert evidence is not None
    if task.kind is TaskKind.RECOGNITION:
        words = recognition_words(task, evidence)
    elif analysis.decisions is None:
        words = regression_words(task, evidence.y, np.asarray(evidence.scores, np.float64)[:, 0], _unit(analysis))
    elif task.kind is TaskKind.MULTILABEL:
        words = label_words(task, evidence.y, analysis.decisions)
    else:
        counts = confusion_matrix(evidence.y, analysis.decisions, task.n_classes)
        words = binary_words(task, counts) if task.kind is TaskKind.BINARY else multiclass_words(task, counts)
    words.append(_measured(analysis))
    if task.kind is TaskKind.RECOGNITION:
        words.append(decoding_words())
    leans = [i.column for i in analysis.importances.columns[:3] if i.low > 0] if analysis.importances else []
    if leans:
        words.append(f"It leans most on {joined([quoted(c) for c in leans])}.")
    return words


def _measured(analysis: Analysis) -> str:
    evidence, value = analysis.evidence, analysis.value
    assert evidence is not None
    measured = f"This was measured on {count(len(evidence.y), 'row')} that the model had not learned from"
    where = f"{measured} ({evidence.name})."
    if value is None:
        return where
    sure = f" (95 % interval: {interval(value.low, value.high)})" if value.low is not None else ""
    return f"{where} Its {metric_words(analysis.measure.name)} there is {score(value.value)}{sure}."


def _unit(analysis: Analysis) -> str:
    schema, target = analysis.facts.schema, analysis.facts.task.target
    unit = schema[target].unit if target in schema else None
    return f" {unit}" if unit else ""


def binary_words(task: Task, counts: NDArray[np.float64]) -> list[str]:
    r"""Say what is found and what is named rightly.

    Examples
    --------
    >>> task = Task(TaskKind.BINARY, "churn", ("no", "yes"))
    >>> binary_words(task, np.array([[8.0, 0.0], [1.0, 1.0]]))[0]
    'The model finds 50\xa0% of the rows where “churn” is “yes”; 100\xa0% of those that it names are right.'
    """
    name, positive = quoted(task.target), quoted(task.classes[1])
    found, named = counts[1].sum(), counts[:, 1].sum()
    if not found:
        first = f"No row here has {positive} for {name}, so that it can't be said how many of them the model finds."
    else:
        first = f"The model finds {percent(counts[1, 1] / found)} of the rows where {name} is {positive}; "
        right = f"{percent(counts[1, 1] / named)} of those that it names are right." if named else "it names none."
        first += f"about {right}" if named and 0 < counts[1, 1] < named else right
    return [first, _against_guessing(task, counts)]


def _against_guessing(task: Task, counts: NDArray[np.float64]) -> str:
    truth = counts.sum(axis=1)
    right, often = np.trace(counts) / counts.sum(), int(truth.argmax())
    return (
        f"Over all rows it decides {percent(float(right))} rightly; always answering {quoted(task.classes[often])} "
        f"would be right for {percent(float(truth[often] / counts.sum()))}."
    )


def multiclass_words(task: Task, counts: NDArray[np.float64]) -> list[str]:
    r"""Say how often it is right, and which class is easy and which is hard.

    Examples
    --------
    >>> task = Task(TaskKind.MULTICLASS, "kind", ("a", "b", "c"))
    >>> multiclass_words(task, np.diag([3.0, 2.0, 1.0]))[0]
    'The model finds the right “kind” for 100\xa0% of the rows.'
    """
    truth = counts.sum(axis=1)
    right = float(np.trace(counts) / counts.sum())
    often = int(truth.argmax())
    words = [
        f"The model finds the right {quoted(task.target)} for {percent(right)} of the rows"
        + ("." if right == 1 else
           f"; always answering {quoted(task.classes[often])} would be right for "
           f"{percent(float(truth[often] / counts.sum()))}.")
    ]  # fmt: skip
    seen = np.flatnonzero(truth)
    if len(seen) > 1 and right < 1:
        recall = np.diagonal(counts)[seen] / truth[seen]
        best, worst = int(seen[recall.argmax()]), int(seen[recall.argmin()])
        wrong = counts[worst].copy()
        wrong[worst] = -1
        taken = (
            f", which it most often takes for {quoted(task.classes[int(wrong.argmax())])}" if wrong.max() > 0 else ""
        )
        words.append(
            f"It is best at {quoted(task.classes[best])} ({percent(float(recall.max()))} of them are found) and "
            f"weakest at {quoted(task.classes[worst])} ({percent(float(recall.min()))}){taken}."
        )
    return words


def label_words(task: Task, y: NDArray[np.integer[Any]], decisions: NDArray[np.int64]) -> list[str]:
    r"""Say how many labels are found and rightly named, and for how many rows all of them are right.

    Examples
    --------
    >>> task = Task(TaskKind.MULTILABEL, "tags", ("sea", "boat"))
    >>> label_words(task, np.array([[1, 1], [1, 0]]), np.array([[1, 0], [1, 0]]))[1]
    'For 50\xa0% of the rows all labels are right; answering none at all would be right for 0\xa0%.'
    """
    true, named = np.asarray(y) > 0, np.asarray(decisions) > 0
    hits = float((true & named).sum())
    found = f"The model finds {percent(hits / true.sum())} of the labels in {quoted(task.target)}" if true.any() else ""
    right = f"{percent(hits / named.sum())} of those that it names are right" if named.any() else "it names none"
    first = f"{found}; {right}." if found else f"No row here has a label in {quoted(task.target)}; {right}."
    whole, none = float((true == named).all(axis=1).mean()), float((~true).all(axis=1).mean())
    words = [
        first,
        f"For {percent(whole)} of the rows all labels are right; answering none at all would be right for "
        f"{percent(none)}.",
    ]
    f1 = 2 * (true & named).sum(axis=0) / np.maximum(true.sum(axis=0) + named.sum(axis=0), 1)
    seen = np.flatnonzero(true.any(axis=0))
    if len(seen) > 1 and whole < 1:
        best, worst = int(seen[f1[seen].argmax()]), int(seen[f1[seen].argmin()])
        words.append(
            f"It is best at {quoted(task.classes[best])} (F1 {score(float(f1[best]))}) and weakest at "
            f"{quoted(task.classes[worst])} (F1 {score(float(f1[worst]))})."
        )
    return words


def regression_words(task: Task, y: NDArray[np.float64], predicted: NDArray[np.float64], unit: str) -> list[str]:
    """Say how far off predictions usually are, and how far a constant would be.

    Examples
    --------
    >>> task = Task(TaskKind.REGRESSION, "price")
    >>> regression_words(task, np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.5]), " €")[0]
    'Half of the predictions of “price” are within 0 € of the truth, nine of ten within 0.4 €.'
    """
    middle, most = np.quantile(np.abs(y - predicted), [0.5, 0.9])
    constant = float(np.median(np.abs(y - np.median(y))))
    spread = float(np.mean((y - y.mean()) ** 2))
    words = [
        f"Half of the predictions of {quoted(task.target)} are within {number(float(middle))}{unit} of the truth, nine "
        f"of ten within {number(float(most))}{unit}."
    ]
    more = f"Always answering the middle value, {number(float(np.median(y)))}{unit}, would be within "
    more += f"{number(constant)}{unit} for half of the rows"
    if spread > 0:
        explained = 1 - float(np.mean((y - predicted) ** 2)) / spread
        if explained > 0:
            more += f"; the model explains {percent(explained)} of what makes the rows differ"
        else:
            more += "; the model is no better than answering the mean"
    return [*words, more + "."]


def _cards(analysis: Analysis) -> list[tuple[str, str, str]]:
    facts, value = analysis.facts, analysis.value
    cards: list[tuple[str, str, str]] = []
    if value is not None:
        below = interval(value.low, value.high) if value.low is not None else "too few rows for an interval"
        cards.append((metric_words(analysis.measure.name), score(value.value), below))
    if analysis.evidence is not None:
        cards.append(("Rows measured on", number(len(analysis.evidence.y)), analysis.evidence.name))
    finished = [r for r in facts.leaderboard if r.get("value") is not None]
    if facts.leaderboard:
        spent = seconds(facts.history[-1][0]) if facts.history else ""
        cards.append(("Trials", number(len(finished)), f"in {spent}" if spent else "finished"))
    latency, bytes_ = facts.bundle.get("latency_ms"), facts.bundle.get("size_bytes")
    if isinstance(latency, (int, float)):
        cards.append(("Latency of one row", f"{number(float(latency))} ms", "onnxruntime, warm"))
    if isinstance(bytes_, (int, float)):
        cards.append(("Size of the bundle", size(float(bytes_)), "all that is needed to predict"))
    if facts.constraints:
        kept = sum(bool(c.get("satisfied")) for c in facts.constraints)
        cards.append(("Constraints kept", f"{kept} of {len(facts.constraints)}", "see below"))
    return cards


def _beware(analysis: Analysis) -> list[str]:
    facts, out = analysis.facts, []
    broken = [str(c.get("constraint")) for c in facts.constraints if not c.get("satisfied")]
    if broken:
        out.append(f"Not kept: {joined([quoted(b) for b in broken])}.")
    if analysis.evidence is not None and len(analysis.evidence.y) < FEW_ROWS:
        rows = count(len(analysis.evidence.y), "row")
        out.append(f"Every figure here rests on {rows} only; with others it may come out quite differently.")
    severe = [f for f in facts.findings if str(f.get("severity")) in ("error", "critical", "high", "warning", "warn")]
    if severe:
        asks = "asks" if len(severe) == 1 else "ask"
        out.append(f"{count(len(severe), 'data check')} {asks} for attention; see “Data checks”.")
    if analysis.slices is not None and analysis.slices.worst:
        worst = analysis.slices.worst[0]
        words = label(worst.words, 90)
        out.append(f"It is weakest where {words} ({count(worst.rows, 'row')}); see “Where it is worst”.")
    return out
