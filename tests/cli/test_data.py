"""``tidemill data`` from the first rows to the erasure: as JSON, as text, with exit codes and without tracebacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tidemill.cli.main import app, run


class Door:
    """The program with a workspace of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, *words: str, code: int = 0, actor: str = "") -> Any:
        """Run a command with ``--json`` and return what it says; the error where ``code`` isn't 0."""
        more = ["--actor", actor] if actor else []
        got = run(["data", *words, *more, "--workspace", str(self.folder / "workspace"), "--json"])
        said = self.capsys.readouterr()
        assert got == code, said.err
        assert "Traceback" not in said.err
        return json.loads(said.out if code == 0 else said.err)

    def text(self, *words: str) -> str:
        """Run a command and return what it tells people."""
        assert run(["data", *words, "--workspace", str(self.folder / "workspace")]) == 0
        return self.capsys.readouterr().out


@pytest.fixture
def door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Door:
    lines = [f"p{i},{i % 9}.5,{'uvw'[i % 3]},{'yes' if i % 4 else 'no'}" for i in range(60)]
    (tmp_path / "cases.csv").write_text("\n".join(["person,x,word,y", *lines]) + "\n")
    (tmp_path / "more.csv").write_text("person,x,word,y\np0,0.5,u,yes\nq1,3.25,v,no\n")
    (tmp_path / "fixes.csv").write_text("person,y\np1,no\np2,no\n")
    return Door(tmp_path, capsys)


def test_the_whole_life_of_a_dataset(door: Door) -> None:
    folder = door.folder
    first = door("add", str(folder / "cases.csv"), "--target", "y", actor="mia")
    assert (first["dataset"], first["rows"]) == ("cases", 60)
    assert door("add", str(folder / "cases.csv"), "--target", "y")["hash"] == first["hash"]
    assert door("append", "cases", str(folder / "more.csv"))["rows"] == 62
    assert door("add", str(folder / "more.csv"), "--like", "cases")["rows"] == 2
    merged = door("merge", first["hash"], "more", "--identity", "person", "--name", "all")
    assert (merged["rows"], merged["conflicts"]) == (61, 1)
    fixed = door("relabel", "all", str(folder / "fixes.csv"), "--key", "person", "--annotator", "ben")
    assert door("sample", "all", "--way", "balanced", "--size", "10", "--name", "few")["rows"] == 10
    assert door("filter", "all", "--where", "x > 5 and word = 'u'", "--name", "some")["dataset"] == "some"
    parts = door("split", "all", "--share", "train=0.8", "--share", "test=0.2", "--group", "word")
    assert sum(p["rows"] for p in parts.values()) == 61
    assert door("dedupe", "cases", "--by", "person")["dropped"] == 1
    found = door("diff", merged["hash"], "all", "--key", "person")
    assert (found["labels"]["changed"], found["rows"]["added"]) == (2, 0)
    blamed = door("blame", "--where", "person = 'p1'")
    assert [x["annotator"] for x in blamed["labels"][0]] == ["", "ben"]
    assert door("tag", fixed["hash"], "gold")["tag"] == "gold"
    assert door("show", "all@gold")["tags"] == ["gold"]
    assert door("log", "all", "--out", str(folder / "log.svg"))["picture"]
    assert (folder / "log.svg").read_text().startswith("<svg")
    assert door("verify", "all@gold")["problems"] == []
    assert door("check", "all@gold") is not None
    assert door("forget", "--where", "person = 'p1'", "--dry-run")["rows"] == 1
    told = door("forget", "--where", "person = 'p1'", actor="mia")
    assert fixed["dataset"] in {ref.partition("@")[0] for ref in told["versions"]}
    assert door("blame", "--where", "person = 'p1'")["rows"] == 0
    assert {r["what"] for r in door("audit", "all")} >= {"dataset_version", "dataset_tagged", "dataset_forgot"}
    door("drop", "few")
    assert "few" not in {v["dataset"] for v in door("list")}
    assert door("gc")["versions"]
    assert door("untag", "all", "gold")["untagged"] == "gold"


