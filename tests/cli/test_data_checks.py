"""``tidemill data check, expect, gate, drift, overlap``: what may be learnt from, and who says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidemill.cli.main import run

QUICK = ["--trials", "1", "--family", "linear", "--cpus", "1", "--no-report"]


class Door:
    """The program with a workspace of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, *words: str, code: int = 0, actor: str = "") -> Any:
        """Run a command with ``--json`` and return what it says; the error where ``code`` is 2."""
        more = ["--actor", actor] if actor else []
        got = run([*words, *more, "--workspace", str(self.folder / "workspace"), "--json"])
        said = self.capsys.readouterr()
        assert got == code, said.err
        assert "Traceback" not in said.err
        lines = said.err if code == 2 else said.out
        return json.loads(lines.splitlines()[-1] if words[0] == "fit" else lines)

    def text(self, *words: str, code: int = 0) -> str:
        """Run a command and return what it tells people."""
        assert run([*words, "--workspace", str(self.folder / "workspace")]) == code
        return self.capsys.readouterr().out


def write(path: Path, first: int = 0, words: str = "uvw", shift: float = 0.0, rows: int = 90) -> str:
    lines = [
        f"p{i},{i * 37 % 91 / 7 + shift:.3f},{words[i % len(words)]},{'yes' if i * 7 % 4 else 'no'}"
        for i in range(first, first + rows)
    ]
    path.write_text("\n".join(["person,x,word,y", *lines]) + "\n")
    return str(path)


@pytest.fixture
def door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Door:
    door = Door(tmp_path, capsys)
    door("data", "add", write(tmp_path / "cases.csv"), "--target", "y")
    return door


def test_what_fails_its_checks_is_not_learnt_from_until_the_gate_is_opened(door: Door) -> None:
    suite = door.folder / "cases.yaml"
    told = door("data", "expect", "cases", "--out", str(suite), actor="ann")
    assert (told["changed"], told["out"]) == (True, str(suite))
    assert not door("data", "expect", "cases")["changed"]
    text = suite.read_text()
    assert "- w\n" in text
    begin = text.index("  word:")
    suite.write_text(text[:begin] + text[begin:].replace("severity: warning", "severity: error", 1))
    assert door("data", "expect", "cases", "--from", str(suite), actor="ann")["changed"]
    first = door("data", "show", "cases")["hash"]
    door("data", "add", write(door.folder / "bad.csv", words="uz"), "--name", "cases", "--like", "cases")
    bad = door("data", "show", "cases")["hash"]
    assert not door("data", "gate", "cases")["judged"]
    assert ("error", "word") in {(f["severity"], f["column"]) for f in door("data", "check", "cases", code=1)}
    assert door("data", "gate", "cases")["blocked"]
    refused = door("fit", "cases", *QUICK, code=2)
    assert "is blocked by its checks" in refused["message"]
    assert f"tidemill data gate cases@{bad[:12]} --open --reason" in refused["message"]
    assert "is blocked" in door("fit", str(door.folder / "bad.csv"), "--target", "y", *QUICK, code=2)["message"]
    assert door("fit", f"cases@{first}", *QUICK)["study"] == "cases-1"
    assert "with a reason" in door("data", "gate", "cases", "--open", code=2)["message"]
    assert "to open" in door("data", "gate", "cases", "--reason", "so", code=2)["message"]
    assert not door("data", "gate", "cases", "--open", "--reason", "z is new", actor="ann")["blocked"]
    door("data", "check", "cases", code=1)  # the same errors again don't shut what somebody opened
    assert not door("data", "gate", "cases")["blocked"]
    assert door("fit", "cases", *QUICK)["study"] == "cases-2"
    audit = door("data", "audit", "cases")
    assert {"dataset_expectations", "dataset_judged", "dataset_gate_opened"} <= {r["what"] for r in audit}
    opened = next(r for r in audit if r["what"] == "dataset_gate_opened")
    assert (opened["actor"], opened["facts"]["reason"]) == ("ann", "z is new")


def test_a_study_is_not_resumed_on_a_version_that_was_blocked_since(door: Door) -> None:
    assert door("fit", "cases", *QUICK)["study"] == "cases-1"
    suite = door.folder / "strict.yaml"
    suite.write_text("dataset: cases\nrows_at_least: 1000\ncolumns: {}\nother_columns: allow\n")
    assert door("data", "check", "cases", "--expect", str(suite), code=1)[0]["code"] == "rows"
    assert "is blocked" in door("fit", "--resume", "cases-1", "--trials", "2", "--no-report", code=2)["message"]


