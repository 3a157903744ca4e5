"""Every command on a small study: as text, as JSON, with its exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.cli.conftest import QUICK, Small

from tidemill.cli.main import app, run
from tidemill.core.objective import parse_objective


def test_fit_streams_one_event_a_line_and_ends_with_the_result(small: Small) -> None:
    events = [json.loads(line) for line in small.said]
    assert {"stage", "started", "finished"} <= {e["event"] for e in events[:-1]}
    assert "tick" not in {e["event"] for e in events}
    result = events[-1]
    assert result["event"] == "result"
    assert result["study"] == "small"
    assert Path(result["bundle"]) == small.bundle
    assert 0 < result["first_model_s"] <= result["seconds"]
    assert result["best"]["value"] > 0.8


def words(small: Small, tmp_path: Path) -> dict[str, list[str]]:
    """One use of each command, without ``--json``."""
    place = ["--workspace", str(small.workspace)]
    bundle, train = str(small.bundle), str(small.train)
    return {
        "studies": ["studies", *place],
        "leaderboard": ["leaderboard", "small", "--top", "1", *place],
        "leaderboard objective": ["leaderboard", "small", "--objective", "maximize accuracy; params <= 50", *place],
        "show": ["show", "small", *place],
        "show trial": ["show", "small", "0", *place],
        "pareto": ["pareto", "small", "--cost", "size_bytes", *place],
        "reobjective": ["reobjective", "small", "--objective", "maximize accuracy", *place],
        "reobjective out": [
            "reobjective", "small", "--objective", "minimize cost([[0,1],[5,0]])",
            "--out", str(tmp_path / "r.tm"), *place,
        ],
        "predict": ["predict", bundle, train],
        "predict out": ["predict", bundle, train, "--out", str(tmp_path / "answers.csv")],
        "evaluate": ["evaluate", bundle, train],
        "export onnx": ["export", bundle, "--to", "onnx", "--out", str(tmp_path / "model.onnx")],
        "export mlflow": ["export", bundle, "--to", "mlflow", "--out", str(tmp_path / "mlflow")],
        "export triton": ["export", bundle, "--to", "triton", "--out", str(tmp_path / "triton")],
        "verify": ["verify", bundle],
        "data add": ["data", "add", train, "--name", "mine", "--target", "y", *place],
        "data list": ["data", "list", *place],
        "data show": ["data", "show", "train", *place],
        "data check": ["data", "check", train, "--target", "y"],
    }  # fmt: skip


ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [str(Path(sys.executable).parent / "tidemill")]
COMMANDS = (
    "studies", "leaderboard", "leaderboard objective", "show", "show trial", "pareto", "reobjective",
    "reobjective out", "predict", "predict out", "evaluate", "export onnx", "export mlflow", "export triton",
    "verify", "data add", "data list", "data show", "data check",
)  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_text_then_json(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    command = words(small, tmp_path)[name]
    assert run(command) == 0
    text = capsys.readouterr()
    assert text.out.strip()
    assert text.err == ""
    again = tmp_path / "again"
    again.mkdir()
    assert run([*words(small, again)[name], "--json"]) == 0
    shown = capsys.readouterr()
    json.loads(shown.out, parse_constant=_refuse)
    assert shown.err == ""


def _refuse(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


_ELSEWHERE = {
    "audit", "configure", "deploy", "endpoints", "features", "gate", "jobs", "keys", "plan", "pool", "rollback",
    "serve", "sign", "traffic", "undeploy", "up", "watch", "worker",
}  # fmt: skip
"""Commands with tests in files of their own: what is served, signatures, features, jobs, plans and the pool."""
_DATA_HERE = {"add", "list", "show", "check"}
"""The other commands of ``data`` are tested in test_data.py."""


def test_the_commands_above_are_all_that_read(small: Small, tmp_path: Path) -> None:
    names = {path for path, _ in commands()} - {("fit",), ("demo",), ("report",)}
    names -= {path for path in names if path[0] in _ELSEWHERE}
    names -= {path for path in names if path[0] == "data" and path[1] not in _DATA_HERE}
    used = {tuple(c[:2]) if c[0] == "data" else (c[0],) for c in words(small, tmp_path).values()}
    assert names == used
    assert set(COMMANDS) == set(words(small, tmp_path))


def test_report_is_one_file(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    assert run(["report", "small", "--out", str(page), "--workspace", str(small.workspace), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(page)}
    assert "<html" in page.read_text()


def test_predict_and_run_py_write_the_same_bytes(small: Small, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    assert run(["predict", str(small.bundle), str(small.train), "--out", str(ours)]) == 0
    program = [sys.executable, "-I", str(small.bundle / "run.py"), str(small.train), str(theirs)]
    subprocess.run(program, check=True, capture_output=True)
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.read_text().splitlines()[0] == "prediction,proba_no,proba_yes"


def test_json_of_predict_has_the_columns_of_the_csv(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(small.bundle), str(small.train), "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert len(records) == 90
    assert list(records[0]) == ["prediction", "proba_no", "proba_yes"]


@pytest.mark.parametrize(
    ("command", "offered"),
    [
        (["leaderboard", "smal"], "small"),
        (["show", "small", "99"], "trial"),
        (["pareto", "small", "--cost", "latency"], "latency_ms"),
        (["reobjective", "small", "--objective", "maximize acuracy"], "accuracy"),
        (["data", "show", "trian"], "train"),
        (["export", "BUNDLE", "--to", "onx", "--out", "x"], "onnx"),
        (["predict", "BUNDLEE", "x.csv"], "small.tm"),
        (["fit", "--resume", "smal"], "small"),
    ],
)
def test_a_mistyped_name_is_wrong_usage(
    small: Small, capsys: pytest.CaptureFixture[str], command: list[str], offered: str
) -> None:
    filled = [w.replace("BUNDLE", str(small.bundle)) for w in command]
    if command[0] not in ("export", "predict"):
        filled += ["--workspace", str(small.workspace)]
    assert run(filled) == 2
    said = capsys.readouterr().err
    assert offered in said
    assert said.count("Error:") == 1
    assert run([*filled, "--json"]) == 2
    assert set(json.loads(capsys.readouterr().err)) == {"error", "message"}


@pytest.mark.parametrize("command", [["fit", "--tyme", "5s"], ["leaderboard"], ["leaderbord"], ["export", "x"]])
def test_words_that_do_not_parse_are_wrong_usage(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 2
    assert "Usage" in capsys.readouterr().err


def commands() -> list[tuple[tuple[str, ...], Any]]:
    """All commands with their path."""
    found: list[tuple[tuple[str, ...], Any]] = []
    todo: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app))]
    while todo:
        path, command = todo.pop()
        if hasattr(command, "commands"):
            todo += [((*path, name), child) for name, child in command.commands.items()]
        else:
            found.append((path, command))
    return sorted(found, key=lambda item: item[0])


@pytest.mark.parametrize(
    ("path", "command"), commands(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_help_shows_an_example_of_the_command(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert f"tidemill {' '.join(path)}" in shown.partition("Example")[2]
    names = {name for p in command.params for name in p.opts}
    assert "--json" in names
    documented = [p for p in command.params if p.name != "help"]
    assert all(p.help for p in documented), "every option says what it does"


def test_the_options_of_the_examples_exist() -> None:
    for path, command in commands():
        names = {name for p in command.params for name in [*p.opts, *p.secondary_opts]}
        ours, _, _ = str(command.epilog).partition(" -- ")  # what follows belongs to the program that is started
        for word in ours.split():
            assert not word.startswith("--") or word.strip("'\"") in names, (path, word)


def test_the_shell_completes_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        told = {"_TIDEMILL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run([*PROGRAM], env={**os.environ, **told}, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("tidemill lead") == ["leaderboard"]
    assert completed("tidemill data sh") == ["show"]
    assert "--objective" in completed("tidemill fit --obj")


def test_the_completion_script_is_shown() -> None:
    # The shell is found by looking at who called.
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(PROGRAM)} --show-completion; true"], capture_output=True, text=True
    )
    assert "complete -o default" in done.stdout
    assert "tidemill" in done.stdout


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "src/tidemill/cli/README.md"])
def test_the_pages_name_commands_and_options_that_exist(page: str) -> None:
    known = {path: {o for p in c.params for o in [*p.opts, *p.secondary_opts]} for path, c in commands()}
    groups = {path[0] for path in known if len(path) > 1}
    text = (ROOT / page).read_text(encoding="utf-8")
    used = re.findall(r"^\$ tidemill (.*)$|`tidemill ([^`]*)`", text, re.MULTILINE)
    for line in (block or inline for block, inline in used):
        words = line.partition("#")[0].replace("…", "").split()
        path = tuple(words[:2]) if words[0] in groups else tuple(words[:1])
        if path in {("--help",), ("--install-completion",), ("--version",)}:
            continue
        assert path in known, line
        assert {w for w in words if w.startswith("--")} <= known[path] | {"--help"}, line


def test_the_objective_of_the_readme_parses(tmp_path: Path) -> None:
    (tmp_path / "matrix.csv").write_text(",ok,fraud\nok,0,1\nfraud,5,0\n")
    found = re.findall(r'(?:--objective |objective=)"([^"]+)"', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert found
    for text in found:
        parse_objective(text, base_dir=tmp_path)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import tidemill

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"tidemill {tidemill.__version__}\n"


def test_quiet_says_nothing(small: Small, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["fit", str(small.train), "--target", "y", "--trials", "1", *QUICK, "--quiet"]
    assert run([*words, "--workspace", str(tmp_path / "w")]) == 0
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_progress_is_plain_lines(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(small.train), "--target", "y", "--trials", "1", *QUICK]
    assert run([*words, "--workspace", str(tmp_path / "w")]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.err
    assert all(line.startswith("[") for line in shown.err.splitlines())
    assert "linear-0 roc_auc" in shown.err
    assert "Leaderboard of study train-1" in shown.out
    assert "tidemill reobjective train-1" in shown.out