def test_roles_are_asked_at_the_door(door: Door) -> None:
    door("add", str(door.folder / "cases.csv"), actor="mia")
    door("say", "cases", "--owner", "mia", "--pii", "person=name", "--role", "ben=reader", actor="mia")
    assert door("sample", "cases", "--size", "5", "--name", "mine", actor="ben")["rows"] == 5
    for words in (
        ["append", "cases", str(door.folder / "more.csv")],
        ["drop", "cases"],
        ["forget", "--where", "person = 'p1'"],
        ["say", "cases", "--owner", "ben"],
        ["export", "cases", str(door.folder / "x.csv"), "--with-pii"],
    ):
        assert "ben may not" in door(*words, actor="ben", code=2)["message"]
    assert "eve may not" in door("sample", "cases", "--size", "5", actor="eve", code=2)["message"]
    assert door("export", "cases", str(door.folder / "x.csv"), actor="ben")["without"] == ["person"]
    assert "p1" not in (door.folder / "x.csv").read_text()
    assert door("audit", "cases", actor="ben")[-2]["what"] == "dataset_refused"


def test_only_an_owner_collects_what_was_dropped(door: Door) -> None:
    door("add", str(door.folder / "cases.csv"), actor="mia")
    door("say", "cases", "--owner", "mia", "--role", "ben=writer", actor="mia")
    door("add", str(door.folder / "more.csv"), actor="ben")
    door("drop", "cases", actor="mia")
    door("drop", "more", actor="ben")
    for words in (["gc"], ["gc", "--dry-run"], ["gc", "cases"]):
        told = door(*words, actor="ben", code=2)
        assert "ben may not do this with the dataset 'cases'" in told["message"]
        assert "mia" in told["message"]
    refused = door("audit", "cases", actor="mia")[-1]
    assert (refused["what"], refused["actor"], refused["facts"]["needed"]) == ("dataset_refused", "ben", "owner")
    assert [v.partition("@")[0] for v in door("gc", "more", actor="ben")["versions"]] == ["more"]
    assert door("gc", "--dry-run", actor="mia")["files"] == 1
    assert door("audit", "cases", actor="mia")[-1]["what"] == "dataset_refused", "nothing was removed yet"
    done = door("gc", actor="mia")
    assert [v.partition("@")[0] for v in done["versions"]] == ["cases"]
    line = door("audit", "cases", actor="mia")[-1]
    assert (line["what"], line["actor"], line["facts"]["files"]) == ("dataset_collected", "mia", 1)
    assert "casse" in door("gc", "casse", code=2)["message"]


def test_a_row_that_two_datasets_share_is_forgotten_by_who_owns_both(door: Door) -> None:
    hers = door("add", str(door.folder / "cases.csv"), "--name", "hers", actor="mia")
    door("say", "hers", "--owner", "mia", actor="mia")
    mine = door("add", str(door.folder / "cases.csv"), "--name", "mine", actor="ben")
    assert hers["hash"] == mine["hash"], "equal rows are one version under two names"
    told = door("forget", "--where", "person = 'p1'", actor="ben", code=2)
    assert "ben may not do this with the dataset 'hers'" in told["message"]
    done = door("forget", "--where", "person = 'p1'", actor="mia")
    assert {ref.partition("@")[0] for ref in done["versions"]} == {"hers", "mine"}
    for name in ("hers", "mine"):
        assert door("audit", name, actor="mia")[-1]["what"] == "dataset_forgot"


