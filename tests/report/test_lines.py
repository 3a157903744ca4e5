"""A report about lines says what was read wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.core.test_transcripts import plain_distance

from tidemill.core import transcripts
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.report.facts import Evidence, ReportFacts
from tidemill.report.html import write_report
from tidemill.report.readings import aligned, confusions, look

TASK = Task(TaskKind.RECOGNITION, "text")
PAIRS = [("<b>aria", "<b>aria"), ("brass", "bras"), ("corn", "c0rn"), ("dot", "d0t"), ("eel", ""), ("f g", "fg")]


def evidence(times: int = 1) -> Evidence:
    truth, read = zip(*(PAIRS * times), strict=True)
    scores = transcripts.to_scores(np.linspace(0.1, 0.9, len(truth)), read)
    names = np.array([f"{i}.png" for i in range(len(truth))], dtype=object)
    columns = {"file": names, "width": np.arange(len(truth), dtype=np.float64)}
    return Evidence("locked test slice", transcripts.to_codes(truth), scores, None, columns)


def facts(times: int = 10) -> ReportFacts:
    schema = Schema((
        Column("image", SemanticType.IMAGE), Column("text", SemanticType.TARGET), Column("width", SemanticType.NUMBER),
    ))  # fmt: skip
    return ReportFacts(
        "read", TASK, schema, "minimize cer", "cer", False, [], [], [(1.0, 0.4), (2.0, 0.3)], [evidence(times)]
    )


def test_the_page_names_lines_and_characters(tmp_path: Path) -> None:
    page = write_report(facts(), tmp_path / "r.html").read_text(encoding="utf-8")
    for words in ("What it reads wrongly", "Characters that it confuses", "Character error rate", "4.png", "nothing"):
        assert words in page
    assert "figures of this page are of texts of the best path (greedy decoding)" in page
    assert "<b>aria" not in page
    assert "NaN" not in page


def test_the_worst_line_comes_first_and_errors_are_counted() -> None:
    found = look(evidence())
    assert found.right == 1
    assert next((r.truth, r.read, r.errors) for r in found.worst) == ("eel", "", 3)
    assert found.errors.sum() == 7
    assert confusions(found)[:2] == [("e", "", 2), ("o", "0", 2)]


@given(st.text("ab c", max_size=8), st.text("ab c", max_size=8))
def test_alignment_has_as_many_differences_as_the_distance(a: str, b: str) -> None:
    pairs = aligned(a, b)
    assert "".join(x for x, _ in pairs) == a
    assert "".join(y for _, y in pairs) == b
    assert sum(x != y for x, y in pairs) == plain_distance(a, b)
