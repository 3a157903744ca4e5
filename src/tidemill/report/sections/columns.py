"""What the model makes of its columns, and where it is worst."""

from __future__ import annotations

import numpy as np

from tidemill.core.task import TaskKind
from tidemill.report.analysis import Analysis
from tidemill.report.blocks import Block, Cell, Figure, Note, Section, Table
from tidemill.report.figures._base import Easel
from tidemill.report.figures.columns import MOST_BARS, MOST_LINES, draw_dependence, draw_importance
from tidemill.report.importance import WANTED_REPEATS
from tidemill.report.words import count, interval, joined, label, metric_words, number, quoted, score

_RELATIVE = frozenset({"roc_auc", "average_precision", "r2", "mcc"})
"""Metrics that compare rows with one another."""


def importance(analysis: Analysis, easel: Easel) -> Section:
    """Permutation importance."""
    found = analysis.importances
    title = "What it leans on"
    if found is None:
        return Section("importance", title, [Note(analysis.left_out["importance"])])
    name, measure = metric_words(analysis.measure.name), analysis.measure
    few = ", fewer than usual, as time was short" if found.repeats < WANTED_REPEATS else ""
    caption = (
        f"How much worse {name} gets on {count(found.rows, 'row')} when one column is shuffled and so made useless "
        f"({count(found.repeats, 'shuffle')} each{few}; thin lines: 95 % of resamples). Look for a column that should "
        "not matter but does: it may leak the answer. Columns that say the same share their importance, so that each "
        "looks small; this shows what the model uses, not what causes what."
    )
    drawing = draw_importance(easel, found.columns, measure.name, measure.metric.greater_is_better)
    blocks: list[Block] = [Figure(drawing, caption)]
    if len(found.columns) > MOST_BARS:
        nothing = sum(c.low <= 0 for c in found.columns)
        blocks.append(Note(
            f"The first {MOST_BARS} of {len(found.columns)} columns are drawn; "
            f"{count(nothing, 'column')} of all can't be told from useless."
        ))  # fmt: skip
    if found.untried:
        names = joined([quoted(n) for n in found.untried[:6]])
        blocks.append(Note(f"There was no time to try {count(len(found.untried), 'column')}, among them {names}."))
    return Section("importance", title, blocks)


def dependence(analysis: Analysis, easel: Easel) -> Section:
    """Partial dependence."""
    title = "How the answer moves with a column"
    found = analysis.dependences
    if not found:
        return Section("dependence", title, [Note(analysis.left_out["dependence"])])
    outputs, y_label = _outputs(analysis)
    spread = (
        " The shade (or thin line) holds the middle 80 % of single rows: where it is wide, the effect depends on other "
        "columns."
    )
    spread = spread if len(outputs) == 1 else ""
    rows = sorted({d.rows for d in found})
    caption = (
        f"Mean answer over {joined([number(r) for r in rows])} rows when one column is set to each value and all "
        f"others stay as they are. Look for the direction and for jumps. Marks at the bottom show where the data "
        f"are.{spread} Combinations that never occur are averaged too, so read the ends with care."
    )
    drawing = draw_dependence(easel, found, outputs, y_label)
    return Section("dependence", title, [Figure(drawing, caption)])


def _outputs(analysis: Analysis) -> tuple[list[tuple[int, str]], str]:
    task, evidence = analysis.facts.task, analysis.evidence
    assert evidence is not None
    if task.kind is TaskKind.REGRESSION:
        return [(0, task.target)], f"Predicted {label(task.target, 18)}"
    if task.kind is TaskKind.BINARY:
        return [(1, task.classes[1])], f"Probability of {label(task.classes[1], 14)}"
    counts = np.bincount(evidence.y, minlength=task.n_classes)
    top = sorted(int(k) for k in np.argsort(-counts, kind="stable")[:MOST_LINES])
    return [(k, task.classes[k]) for k in top], "Probability"


def slices(analysis: Analysis) -> Section:
    """The worst slices."""
    title, found = "Where it is worst", analysis.slices
    if found is None:
        return Section("slices", title, [Note(analysis.left_out["slices"])])
    least = f"at least {count(found.least_rows, 'row')}"
    if not found.worst:
        note = f"Of {count(found.looked_at, 'group')} of {least}, none is clearly worse than all rows together."
        if not found.looked_at:
            note = f"There is no group of {least} to look at."
        return Section("slices", title, [Note(note)])
    name = metric_words(analysis.measure.name)
    rows: list[list[str | Cell]] = [
        [s.words, number(s.rows), Cell(score(s.interval.value), "bad"), interval(s.interval.low, s.interval.high),
         score(found.overall)]
        for s in found.worst
    ]  # fmt: skip
    caption = (
        f"The worst of {count(found.looked_at, 'group')} of {least}, over one column and over two. Look for groups "
        "that matter to you, and get more data of them."
    )
    warning = (
        "These groups were found by searching, so that some of their gap is chance: on new rows most of them will look "
        "better than here (regression to the mean). Take them as places to look at, not as measurements."
    )
    if analysis.measure.metric.name in _RELATIVE:
        warning += (
            f" Rows of one group are also more alike, which alone makes {name} lower within a group than over all."
        )
    table = Table(["Rows where", "Rows", name, "95 % interval", "On all rows"], rows, caption, frozenset({1, 2, 3, 4}))
    return Section("slices", title, [table, Note(warning)])
