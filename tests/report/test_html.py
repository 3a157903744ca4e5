from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report import makers
from tests.report.page import Page

from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import Schema
from tidemill.report.facts import Evidence, ReportFacts
from tidemill.report.html import write_report

COMMON = {
    "answer", "done", "figures", "leaderboard", "pareto", "progress", "importance", "dependence", "slices", "checks",
    "constraints", "bundle", "reproduce",
}  # fmt: skip
CLASSES = COMMON | {"ranking", "decisions", "calibration"}
VALUES = COMMON | {"predictions", "errors"}


def soon(facts: ReportFacts, seconds: float = 0.5) -> ReportFacts:
    return replace(facts, deadline=time.monotonic() + seconds)


def written(facts: ReportFacts, folder: Path) -> tuple[Page, str]:
    path = write_report(soon(facts), folder / "report.html")
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 3_000_000
    page = Page(text)
    assert len(page.ids) == len(set(page.ids)), "an identifier stands twice"
    assert set(page.references) <= set(page.ids)
    assert page.captions == page.figures + page.tables
    assert len(page.labels) == page.figures
    assert all(page.labels)
    return page, text


@pytest.mark.parametrize(("name", "sections", "figures"), [
    ("cancer", CLASSES, 8), ("digits", CLASSES, 8), ("diabetes", VALUES, 7),
])  # fmt: skip
def test_a_report_holds_every_section(
    name: str, sections: set[str], figures: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page, _ = written(request.getfixturevalue(name), tmp_path)
    assert set(page.sections) == sections
    assert page.figures == figures
    assert "nan" not in " ".join(page.sections.values()).lower().split()


def test_learning_curves_are_drawn_where_there_are_some(cancer: ReportFacts, tmp_path: Path) -> None:
    curves = {f"crnn-{n}": [(float(step), 1.0 / step + 0.01 * n) for step in range(1, 20)] for n in range(60)}
    curves["short-1"], curves["odd-2"] = [(1.0, 0.5)], [(1.0, float("nan")), (2.0, float("inf"))]
    page, _ = written(replace(cancer, curves=curves), tmp_path)
    assert set(page.sections) == CLASSES | {"curves"}
    assert page.figures == 9
    names = list(page.sections)
    assert names.index("curves") == names.index("progress") + 1
    (told,) = [words for words in page.labels if words.startswith("Learning curves of 40 trials")]
    assert "crnn-0 from 1.0000 to 0.0526" in told
    assert "crnn-9" in told
    assert "crnn-10" not in told, "others have no name"
    page, _ = written(replace(cancer, curves={"short-1": curves["short-1"], "odd-2": curves["odd-2"]}), tmp_path)
    assert "curves" not in page.sections


def test_it_begins_with_the_answer_in_plain_words(cancer: ReportFacts, tmp_path: Path) -> None:
    page, _ = written(cancer, tmp_path)
    assert next(iter(page.sections)) == "answer"
    assert "of the rows where “diagnosis” is “malignant”" in page.sections["answer"]
    assert "Not kept: “params <= 1000”" in page.sections["answer"]


def test_it_loads_nothing(cancer: ReportFacts, tmp_path: Path) -> None:
    page, text = written(cancer, tmp_path)
    addresses = [p for p in text.split('"') if "://" in p and p not in ("http://www.w3.org/2000/svg",)]
    assert addresses in ([], ["http://www.w3.org/1999/xlink"])
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "script" not in page.tags


HOSTILE = [
    "<script>alert(1)</script>",
    "$\\frac{",
    "</svg><b>",
    "名前 — ä",
    '"onload="x',
    "a" * 300,
    "line\nbreak\x00",
    "--><",
]


def test_hostile_names_are_only_text(cancer: ReportFacts, tmp_path: Path) -> None:
    evidence = cancer.evidence[0]
    old = list(evidence.columns)
    new = dict(zip(old, [*HOSTILE, "site <i>", "seen & on", "repeat'"], strict=True))
    columns = {new[n]: v for n, v in evidence.columns.items()}
    columns["site <i>"] = np.array(
        [{"north": "<script>", "": ""}.get(v, v + "$^") for v in columns["site <i>"]], object
    )
    schema = Schema(tuple(replace(c, name=new.get(c.name, c.name)) for c in cancer.schema))
    schema = Schema(tuple(replace(c, name="<u>target", unit="<b>") if c.name == "diagnosis" else c for c in schema))
    task = replace(cancer.task, target="<u>target", classes=("$\\no$", "<script>yes"), positive="<script>yes")
    known = {back: name for name, back in new.items()}

    def predict(given: dict[str, Any]) -> Any:
        assert cancer.predict is not None
        plain = {known[n]: v for n, v in given.items()}
        plain["site"] = np.full(len(plain["site"]), "north", dtype=object)
        return cancer.predict(plain)

    board = [{**r, "trial": f"<script>{r['trial']}", "family": "名前"} for r in cancer.leaderboard]
    facts = replace(
        cancer, study="<script>study; rm -rf ~", task=task, schema=schema, predict=predict, leaderboard=board,
        evidence=[replace(evidence, name="<script>fold", columns=columns)],
        findings=[{"severity": "<script>", "column": "<script>", "message": "<script>", "hint": "<script>"}],
        bundle={"<script>": "<script>"}, steps=["<script>"],
    )  # fmt: skip
    page, text = written(facts, tmp_path)
    assert set(page.sections) == CLASSES
    assert "<script" not in text
    assert "名前" in page.sections["leaderboard"]
    assert "'<script>study; rm -rf ~'" in page.sections["reproduce"]


@pytest.mark.parametrize("name", ["cancer", "digits", "diabetes"])
def test_five_rows_are_enough(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    facts = makers.few_rows(request.getfixturevalue(name), np.arange(5))
    page, _ = written(facts, tmp_path)
    assert "rests on 5 rows only" in page.sections["answer"].replace("\xa0", " ")
    assert "too few rows for intervals" in page.sections["figures"]
    slices = page.sections["slices"].replace("\xa0", " ")
    assert "no group of at least 30 rows" in slices or "says nothing" in slices


@pytest.mark.parametrize("code", [0, 1])
def test_one_class_is_said_not_drawn(cancer: ReportFacts, code: int, tmp_path: Path) -> None:
    facts = makers.few_rows(cancer, np.flatnonzero(cancer.evidence[0].y == code)[:60])
    page, _ = written(facts, tmp_path)
    assert set(page.sections) == CLASSES
    assert "single class" in page.sections["ranking"]
    assert "roc_auc says nothing on these rows" in page.sections["importance"]


def test_one_row_of_regression(diabetes: ReportFacts, tmp_path: Path) -> None:
    page, _ = written(makers.few_rows(diabetes, np.arange(1)), tmp_path)
    assert set(page.sections) == VALUES


def test_what_is_missing_is_said(cancer: ReportFacts, tmp_path: Path) -> None:
    facts = replace(
        cancer, predict=None, leaderboard=[], pareto=[], history=[], findings=[], constraints=[], steps=[], bundle={},
        evidence=[replace(cancer.evidence[0], columns={})],
    )  # fmt: skip
    page, _ = written(facts, tmp_path)
    assert set(page.sections) == CLASSES
    for name in (
        "leaderboard",
        "pareto",
        "progress",
        "importance",
        "dependence",
        "slices",
        "checks",
        "constraints",
        "bundle",
    ):
        words = page.sections[name].strip().splitlines()
        assert len([w for w in words if w.strip()]) == 2, (name, words)  # the title and one sentence


@pytest.mark.parametrize("rows", [None, 0])
def test_without_evidence(cancer: ReportFacts, rows: int | None, tmp_path: Path) -> None:
    evidence = [] if rows is None else [makers.rows_of(cancer.evidence[0], np.arange(0))]
    page, _ = written(replace(cancer, evidence=evidence), tmp_path)
    assert set(page.sections) == COMMON
    assert "no rows with a known answer" in page.sections["answer"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_scores_are_refused(cancer: ReportFacts, bad: float, tmp_path: Path) -> None:
    scores = cancer.evidence[0].scores.copy()
    scores[3, 1] = bad
    facts = replace(cancer, evidence=[replace(cancer.evidence[0], scores=scores)])
    with pytest.raises(DataError, match="out of fold: 1 rows have a score that is NaN"):
        write_report(facts, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_broken_targets_and_codes_are_refused(cancer: ReportFacts, diabetes: ReportFacts, tmp_path: Path) -> None:
    y = diabetes.evidence[0].y.copy()
    y[0] = np.nan
    with pytest.raises(DataError, match="target that is NaN"):
        write_report(replace(diabetes, evidence=[replace(diabetes.evidence[0], y=y)]), tmp_path / "r.html")
    with pytest.raises(DataError, match="one code of 2 classes"):
        write_report(
            replace(cancer, evidence=[replace(cancer.evidence[0], y=cancer.evidence[0].y + 1)]), tmp_path / "r.html"
        )
    e = cancer.evidence[0]
    broken = Evidence(e.name, e.y, e.scores[:, :1], e.decisions, e.columns)
    with pytest.raises(DataError, match="shape"):
        write_report(replace(cancer, evidence=[broken]), tmp_path / "r.html")


@pytest.mark.parametrize("objective", [
    "maximize recall[malignant]; latency_ms <= 3", "minimize cost([[0,1],[5,0]])", "maximize f1", "auto",
    "minimize cost(matrix-that-is-not-here.csv)",
])  # fmt: skip
def test_objectives_of_labels_and_costs(cancer: ReportFacts, objective: str, tmp_path: Path) -> None:
    known = {"rec": ("recall", True), "f1": ("f1", True), "cost(": ("cost", False), "auto": ("roc_auc", True)}
    metric, greater = next(v for k, v in known.items() if k in objective)
    if "not-here" in objective:
        metric, greater = "roc_auc", True
    page, _ = written(replace(cancer, objective=objective, metric=metric, greater_is_better=greater), tmp_path)
    assert page.figures == 8


def test_a_deadline_that_has_passed_still_gives_a_full_report(cancer: ReportFacts, tmp_path: Path) -> None:
    path = write_report(replace(cancer, deadline=time.monotonic() - 5), tmp_path / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert set(page.sections) == CLASSES
    assert "Time was short" in path.read_text(encoding="utf-8")


def test_a_report_on_as_many_rows_as_adult_has_takes_less_where_time_is_short(tmp_path: Path) -> None:
    facts = makers.adult_like()
    began = time.process_time()
    write_report(facts, tmp_path / "usual.html")
    usual = time.process_time() - began
    began = time.process_time()
    write_report(soon(facts), tmp_path / "soon.html")
    assert time.process_time() - began < usual < 60
    assert "Time was short" in (tmp_path / "soon.html").read_text(encoding="utf-8")


def test_the_file_is_replaced_whole_or_left(cancer: ReportFacts, tmp_path: Path) -> None:
    path = write_report(soon(cancer), tmp_path / "new" / "folder" / "report.html")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="can't be written"):
        write_report(soon(cancer), tmp_path / "file" / "report.html")
