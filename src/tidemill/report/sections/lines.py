"""For lines of text: what was read wrongly, and which characters are taken for each other."""

from __future__ import annotations

from tidemill.core.task import Task
from tidemill.report.analysis import Analysis
from tidemill.report.blocks import Cell, Note, Section, Table
from tidemill.report.facts import Evidence
from tidemill.report.readings import MOST_ALIGNED, confusions, look
from tidemill.report.words import count, label, number, percent, quoted

MOST_LINES = 20
MOST_PAIRS = 30
_LONGEST = 120
FILE = "file"
"""Column of the evidence with the names of the images, where it has one."""


def worst(analysis: Analysis) -> Section:
    """The lines with most errors."""
    evidence = analysis.evidence
    assert evidence is not None
    title, found = "What it reads wrongly", look(evidence)
    if not found.worst:
        return Section("readings", title, [Note("Every line was read rightly.")])
    names = evidence.columns.get(FILE)
    rows: list[list[str | Cell]] = [
        [
            str(names[r.place]) if names is not None else number(r.place + 1),
            label(r.truth, _LONGEST),
            label(r.read, _LONGEST) if r.read else "–",
            number(r.errors),
            number(r.confidence, 2),
        ]
        for r in found.worst[:MOST_LINES]
    ]
    caption = (
        f"The {min(MOST_LINES, len(found.worst))} worst of {count(len(found.worst), 'line')} with an error, by errors "
        "for each character. Look first whether the transcript itself is right; then what these images share. "
        "The model is sure of a line where the last column is near 1: what is wrong there can't be found by asking it."
    )
    table = Table(["Image", "Stands there", "Was read", "Errors", "Confidence"], rows, caption, frozenset({3, 4}))
    return Section("readings", title, [table])


def characters(analysis: Analysis) -> Section:
    """Which characters are taken for which."""
    evidence = analysis.evidence
    assert evidence is not None
    title, found = "Characters that it confuses", look(evidence)
    pairs = confusions(found)
    if not pairs:
        return Section("characters", title, [Note("No character was read wrongly.")])
    total = sum(times for _, _, times in pairs)
    rows = [[_sign(a), _sign(b), number(times), percent(times / total)] for a, b, times in pairs[:MOST_PAIRS]]
    some = f" {MOST_ALIGNED} of the lines with an error were looked at." if len(found.worst) > MOST_ALIGNED else ""
    caption = (
        "The most frequent errors. Pairs that look alike want more lines with them, or do not matter; characters that "
        f"are left out want larger images.{some}"
    )
    return Section("characters", title, [
        Table(["Stands there", "Was read", "Times", "Of all errors"], rows, caption, frozenset({2, 3}))
    ])  # fmt: skip


def recognition_words(task: Task, evidence: Evidence) -> list[str]:
    """Say how much is read rightly."""
    found = look(evidence)
    lines, wrong = len(found.errors), int(found.errors.sum())
    return [
        f"The model reads {quoted(task.target)} wholly right on {percent(found.right / lines)} of the lines; of the "
        f"{count(found.characters, 'character')} that stand there, {count(wrong, 'is', 'are')} wrong, missing or "
        "too many."
    ]


def decoding_words() -> str:
    """Say which texts all figures of a report are about."""
    return (
        "All figures of this page are of texts of the best path (greedy decoding). A bundle that searches for its "
        "texts by beams is measured with those, in its model card."
    )


def _sign(character: str) -> str:
    return {"": "nothing", " ": "space"}.get(character, character)
