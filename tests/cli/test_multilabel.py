"""The command line on texts with several labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tests.sdk.test_multilabel import LABELS, reviews

from tidemill.cli.main import run


@pytest.mark.slow
def test_tagged_reviews_become_a_bundle_that_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, bundle, workspace = reviews(tmp_path / "r.csv"), tmp_path / "r.tm", ["--workspace", str(tmp_path / "w")]
    fit = ["fit", str(table), "--target", "tags", "--kind", "text-multilabel", "--trials", "2", "--cpus", "1"]
    assert run([*fit, "--separator", ";", "--family", "ngrams", "--out", str(bundle), "--json", *workspace]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert Path(said[-1]["report"]).is_file()
    assert run(["verify", str(bundle)]) == 0
    out = tmp_path / "out.csv"
    assert run(["predict", str(bundle), str(table), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["prediction", *(f"proba_{label}" for label in LABELS)]
    assert any(";" in row["prediction"] for row in rows)
    capsys.readouterr()
    assert run(["evaluate", str(bundle), str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["f1_micro"] > 0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "tag"], "Did you mean 'tags'"),
        (["--target", "tags,id"], "is neither 0 nor 1"),
        (["--target", "tags", "--positive", "sea"], "no positive class"),
        (["--target", "tags", "--objective", "maximize accuracy"], "does not fit a multilabel task"),
    ],
)
def test_wrong_words_are_told(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["fit", str(reviews(tmp_path / "r.csv", 60)), "--kind", "text-multilabel", *words]
    assert run([*given, "--workspace", str(tmp_path / "w"), "--cpus", "1"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
