from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidemill.cli.main import run

CSV = "user_id,at,age,city\n1,2026-11-01T00:00:00Z,31,Ulm\n2,2026-11-02T00:00:00Z,28,\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_WORKSPACE", str(tmp_path / "ws"))
    (tmp_path / "rows.csv").write_text(CSV)
    (tmp_path / "spine.csv").write_text("user_id,t\n1,2026-11-02T00:00:00Z\n3,2026-11-02T00:00:00Z\n")
    return tmp_path


def test_from_a_table_to_values_history_and_samples(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, spine, out = str(place / "rows.csv"), str(place / "spine.csv"), place / "out.parquet"
    assert run(["features", "list"]) == 0
    assert run(["features", "register", "user", "--from", rows, "--entity", "user_id", "--event-time", "at"]) == 0
    assert run(["features", "push", "user", rows]) == 0
    assert run(["features", "list"]) == 0
    assert run(["features", "show", "user"]) == 0
    assert run(["features", "materialize", "user"]) == 0
    assert run(["features", "historical", spine, "user", "--time", "t", "--out", str(out)]) == 0
    assert run(["features", "match", "age > 30", "--from", "user", "--size", "5"]) == 0
    words = capsys.readouterr().out
    assert "2 rows came, 2 are new" in words
    assert "user: 1 of 2 rows have values" in words
    assert "1 of 2 rows match, 1 are taken" in words
    assert out.exists()
    assert run(["features", "get", "user", "1", "9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f["values"]["age"] for f in found] == [31, None]
    assert [f["state"] for f in found] == ["fresh", "absent"]
    assert run(["features", "get", "user", "1", "9", "--columns", "city"]) == 0
    assert "Ulm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,2026-01-01T00:00:00Z,40,Ulm", "wrong.csv: The column 'user_id' must be int64, but row 1 holds 'x'"),
        ("3,2026-01-01T00:00:00Z,old,Ulm", "wrong.csv: The column 'age' must be"),
        (",2026-01-01T00:00:00Z,40,Ulm", "'user_id' is null in row 1"),
        (
            "3,2026-01-01 00:00,40,Ulm",
            "have no zone in row 1. Give times with a zone, or say `assume_utc` (--assume-utc)",
        ),
        ("3,soon,40,Ulm", "text that is no time in row 1: 'soon'"),
    ],
)
def test_rows_that_can_not_be_kept_are_named(
    place: Path, capsys: pytest.CaptureFixture[str], row: str, said: str
) -> None:
    rows = place / "rows.csv"
    assert run(["features", "register", "user", "--from", str(rows), "--entity", "user_id", "--event-time", "at"]) == 0
    wrong = place / "wrong.csv"
    head, first = rows.read_text().splitlines()[:2]
    wrong.write_text(f"{head}\n{first}\n{row}\n")
    assert run(["features", "push", "user", str(wrong)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert run(["features", "get", "user", "1", "--json"]) == 0
    assert [found["state"] for found in json.loads(capsys.readouterr().out)] == ["absent"], "all of them, or none"


def test_a_damaged_group_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = str(place / "rows.csv")
    assert run(["features", "register", "user", "--from", rows, "--entity", "user_id", "--event-time", "at"]) == 0
    assert run(["features", "push", "user", rows]) == 0
    capsys.readouterr()
    assert run(["features", "verify", "user"]) == 0
    assert "user is whole: 2 rows." in capsys.readouterr().out
    matrix = next((place / "ws" / "features" / "user").glob("*/matrix.npy"))
    matrix.chmod(0o644)
    matrix.write_bytes(matrix.read_bytes()[:-1] + b"x")
    assert run(["features", "verify", "user"]) == 1
    assert "matrix.npy" in capsys.readouterr().out
    assert run(["features", "verify", "user", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], len(told["problems"])) == (2, 1)
    assert run(["features", "verify", "usr"]) == 2
    assert "user" in capsys.readouterr().err


def test_an_entity_is_forgotten(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, spine = str(place / "rows.csv"), str(place / "spine.csv")
    assert run(["features", "register", "user", "--from", rows, "--entity", "user_id", "--event-time", "at"]) == 0
    assert run(["features", "push", "user", rows]) == 0
    assert run(["features", "historical", spine, "user", "--time", "t", "--name", "train"]) == 0
    capsys.readouterr()
    assert run(["features", "forget", "user", "1", "9", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["online"], told["dry_run"]) == (1, 1, True)
    assert told["versions"][0].startswith("train@")
    assert run(["features", "forget", "user", "1", "9"]) == 0
    words = capsys.readouterr().out
    assert "1 rows and the newest values of 1 entities were erased" in words
    assert "tidemill data forget" in words
    assert run(["features", "get", "user", "1", "2", "--json"]) == 0
    assert [f["state"] for f in json.loads(capsys.readouterr().out)] == ["absent", "fresh"]
    assert run(["features", "forget", "user", "x"]) == 2
    assert "whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["features", "show", "usr"], "usr"),
        (["features", "get", "user", "x"], "whole number"),
        (["features", "get", "user", "1", "--columns", "aeg"], "'age'"),
        (["features", "push", "user", "absent.csv"], "absent.csv"),
        (["features", "match", "age >", "--from", "user"], "age >"),
        (["features", "match", "age > 1; drop table x", "--from", "user"], "drop"),
        (["features", "register", "other", "--from", "ROWS"], "key"),
        (["features", "historical", "SPINE", "user", "--time", "when", "--out", "x.parquet"], "when"),
        (["features", "historical", "SPINE", "user", "--time", "t"], "--out"),
    ],
)
def test_bad_words_end_with_a_sentence_and_code_2(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    rows, spine = str(place / "rows.csv"), str(place / "spine.csv")
    assert run(["features", "register", "user", "--from", rows, "--entity", "user_id", "--event-time", "at"]) == 0
    given = [{"ROWS": rows, "SPINE": spine}.get(w, w) for w in words]
    assert run(given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_roles_of_a_group(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = str(place / "rows.csv")
    assert run(["features", "register", "user", "--from", rows, "--entity", "user_id", "--event-time", "at"]) == 0
    assert run(["features", "push", "user", rows, "--actor", "tim"]) == 0
    said = ["features", "say", "user", "--owner", "mia", "--role", "ben=reader", "--freshness", "30d"]
    assert run(said) == 0
    assert "{'ben': 'reader'}" in capsys.readouterr().out
    assert run(["features", "say", "user", "--role", "eve=reader", "--actor", "mia", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["roles"] == {"ben": "reader", "eve": "reader"}
    assert run(["features", "say", "user", "--role", "eve=", "--actor", "mia"]) == 0
    assert run(["features", "get", "user", "1", "--actor", "eve"]) == 2
    assert "eve may not do this with the feature group 'user'" in capsys.readouterr().err
    assert run(["features", "get", "user", "1", "--actor", "ben"]) == 0
    assert run(["features", "forget", "user", "1", "--actor", "ben"]) == 2
    assert "the role 'owner' is needed. Ask its owner, mia" in capsys.readouterr().err
    assert run(["features", "audit", "user", "--actor", "ben"]) == 0
    assert "feature group refused" in capsys.readouterr().out
    assert run(["features", "audit", "user", "--actor", "ben", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert lines[0]["what"] == "feature group registered"
    assert ("features pushed", "tim") in {(line["what"], line["actor"]) for line in lines}
    assert run(["features", "match", "age > 1", "--from", "usr", "--actor", "ben"]) == 2
    assert "no dataset or feature group 'usr'. Did you mean 'user'?" in capsys.readouterr().err
    assert run(["features", "list", "--actor", "eve"]) == 0
    assert "No feature groups" in capsys.readouterr().out