def test_drift_is_told_and_drawn(door: Door) -> None:
    door("data", "add", write(door.folder / "later.csv", shift=9.0, words="uv"), "--like", "cases")
    page = door.folder / "drift.html"
    told = door("data", "drift", "cases", "later", "--out", str(page))
    assert set(told["drifted"]) == {"x", "word"}
    assert (told["rows_before"], told["rows_after"]) == (90, 90)
    assert page.read_text().lstrip().lower().startswith("<!doctype html")
    assert door("data", "drift", "cases", "cases")["drifted"] == []
    assert "columns have drifted" in door.text("data", "drift", "cases", "later")


def test_parts_share_nothing_or_it_is_said(door: Door) -> None:
    other = write(door.folder / "other.csv", first=80)
    found = door("data", "overlap", "cases", other, "--entity", "person", code=1)
    assert {f["code"] for f in found} == {"row_overlap", "entity_overlap"}
    door("data", "split", "cases", "--share", "train=0.7", "--share", "test=0.3")
    assert door("data", "overlap", "cases.train", "cases.test", "--by", "person") == []
    assert "Nothing to worry" in door.text("data", "overlap", "cases.train", "cases.test")


def test_people_get_text(door: Door) -> None:
    assert door.text("data", "expect", "cases").startswith("dataset: cases")
    out = str(door.folder / "e.yaml")
    assert "kept as before" in door.text("data", "expect", "cases", "--out", out)
    assert "never judged" in door.text("data", "gate", "cases")
    door.text("data", "check", "cases")
    assert "is open" in door.text("data", "gate", "cases")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["expect", "nothing"], "nothing"),
        (["expect", "cases", "--from", "FOLDER/none.yaml"], "can't be read"),
        (["expect", "cases", "--from", "FOLDER/broken.yaml"], "YAML"),
        (["expect", "cases", "--from", "FOLDER/other.yaml"], "of 'others', not of 'cases'"),
        (["expect", "cases", "--from", "FOLDER/other.yaml", "--anew"], "not both"),
        (["expect", "cases", "--out", "FOLDER/none/e.yaml"], "can't be written"),
        (["check", "FOLDER/cases.csv", "--expect", "FOLDER/other.yaml"], "against dataset versions"),
        (["gate", "cases", "--open", "--reason", "so"], "never judged"),
        (["drift", "cases", "casse"], "Did you mean 'cases'"),
        (["overlap", "cases", "cases", "--entity", "persn"], "'person'"),
        (["overlap", "cases", "FOLDER/none.csv"], "none.csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_answered_in_words(door: Door, words: list[str], said: str) -> None:
    (door.folder / "broken.yaml").write_text("dataset: [cases\n")
    (door.folder / "other.yaml").write_text("dataset: others\ncolumns: {}\n")
    told = door("data", *(w.replace("FOLDER", str(door.folder)) for w in words), code=2)
    assert said in told["message"]


def test_roles_are_asked_at_the_door(door: Door) -> None:
    door("data", "say", "cases", "--owner", "mia", "--role", "ben=reader", actor="mia")
    (door.folder / "strict.yaml").write_text("dataset: cases\nrows_at_least: 1000\ncolumns: {}\n")
    for words in (
        ["expect", "cases"],
        ["check", "cases", "--expect", str(door.folder / "strict.yaml")],
        ["gate", "cases", "--open", "--reason", "so"],
    ):
        assert "ben may not" in door("data", *words, actor="ben", code=2)["message"]
    assert "eve may not" in door("data", "drift", "cases", "cases", actor="eve", code=2)["message"]
    assert "eve may not" in door("data", "overlap", "cases", "cases", actor="eve", code=2)["message"]


def test_what_a_fit_prepared_from_a_version_that_is_blocked_since_is_not_resumed(door: Door) -> None:
    assert door("fit", "cases", "--target", "word", *QUICK)["study"] == "cases-1"
    prepared = door("data", "list", "cases")[-1]
    assert prepared["operation"] == "prepare"
    (door.folder / "strict.yaml").write_text("dataset: cases\nrows_at_least: 1000\ncolumns: {}\n")
    first = door("data", "list", "cases")[0]["hash"]
    door("data", "check", f"cases@{first}", "--expect", str(door.folder / "strict.yaml"), code=1)
    assert "is blocked" in door("fit", "--resume", "cases-1", "--trials", "2", "--no-report", code=2)["message"]


GX = json.dumps(
    {
        "name": "s",
        "expectations": [
            {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "word", "value_set": ["u", "v", "w"]}}
        ],
    }
)