def test_what_may_not_be_read_is_neither_shown_nor_listed(door: Door) -> None:
    door("add", str(door.folder / "cases.csv"), "--target", "y", actor="mia")
    door("sample", "cases", "--size", "5", "--name", "few", actor="mia")
    door("add", str(door.folder / "more.csv"), actor="mia")
    door("say", "cases", "--owner", "mia", "--role", "ben=reader", actor="mia")
    for words in (
        ["show", "cases"],
        ["log", "cases"],
        ["verify", "cases"],
        ["audit", "cases"],
        ["list", "cases"],
        ["check", "cases"],
    ):
        assert "eve may not" in door(*words, actor="eve", code=2)["message"], words
        assert door(*words, actor="ben") is not None
    assert {v["dataset"] for v in door("list", actor="ben")} == {"cases", "few", "more"}
    assert {v["dataset"] for v in door("list", actor="eve")} == {"few", "more"}
    seen = door("log", "few", actor="eve")
    assert {v["dataset"] for v in seen["versions"]} == {"few"}
    assert "cases" not in seen["text"]
    assert door("audit", "cases", actor="mia")[-1]["what"] == "dataset_refused"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["merge", "cases", "other"], "'x' is"),
        (["merge", "cases"], "two versions"),
        (["sample", "cases", "--size", "0"], "share below 1"),
        (["sample", "cases", "--way", "best"], "no way"),
        (["filter", "cases", "--where", "x >"], "x >"),
        (["filter", "cases", "--where", "delete from cases"], "delete"),
        (["split", "cases", "--share", "train=0.8"], "sum to 1"),
        (["split", "cases", "--share", "train"], "NAME=VALUE"),
        (["split", "cases", "--share", "train=much"], "number"),
        (["relabel", "cases", "fixes.csv", "--key", "person"], "no such file"),
        (["diff", "cases", "casse"], "Did you mean 'cases'"),
        (["diff", "cases", "cases", "--key", "persn"], "'person'"),
        (["blame"], "row or a condition"),
        (["blame", "cases", "--row", "99"], "from 0 to 59"),
        (["export", "cases", "x.nothing"], "tells no format"),
        (["tag", "cases", "abcd"], "no hash"),
        (["untag", "cases", "gold"], "gold"),
        (["say", "cases", "--pii", "persn=name"], "'person'"),
        (["show", "nothing"], "nothing"),
        (["log", "nothing"], "nothing"),
        (["forget", "--where", "persn = 'x'"], "'person'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_answered_in_words(door: Door, words: list[str], said: str) -> None:
    door("add", str(door.folder / "cases.csv"), "--target", "y")
    (door.folder / "other.csv").write_text("person,x,word,y\na,yes,u,yes\nb,no,v,no\n" * 5)
    door("add", str(door.folder / "other.csv"), "--target", "y")
    assert said in door(*words, code=2)["message"]


def test_people_get_text(door: Door) -> None:
    door.text("add", str(door.folder / "cases.csv"), "--target", "y")
    assert "No datasets" not in door.text("list")
    assert "cases" in door.text("show", "cases")
    assert "* " in door.text("log")
    assert "30 rows" in door.text("sample", "cases", "--size", "0.5", "--name", "half")
    assert "removed" in door.text("diff", "cases", "half")
    assert "holds 1" in door.text("blame", "--where", "person = 'p1'")
    assert "were erased" in door.text("forget", "--where", "person = 'p1'")
    assert "is whole" in door.text("verify", "cases")
    assert "removed" in door.text("gc")
    assert "Nothing is too old" in door.text("expire")


def test_every_command_has_an_example_and_json() -> None:
    group = typer.main.get_command(app).commands["data"]  # type: ignore[attr-defined]
    assert len(group.commands) == 31
    for name, command in group.commands.items():
        assert (command.epilog or "").startswith("Example: tidemill data "), name
        assert any("--json" in p.opts for p in command.params), name


def test_a_fit_takes_a_version_by_name(door: Door) -> None:
    first = door("add", str(door.folder / "cases.csv"), "--target", "y")
    place = ["--workspace", str(door.folder / "workspace")]
    quick = ["--trials", "1", "--family", "linear", "--cpus", "1", "--no-report"]
    assert run(["fit", f"cases@{first['hash'][:12]}", *quick, *place, "--json"]) == 0
    result = json.loads(door.capsys.readouterr().out.splitlines()[-1])
    assert result["study"] == "cases-1"
    assert door("blame", "--where", "person = 'p3'")["studies"] == ["cases-1"]
    assert [v["operation"] for v in door("list", "cases")] == ["ingest"]
    door("filter", "cases", "--where", "x > 2", "--name", "part")
    assert run(["fit", "part", "--target", "word", *quick, *place, "--json"]) == 0
    door.capsys.readouterr()
    assert door("blame", "--where", "person = 'p3'")["studies"] == ["cases-1", "part-1"]
