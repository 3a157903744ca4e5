"""Bad input gives one clear message, the right exit code, and loses nothing."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tidemill.cli.main import run

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
        ("a,b,y\n1,2,u\n3,4\n5,6,v\n", ["line 3"]),
        ("a,a,y\n1,2,u\n3,4,v\n", ["'a'", "twice"]),
        ("a,b,y\n1,2,\n3,4,\n", ["'y'", "missing"]),
        ("a,b,y\n" + "1,2,u\n" * 30, ["one class"]),
        ("y\n" + "u\nv\n" * 30, ["feature"]),
        ("a,b,y\n" + "1,k,u\n1,k,v\n" * 30, ["feature"]),
    ],
    ids=["empty", "header only", "ragged", "duplicate columns", "target missing", "one class", "no feature", "constant"],
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


@pytest.mark.parametrize("kind", ["missing", "text in a number"])
def test_prediction_file_that_does_not_fit(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    code, _ = fit(table(), "--out", str(tmp_path / "m.tm"))
    assert code == 0
    capsys.readouterr()
    new = tmp_path / "new.csv"
    new.write_text("b\nu\n" if kind == "missing" else "a,b\n1,u\nmany,v\n")
    assert run(["predict", str(tmp_path / "m.tm"), str(new)]) == 2
    message = one_message(capsys.readouterr().err)
    assert "'a'" in message


def test_one_flipped_byte_is_found(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(table(), "--out", str(tmp_path / "m.tm"))
    path = tmp_path / "m.tm" / "1" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    assert run(["verify", str(tmp_path / "m.tm")]) == 1
    assert "model.onnx" in capsys.readouterr().out


def test_read_only_workspace(fit: Fit, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    code, error = fit(table(), "--workspace", str(blocked))
    assert code in (1, 2)
    assert "workspace" in one_message(error).lower()


@pytest.mark.parametrize("kind", ["categories", "columns", "text", "infinities", "rare class"])
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
        lines = ["a,b,y"] + [f"{['inf', '-inf', 'nan', i][i % 4]},{i % 5},{'u' if i % 5 > 2 else 'v'}" for i in range(80)]
    else:
        lines = ["a,y"] + [f"{i},{'u' if i % 2 else 'v'}" for i in range(79)] + ["5,w"]
    code, error = fit("\n".join(lines) + "\n", "--out", str(tmp_path / "m.tm"), "--test-size", "0")
    assert code == 0, error
    assert run(["verify", str(tmp_path / "m.tm")]) == 0