@pytest.mark.filterwarnings("ignore")  # of the tool about itself
def test_a_suite_of_another_tool_is_kept_run_and_shuts_the_gate(door: Door) -> None:
    pytest.importorskip("great_expectations", reason="the extra gx is not installed")
    suite = door.folder / "s.json"
    suite.write_text(GX)
    told = door("data", "expect", "cases", "--suite", f"gx:{suite}", actor="ann")
    assert (told["changed"], told["findings"], told["suites"]) == (True, [], {"gx": "s.json of cases"})
    assert "gx (s.json of cases)" in door.text("data", "expect", "cases", "--suite", f"gx:{suite}")
    door("data", "add", write(door.folder / "bad.csv", words="uz"), "--name", "cases", "--like", "cases")
    page = door.folder / "checks.html"
    found = door("data", "check", "cases", "--out", str(page), code=1)
    assert ("error", "gx", "word") in {(f["severity"], f["code"], f["column"]) for f in found}
    assert "column values to be in set" in page.read_text()
    assert door("data", "gate", "cases")["blocked"]
    assert "is blocked by its checks" in door("fit", "cases", *QUICK, code=2)["message"]
    door("data", "gate", "cases", "--open", "--reason", "z is new", actor="ann")
    door("data", "check", "cases", code=1)
    assert not door("data", "gate", "cases")["blocked"]
    assert door("data", "expect", "cases", "--suite", "gx:")["suites"] == {}
    assert "gx" not in {f["code"] for f in door("data", "check", "cases", code=0)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["expect", "cases", "--suite", "xg:FOLDER/s.json"], "names no suite"),
        (["expect", "cases", "--suite", "gx:FOLDER/none.json"], "can't be read"),
        (["expect", "cases", "--suite", "gx:FOLDER/cases.csv"], "no JSON"),
        (["expect", "cases", "--suite", "gx:"], "'gx'"),
        (["expect", "cases", "--suite", "pandera:FOLDER/s.py"], "holds no code"),
        (["expect", "cases", "--suite", "gx:FOLDER/s.json", "--anew"], "by itself"),
        (["check", "FOLDER/cases.csv", "--suite", "gx:FOLDER/s.json"], "against dataset versions"),
        (["check", "cases", "--out", "FOLDER/none/c.html"], "can't be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_words_about_suites_and_reports(door: Door, words: list[str], said: str) -> None:
    (door.folder / "s.json").write_text(GX)
    (door.folder / "s.py").write_text("x = 1\n")
    assert said in door("data", *(w.replace("FOLDER", str(door.folder)) for w in words), code=2)["message"]


def test_who_may_not_write_brings_no_suite(door: Door) -> None:
    (door.folder / "s.json").write_text(GX)
    door("data", "say", "cases", "--owner", "mia", "--role", "ben=reader", actor="mia")
    for words in (["expect", "cases"], ["check", "cases"]):
        told = door("data", *words, "--suite", f"gx:{door.folder / 's.json'}", actor="ben", code=2)
        assert "ben may not" in told["message"]


def test_checks_of_a_file_are_drawn_on_a_page(door: Door) -> None:
    page = door.folder / "checks.html"
    assert "Report: " in door.text("data", "check", str(door.folder / "cases.csv"), "--target", "y", "--out", str(page))
    assert page.read_text().startswith("<!doctype html>")


def test_what_is_served_is_held_against_what_was_learnt_from(door: Door) -> None:
    page = door.folder / "skew.html"
    like = write(door.folder / "same.csv", first=1000)
    assert {f["severity"] for f in door("data", "skew", "cases", like)["findings"]} <= {"info", "warning"}
    moved = write(door.folder / "moved.csv", shift=9.0, words="uz")
    told = door("data", "skew", "cases", moved, "--out", str(page))
    assert {"x", "word"} <= set(told["drifted"])
    assert "in service" in page.read_text()
    assert any("never saw" in f["message"] for f in told["findings"] if f["column"] == "word")
    (door.folder / "less.csv").write_text("person,x\np1,many\np2,few\n" * 30)
    told = door("data", "skew", "cases", str(door.folder / "less.csv"), code=1)
    assert {(f["code"], f["column"]) for f in told["findings"]} >= {("column_absent", "word"), ("type", "x")}
    door("data", "add", moved, "--name", "captured", "--like", "cases")
    assert {"x", "word"} <= set(door("data", "skew", "cases", "captured", "--columns", "x,word")["drifted"])
    assert "rows in service beside cases@" in door.text("data", "skew", "cases", "captured")
    assert "There is no endpoint 'none'" in door("data", "skew", "cases", "endpoint:none", code=2)["message"]
    door("data", "say", "cases", "--owner", "mia", actor="mia")
    assert "eve may not" in door("data", "skew", "cases", "captured", actor="eve", code=2)["message"]
