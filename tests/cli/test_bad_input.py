"""Bad input gives one clear message, the right exit code, and loses nothing."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.bundle import write
from tidemill.bundle.verify import verify
from tidemill.cli.main import run
from tidemill.store.tables import VERSION_TABLE

Fit = Callable[..., tuple[int, str]]


@pytest.fixture
def fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fit:
    """Run ``tidemill fit`` on a file with small limits; returns exit code and what was said on standard error."""

    def call(content: str | bytes | Path, *more: str, target: str = "y") -> tuple[int, str]:
        path = content if isinstance(content, Path) else tmp_path / "train.csv"
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        code = run(
            ["fit", str(path), "--target", target, "--trials", "1", "--family", "linear", "--cpus", "1", "--no-report",
             "--workspace", str(tmp_path / "w"), *more]
        )  # fmt: skip
        return code, capsys.readouterr().err

    return call


def table(rows: int = 60, *, target: str = "y") -> str:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=rows), rng.choice(["u", "v", "w"], size=rows)
    y = np.where(a + (b == "u") > 0.3, "yes", "no")
    lines = [f"a,b,{target}"] + [f"{x:.4f},{c},{t}" for x, c, t in zip(a, b, y, strict=True)]
    return "\n".join(lines) + "\n"


def one_message(error: str) -> str:
    """The error part of standard error; there is exactly one, and no traceback."""
    assert "Traceback" not in error
    assert error.count("Error:") == 1
    return error[error.index("Error:") :]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["empty"]),
        ("a,b,y\n", ["no rows"]),
        ("a,b,y\n1,2,u\n3,4\n5,6,v\n", ["Line 3"]),
        ("a,a,y\n1,2,u\n3,4,v\n", ["'a'", "more than once"]),
        ("a,b,y\n1,2,\n3,4,\n", ["'y'", "missing"]),
        ("a,b,y\n" + "1,2,u\n3,4,u\n" * 30, ["one class"]),
        ("y\n" + "u\nv\n" * 30, ["feature"]),
        ("a,b,y\n" + "1,k,u\n1,k,v\n" * 30, ["feature"]),
    ],
    ids=[
        "empty",
        "header only",
        "ragged",
        "duplicate columns",
        "target missing",
        "one class",
        "no feature",
        "constant",
    ],
)
def test_unusable_table(fit: Fit, content: str, words: list[str]) -> None:
    code, error = fit(content)
    assert code == 2
    message = one_message(error)
    for word in words:
        assert word in message


def test_missing_file_names_it(fit: Fit, tmp_path: Path) -> None:
    code, error = fit(tmp_path / "absent.csv")
    assert code == 2
    assert "absent.csv" in one_message(error)


def test_no_such_target_offers_the_nearest(fit: Fit) -> None:
    code, error = fit(table(target="income"), target="incme")
    assert code == 2
    assert "Did you mean 'income'?" in one_message(error)


def test_undecodable_bytes_give_an_offset(fit: Fit) -> None:
    code, error = fit(table().encode() + b"\x00\x01\x02\xff\xfe\x80" * 50)
    assert code == 2
    message = one_message(error)
    assert "byte" in message or "offset" in message or "line" in message


def test_truncated_compression(fit: Fit, tmp_path: Path) -> None:
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(table(500).encode())[:-200])
    code, error = fit(path)
    assert code == 2
    one_message(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("maximize roc_acu", ["roc_auc"]),
        ("maximize roc_auc; params < 5", ["^"]),
        ("maximize", ["^"]),
        ("minimize rmse", ["rmse", "binary"]),
        ("minimize cost(absent.csv)", ["absent.csv"]),
        ("minimize cost([[0,1,2],[1,0,1],[1,1,0]])", ["3", "2"]),
    ],
)
def test_wrong_objective(fit: Fit, text: str, words: list[str]) -> None:
    code, error = fit(table(), "--objective", text)
    assert code == 2
    message = one_message(error)
    for word in words:
        assert word in message


def test_cost_matrix_with_other_labels(fit: Fit, tmp_path: Path) -> None:
    matrix = tmp_path / "matrix.csv"
    matrix.write_text(",good,bad\ngood,0,1\nbad,5,0\n")
    code, error = fit(table(), "--objective", f"minimize cost({matrix})")
    assert code == 2
    assert "good" in one_message(error)


@pytest.mark.parametrize(
    "words", [["--time", "soon"], ["--memory", "much"], ["--test-size", "2"], ["--type", "a=colour"], ["--cpus", "-1"]]
)
def test_wrong_options(fit: Fit, words: list[str]) -> None:
    code, error = fit(table(), *words)
    assert code == 2
    one_message(error)


def test_unknown_family_offers_the_nearest(fit: Fit) -> None:
    code, error = fit(table(), "--family", "lightgmb")
    assert code == 2
    assert "lightgbm" in one_message(error)


@pytest.mark.parametrize("content", ["b\nu\n", "a,b\n1,u\nmany,v\n"], ids=["missing", "text in a number"])
def test_prediction_file_that_does_not_fit(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    new = tmp_path / "new.csv"
    new.write_text(content)
    assert run(["predict", str(small.bundle), str(new), "--out", str(tmp_path / "answers.csv")]) == 2
    assert "'a'" in one_message(capsys.readouterr().err)
    assert not (tmp_path / "answers.csv").exists()


def test_read_only_workspace(fit: Fit, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for place in (blocked, Path("/proc/tidemill")):  # not even root may write there
        code, error = fit(table(), "--workspace", str(place))
        assert code == 1
        assert "workspace" in one_message(error).lower()


@contextlib.contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """As on a disk that is full: no file of this process grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("command", ["predict", "export"])
def test_disk_full(small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    out = tmp_path / "out"
    words = [str(small.train)] if command == "predict" else ["--to", "mlflow"]
    with files_of_at_most(1000):
        code = run([command, str(small.bundle), *words, "--out", str(out)])
    assert code == 1
    assert "could not be written" in one_message(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == [], "nothing half-written is left"
    assert run([command, str(small.bundle), *words, "--out", str(out)]) == 0


def test_disk_full_under_the_workspace(fit: Fit, tmp_path: Path) -> None:
    with files_of_at_most(60_000):
        code, error = fit(table(3000))
    assert code == 1
    one_message(error)
    assert fit(table(), "--quiet") == (0, "")


def test_disk_full_while_exporting_loses_no_study(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "m.tm"
    monkeypatch.setattr(write, "write_files", full)
    code, error = fit(table(), "--out", str(out))
    assert code == 1
    message = one_message(error)
    assert "No space left on device" in message
    assert f"tidemill fit --resume train-1 --out {out}" in message
    assert not out.exists()
    monkeypatch.undo()
    words = ["--out", str(out), "--no-report", "--workspace", str(tmp_path / "w")]
    assert run(["fit", "--resume", "train-1", *words]) == 0
    assert verify(out) == []


def test_out_that_holds_other_things_is_refused_before_the_search(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    code, error = fit(table(), "--out", str(tmp_path / "thesis"))
    assert code == 2
    assert "thesis" in one_message(error)
    assert "baselines" not in error
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    code, error = fit(table(), "--out", str(tmp_path / "train.csv" / "m.tm"))
    assert code == 2
    one_message(error)


def test_workspace_of_a_newer_version(fit: Fit, tmp_path: Path) -> None:
    assert fit(table(), "--quiet")[0] == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "w" / "metadata.db")) as database, database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    code, error = fit(table())
    assert code == 1
    assert "newer version" in one_message(error)


@pytest.mark.parametrize("name", ["bundle.json", "manifest.json", "1/model.onnx", "run.py", "tests/golden.npz"])
def test_a_flipped_byte_anywhere(small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(["export", str(small.bundle), "--to", "mlflow", "--out", str(tmp_path / "x")]) == 0
    copy = tmp_path / "copy.tm"
    _copy(small.bundle, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    capsys.readouterr()
    assert run(["verify", str(copy)]) == 1
    said = capsys.readouterr()
    assert name in said.out + said.err
    if name in ("bundle.json", "1/model.onnx"):
        assert run(["predict", str(copy), str(small.train)]) == 1
        assert name in one_message(capsys.readouterr().err)


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


def test_order_and_more_columns_do_not_matter(small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split(",") for line in small.train.read_text().splitlines()]
    other = tmp_path / "other.csv"
    other.write_text("\n".join(f"{y},{b},new,{a}" if i else "y,b,more,a" for i, (a, b, y) in enumerate(rows)) + "\n")
    answers = []
    for path in (small.train, other):
        assert run(["predict", str(small.bundle), str(path)]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


def test_unseen_categories_and_missing_cells_are_answered(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.csv"
    new.write_text("a,b\n,\n0.5,never seen\nnan,u\ninf,v\n")
    assert run(["predict", str(small.bundle), str(new)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.split(",")[0] in ("yes", "no") for line in lines[1:])


def test_evaluate_without_the_target(small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new.csv"
    new.write_text("a,b\n1,u\n")
    assert run(["evaluate", str(small.bundle), str(new)]) == 2
    assert "'y'" in one_message(capsys.readouterr().err)


@pytest.mark.parametrize(
    "kind", ["categories", pytest.param("columns", marks=pytest.mark.slow), "text", "infinities", "rare class"]
)
def test_extremes_still_work(fit: Fit, tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    if kind == "categories":
        rows = 100_000
        a = rng.normal(size=rows)
        lines = ["a,c,y"] + [f"{x:.3f},k{i},{'u' if x > 0 else 'v'}" for i, x in enumerate(a)]
    elif kind == "columns":
        x = rng.normal(size=(80, 5000)).astype(np.float16)
        lines = [",".join(f"c{i}" for i in range(5000)) + ",y"]
        lines += [",".join(map(str, row)) + ("," + ("u" if row[0] > 0 else "v")) for row in x]
    elif kind == "text":
        lines = ["a,t,y"] + [f"{i % 7},{'word ' * 3}{i},{'u' if i % 7 > 3 else 'v'}" for i in range(80)]
        lines.append("1," + "long " * 200_000 + ",u")
    elif kind == "infinities":
        lines = ["a,b,y"] + [
            f"{['inf', '-inf', 'nan', i][i % 4]},{i % 5},{'u' if i % 5 > 2 else 'v'}" for i in range(80)
        ]
    else:
        lines = ["a,y"] + [f"{i},{'u' if i % 2 else 'v'}" for i in range(79)] + ["5,w"]
    code, error = fit("\n".join(lines) + "\n", "--out", str(tmp_path / "m.tm"), "--test-size", "0")
    assert code == 0, error
    assert run(["verify", str(tmp_path / "m.tm")]) == 0
