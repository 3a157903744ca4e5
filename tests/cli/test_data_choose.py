"""``tidemill data match, compare`` and ``features match``: as JSON, as text, with exit codes and without tracebacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tidemill.cli.main import run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_WORKSPACE", str(tmp_path / "ws"))
    rng = np.random.default_rng(0)
    age, region = rng.uniform(20, 70, 200).round(1), rng.choice(["north", "south"], 200)
    treated = np.where(rng.random(200) < 1 / (1 + np.exp(-(age - 45) / 15)), "yes", "no")
    lines = [f"p{i},{a},{r},{t},{a / 10:.3f}" for i, (a, r, t) in enumerate(zip(age, region, treated, strict=True))]
    (tmp_path / "people.csv").write_text("\n".join(["person,age,region,campaign,spent", *lines]) + "\n")
    assert run(["data", "add", str(tmp_path / "people.csv"), "--target", "spent"]) == 0
    return tmp_path


def test_people_see_counts_distributions_and_balance(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    select, svg = str(place / "s.json"), str(place / "b.svg")
    assert (
        run(["data", "match", "people", "--where", "age < 40", "--size", "20", "--save", select, "--name", "few"]) == 0
    )
    said = capsys.readouterr().out
    assert "of 200 rows match, 20 are taken" in said
    assert "few " in said
    assert f"Selection: {select}" in said
    words = [
        "--treated",
        "campaign = 'yes'",
        "--on",
        "age,region",
        "--outcome",
        "spent",
        "--plot",
        svg,
        "--name",
        "both",
    ]
    assert run(["data", "compare", "people", *words]) == 0
    said = capsys.readouterr().out
    assert "found no partner" in said
    assert "Difference in spent" in said
    assert (place / "b.svg").read_text().lstrip().startswith("<?xml")


def test_programs_get_json_and_can_replay(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near = ["--similar-to", "person = 'p3'", "--over", "age", "--size", "4", "--save", str(place / "s.json")]
    assert run(["data", "match", "people", *near, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run(["data", "match", "people", "--replay", str(place / "s.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"] == first["manifest"]
    (place / "whole.json").write_text(json.dumps(first))
    assert run(["features", "match", "--from", "people", "--replay", str(place / "whole.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"] == first["manifest"]
    assert (
        run(["features", "match", "age < 30", "--from", "people", "--stratify", "region", "--size", "9", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["size"] == 9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["match", "people", "--where", "agee > 3"], "'age'"),
        (["match", "people", "--where", "age > 3; delete from people"], "delete"),
        (["match", "peple"], "'people'"),
        (["match", "people", "--similar-to", "age > 3"], "Over which columns"),
        (["match", "people", "--replay", "nothing.json"], "neither a file nor a version"),
        (["match", "people", "--replay", "people"], "matched"),
        (["match", "people", "--seed", "-1"], "seed >= 0"),
        (["match", "people", "--model", "none"], "none"),
        (["compare", "people", "--treated", "age > 900", "--on", "region"], "empty"),
        (["compare", "people", "--treated", "age > 40", "--on", "person"], "values"),
        (["compare", "people", "--treated", "age > 40", "--on", "region", "--plot", "x.jpg"], ".svg or .png"),
        (["compare", "people", "--treated", "age > 40", "--on", "region", "--outcome", "region"], "number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_words_end_with_a_sentence_and_code_2(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(["data", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_roles_are_asked_at_the_door(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "say", "people", "--owner", "mia", "--actor", "mia"]) == 0
    assert run(["data", "match", "people", "--actor", "eve"]) == 2
    assert "eve may not" in capsys.readouterr().err
    assert run(["features", "match", "--from", "people", "--actor", "eve"]) == 2
    assert run(["features", "match", "--from", "people", "--actor", "mia"]) == 0
