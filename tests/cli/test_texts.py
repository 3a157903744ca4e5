"""The command line on texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.sdk.test_texts import reviews

from tidemill.cli.main import run


@pytest.mark.slow
def test_reviews_become_a_bundle_that_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, bundle, workspace = reviews(tmp_path / "r.csv"), tmp_path / "r.tm", ["--workspace", str(tmp_path / "w")]
    fit = ["fit", str(table), "--target", "animal", "--kind", "text-classification", "--trials", "2", "--cpus", "1"]
    assert run([*fit, "--out", str(bundle), "--json", *workspace]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert Path(said[-1]["report"]).is_file()
    assert run(["verify", str(bundle)]) == 0
    out = tmp_path / "out.csv"
    assert run(["predict", str(bundle), str(table), "--out", str(out)]) == 0
    assert out.read_text().splitlines()[0] == "prediction,proba_a,proba_b,proba_c"
    capsys.readouterr()
    assert run(["evaluate", str(bundle), str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.9


def test_the_pool_shows_and_checks_families_of_texts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pool", "list", "--modality", "text", "--json"]) == 0
    assert [row["family"] for row in json.loads(capsys.readouterr().out)] == ["ngrams", "sentence", "encoder"]
    assert run(["pool", "show", "ngrams", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["params"] > 0
    assert run(["pool", "check", "ngrams", "--json"]) == 0
    (done,) = json.loads(capsys.readouterr().out)
    assert done["max_abs_dp"] <= 1e-4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--family", "ngram"], "Did you mean 'ngrams'"),
        (["--schedule", "rows"], "not for texts: --schedule rows"),
        (["--type", "animal=text"], "can't be the text and have another role"),
    ],
)
def test_wrong_words_are_told(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["fit", str(reviews(tmp_path / "r.csv", 60)), "--target", "animal", "--kind", "text-classification"]
    assert run([*given, *words, "--workspace", str(tmp_path / "w"), "--cpus", "1"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
