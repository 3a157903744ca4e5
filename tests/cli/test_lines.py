"""The command line on lines of text."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tests.models.recognition.made import table, words

from tidemill.cli.main import run


@pytest.mark.slow
def test_a_table_of_lines_becomes_a_bundle_that_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="a fit on lines trains nets")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")
    lines = table(tmp_path / "lines", words(300))
    bundle, workspace = tmp_path / "digits.tm", ["--workspace", str(tmp_path / "w")]
    fit = ["fit", str(lines), "--kind", "text-recognition", "--target", "text", "--time", "100s", "--trials", "1",
           "--cpus", "1", "--family", "crnn", "--name", "digits", "--out", str(bundle), "--json"]  # fmt: skip
    assert run([*fit, *workspace]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert Path(said[-1]["report"]).is_file()
    assert run(["verify", str(bundle)]) == 0
    for command in (["leaderboard", "digits"], ["leaderboard", "digits", "--objective", "maximize exact_nocase"]):
        assert run([*command, *workspace]) == 0
    out = tmp_path / "out.csv"
    capsys.readouterr()
    assert run(["predict", str(bundle), str(lines), "--out", str(out)]) == 0
    assert "300 rows written" in capsys.readouterr().out
    with out.open(newline="", encoding="utf-8") as file:
        assert next(iter(csv.DictReader(file))).keys() == {"file", "prediction", "confidence"}
    assert run(["evaluate", str(bundle), str(lines), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cer"] < 0.5


@pytest.mark.parametrize(
    ("words_given", "message"),
    [
        (["--family", "crnnn", "--target", "text"], "Did you mean 'crnn'"),
        ([], "Which column holds what stands in the lines?"),
        (["--target", "text", "--schedule", "rows"], "These options are for tables"),
        (["--target", "text", "--weights", "nowhere", "--trials", "1"], "There are no weights at"),
        (["--target", "text", "--objective", "maximize roc_auc"], "does not fit a recognition task"),
    ],
)
def test_wrong_words_are_told(
    words_given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="without it the extra is what is told")
    lines = table(tmp_path / "lines", words(40))
    base = ["fit", str(lines), "--kind", "text-recognition", "--workspace", str(tmp_path / "w"), "--cpus", "1"]
    assert run([*base, *words_given]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
