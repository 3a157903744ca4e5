"""What was done, the headline figures, and how the search went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tidemill.core.task import TaskKind
from tidemill.report.analysis import Analysis
from tidemill.report.blocks import Block, Cell, Figure, Items, Note, Section, Table, Text
from tidemill.report.figures._base import Easel
from tidemill.report.figures.search import draw_curves, draw_history, draw_pareto, usable
from tidemill.report.words import count, interval, metric_words, number, percent, quoted, score, seconds, size

MOST_TRIALS = 30
MOST_CURVES = 40


def done(analysis: Analysis) -> Section:
    """What was done, in plain words."""
    facts = analysis.facts
    blocks: list[Block] = [Text(f"What was wanted: {facts.objective}.")]
    if facts.steps:
        blocks.append(Items(list(facts.steps), ordered=True))
    else:
        blocks.append(Note("The steps of this study were not recorded."))
    used = [c.name for c in facts.schema.features]
    dropped = [c for c in facts.schema if c.type.value in ("identifier", "constant", "ignored")]
    sees = (
        "the image" if facts.schema.has_images else "the text" if facts.schema.has_texts else count(len(used), "column")
    )
    blocks.append(Text(f"The model sees {sees} and answers {quoted(facts.task.target)}."))
    if dropped:
        why = [f"{quoted(c.name)}: {c.reason or c.type.value}" for c in dropped[:12]]
        more = f" and {len(dropped) - 12} more" if len(dropped) > 12 else ""
        blocks.append(Text(f"Not used: {'; '.join(why)}{more}."))
    return Section("done", "What was done", blocks, "plain")


def headline(analysis: Analysis) -> Section:
    """Each metric with its interval on each body of evidence."""
    facts = analysis.facts
    if not analysis.headlines:
        return Section("figures", "Headline figures", [Note(analysis.left_out["evidence"])])
    headers = ["Metric", "Better is"]
    for evidence in facts.evidence:
        headers += [evidence.name, "95 % interval"]
    rows: list[list[str | Cell]] = []
    for i, line in enumerate(analysis.headlines):
        better = "greater" if line.measure.metric.greater_is_better else "smaller"
        row: list[str | Cell] = [
            Cell(metric_words(line.measure.name) + (" (objective)" if i == 0 else ""), strong=i == 0)
        ]
        row.append(better)
        for found in line.intervals:
            row += [score(found.value), interval(found.low, found.high)] if found else ["–", "–"]
        rows.append(row)
    drawn = [i.resamples for h in analysis.headlines for i in h.intervals if i is not None and i.resamples]
    rows_in_words = ", ".join(f"{e.name}: {count(len(e.y), 'row')}" for e in facts.evidence)
    if drawn:
        how = f"Intervals are from {number(min(drawn))} resamples or more of the rows ({rows_in_words})"
        how += "; fewer than usual, because time was short." if analysis.hurried else "."
    else:
        how = f"There are too few rows for intervals ({rows_in_words})."
    caption = f"Look first at the width of the intervals: differences smaller than that mean nothing. {how}"
    numeric = frozenset(range(2, len(headers)))
    return Section("figures", "Headline figures", [Table(headers, rows, caption, numeric)])


def leaderboard(analysis: Analysis) -> Section:
    """The trials, best first."""
    facts = analysis.facts
    if not facts.leaderboard:
        return Section("leaderboard", "Leaderboard", [Note("No trial was recorded.")])
    headers = ["Trial", "Family", metric_words(analysis.measure.name), "Share in the model", "Latency, ms", "Size",
               "Parameters", "Folds", "Trained in", "State"]  # fmt: skip
    rows = [_trial(r) for r in facts.leaderboard[:MOST_TRIALS]]
    total = len(facts.leaderboard)
    more = f" The best {MOST_TRIALS} of {total} trials are shown." if total > MOST_TRIALS else ""
    read = " Their texts are those of the best path." if facts.task.kind is TaskKind.RECOGNITION else ""
    caption = (
        "Trials, best first. Look at how close the first ones are, and what the simpler of them cost; "
        f"those in bold are part of the shipped model.{read}{more}"
    )
    return Section("leaderboard", "Leaderboard", [Table(headers, rows, caption, frozenset(range(2, 9)))])


def _trial(row: Mapping[str, Any]) -> list[str | Cell]:
    weight, state = row.get("weight"), str(row.get("state") or "")
    return [
        Cell(str(row.get("trial", "")), strong=bool(weight)),
        str(row.get("family", "")),
        score(_float(row.get("value"))),
        percent(float(weight)) if weight else "–",
        number(_float(row.get("latency_ms"))),
        size(_float(row.get("size_bytes"))),
        number(_float(row.get("params"))),
        number(_float(row.get("folds"))),
        seconds(_float(row.get("wall_s"))),
        Cell(state, "bad" if state in ("failed", "rejected") else ""),
    ]


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float, np.number)) and np.isfinite(value) else None


def pareto(analysis: Analysis, easel: Easel) -> Section:
    """Quality against latency and size."""
    facts = analysis.facts
    costs = [c for c in ("latency_ms", "size_bytes") if len(usable(facts.leaderboard, c)) >= 2]
    if not costs:
        note = Note(
            "Fewer than two trials have both a value and a measured latency or size, so there is no trade to show."
        )
        return Section("pareto", "Quality against cost", [note])
    shown = [r for r in facts.leaderboard if any(r in usable(facts.leaderboard, c) for c in costs)]
    drawing = draw_pareto(easel, shown, costs, analysis.measure.name, facts.greater_is_better, facts.pareto)
    up = "up" if facts.greater_is_better else "down"
    caption = (
        f"Each point is a trial; better is {up} and left. Trials on the line are beaten by none in both. Look for the "
        "knee: where the line turns flat, more cost buys little. Costs are on a logarithmic scale."
    )
    return Section("pareto", "Quality against cost", [Figure(drawing, caption)])


def progress(analysis: Analysis, easel: Easel) -> Section:
    """Score over time."""
    facts = analysis.facts
    history = [(t, v) for t, v in facts.history if np.isfinite(t) and np.isfinite(v)]
    if len(history) < 2:
        return Section("progress", "Score over time", [Note("Fewer than two trials finished, so there is no curve.")])
    drawing = draw_history(easel, history, analysis.measure.name, facts.greater_is_better)
    caption = (
        "Each point is a finished trial, the line is the best until then. If the line is still moving at its end, more "
        "time may help; if it has long been flat, it hardly will. Very bad trials may lie outside of the picture."
    )
    return Section("progress", "Score over time", [Figure(drawing, caption)])


def curves(analysis: Analysis, easel: Easel) -> Section | None:
    """How the validation loss of trials fell while they were trained; None where no trial has a curve."""
    kept = {
        name: [(step, value) for step, value in points if np.isfinite(value)]
        for name, points in analysis.facts.curves.items()
    }
    shown = dict([(name, points) for name, points in kept.items() if len(points) > 1][:MOST_CURVES])
    if not shown:
        return None
    caption = (
        "Each line is one trial; the best ones are named. Lower is better. A line that still falls at its end would "
        "gain from a longer training; one that rises again has begun to learn its rows by heart. Heights can be "
        "compared within a family; another one may measure its loss otherwise."
    )
    return Section("curves", "Learning curves", [Figure(draw_curves(easel, shown), caption)])
