"""The program that travels with a bundle: what it needs, what it reads, what it says."""

from __future__ import annotations

import ast
import bz2
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.bundle.small import KINDS, write_csv

from tidemill.bundle.programs import program
from tidemill.bundle.runtime import Bundle
from tidemill.testing.parts import small_columns

Written = Callable[[str], Path]
PACKAGES = {"numpy", "onnxruntime"}


def run(folder: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8", **options)


@pytest.mark.parametrize("name", ["run.py", "tidemill_pyfunc.py"])
def test_a_program_imports_its_packages_and_the_standard_library_alone(name: str) -> None:
    tree = ast.parse(program(name))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    allowed = PACKAGES | ({"pandas"} if name == "tidemill_pyfunc.py" else set())
    assert {i.partition(".")[0] for i in imported} - sys.stdlib_module_names == allowed


TRACED = """
import runpy, sys, sysconfig
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
# Packages in site-packages that onnxruntime and numpy load by themselves are not ours to count.
print("\\n" + " ".join({n.partition(".")[0] for n in sys.modules}))
"""


def test_running_it_loads_nothing_of_tidemill(written: Written, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", small_columns(20))
    out = tmp_path / "out.csv"
    command = [sys.executable, "-I", "-c", TRACED, str(written("binary") / "run.py"), str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"tidemill", "onnx", "pandas", "pyarrow", "polars", "sklearn", "scipy", "lightgbm", "xgboost", "pydantic"}
    assert loaded & heavy == set()
    assert out.read_text(encoding="utf-8").startswith("prediction,proba_no,proba_yes\n")


@pytest.mark.parametrize("kind", KINDS)
def test_it_writes_the_same_bytes_as_the_bundle(written: Written, tmp_path: Path, kind: str) -> None:
    source = write_csv(tmp_path / "in.csv", small_columns(4096 + 700, seed=3))
    done = run(written(kind), source, tmp_path / "a.csv")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert Bundle.open(written(kind)).to_csv(source, tmp_path / "b.csv") == 4796
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    header = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == {
        "binary": "prediction,proba_no,proba_yes",
        "multiclass": 'prediction,proba_x,"proba_y, quoted",proba_ž',
        "regression": "prediction",
    }[kind]  # fmt: skip


def test_floats_give_back_the_float32(written: Written, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", small_columns(200))
    bundle = Bundle.open(written("binary"))
    bundle.to_csv(source, tmp_path / "out.csv")
    text = np.genfromtxt(tmp_path / "out.csv", delimiter=",", skip_header=1, usecols=(1, 2), dtype=np.float32)
    assert (text == bundle.predict_proba(source)).all()


def test_columns_are_found_by_name(written: Written, tmp_path: Path) -> None:
    columns = small_columns(50)
    write_csv(tmp_path / "a.csv", columns)
    other = {"extra": np.arange(50), **dict(reversed(columns.items())), "y": np.array(["yes"] * 50)}
    write_csv(tmp_path / "b.csv", other)
    first, second = (run(written("binary"), tmp_path / f"{n}.csv") for n in "ab")
    assert first.stdout == second.stdout != ""


def variants(text: str) -> dict[str, bytes]:
    return {
        "plain": text.encode(),
        "byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "utf-16": text.encode("utf-16"),
        "windows line ends": text.replace("\n", "\r\n").encode(),
        "old line ends": text.replace("\n", "\r").encode(),
        "semicolons": text.replace(",", ";").encode(),
        "tabs": text.replace(",", "\t").encode(),
        "blank lines": ("\n\n" + text.replace("\n", "\n\n")).encode(),
        "no last line end": text.rstrip("\n").encode(),
        "spaces": text.replace(",", " , ").encode(),
        "gzip": gzip.compress(text.encode()),
        "bzip2": bz2.compress(text.encode()),
        "quotes": text.replace("a", '"a"').replace("size", '"size"').replace("unseen", '"un\nseen"').encode(),
    }


@pytest.mark.parametrize("name", list(variants("")))
def test_a_file_is_read_as_tidemill_reads_it(written: Written, tmp_path: Path, name: str) -> None:
    text = 'size,colour,weight\n1.5,b,2\n NA ,a,-1e3\n,,\n-.5,unseen,inf\n1,c,"1,234.5"\n'
    if name in ("semicolons", "tabs", "spaces", "quotes"):
        text = text.replace('"1,234.5"', "1234.5")
    path = tmp_path / "in.csv"
    path.write_bytes(variants(text)[name])
    done = run(written("binary"), path)
    assert done.returncode == 0, done.stderr
    Bundle.open(written("binary")).to_csv(path, tmp_path / "out.csv")
    assert done.stdout == (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert done.stdout.count("\n") == 6


FAULTS = {
    "": "The file is empty",
    "\n\n": "The file is empty",
    "size,colour,weight\n": "header but no rows",
    "size,weight\n1,2\n": "1 column is missing: 'colour'",
    "a\n1\n": "3 columns are missing: 'size', 'colour', 'weight'",
    "size,size,colour,weight\n1,2,a,3\n": "more than once: 'size'",
    "size,colour,weight\n1,a,2\n1,a\n": "Line 3 has 2 fields where the header has 3",
    'size,colour,weight\n1,"a\nb",2\n1,a,2,3\n': "Line 4 has 4 fields where the header has 3",
    "size,colour,weight\n1,a,2\nbig,a,2\n": "Column 'size', row 2: 'big' is not a number",
}


@pytest.mark.parametrize("text", FAULTS)
def test_bad_input_is_one_line_and_exit_code_2(written: Written, tmp_path: Path, text: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    done = run(written("binary"), tmp_path / "in.csv", tmp_path / "out.csv")
    assert done.returncode == 2
    assert FAULTS[text] in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv"]


def test_bytes_that_are_no_text(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("size,colour,weight\n1,Köln,2\n".encode("cp1252"))
    done = run(written("binary"), path)
    assert done.returncode == 2
    assert "say --encoding" in done.stderr
    assert done.stderr.count("\n") == 1
    assert run(written("binary"), path, "--encoding", "cp1252").returncode == 0
    assert "no encoding 'nonsense'" in run(written("binary"), path, "--encoding", "nonsense").stderr


def test_files_that_can_not_be_used(written: Written, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", small_columns(3))
    for arguments in ((tmp_path / "none.csv",), (source, tmp_path / "no" / "out.csv"), (tmp_path,)):
        done = run(written("binary"), *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_a_damaged_archive(written: Written, tmp_path: Path) -> None:
    whole = gzip.compress(b"size,colour,weight\n" + b"1,a,2\n" * 100_000)
    (tmp_path / "in.csv.gz").write_bytes(whole[: len(whole) // 2])
    done = run(written("binary"), tmp_path / "in.csv.gz")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_an_older_output_stays_after_a_fault(written: Written, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("size,colour,weight\n" + "1,a,2\n" * 5000 + "x,a,2\n")
    (tmp_path / "out.csv").write_text("older")
    assert "row 5,001" in run(written("binary"), tmp_path / "in.csv", tmp_path / "out.csv").stderr
    assert (tmp_path / "out.csv").read_text() == "older"


def test_output_may_be_a_pipe_that_closes(written: Written, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", small_columns(30_000))
    command = f"{sys.executable} {written('binary') / 'run.py'} {source} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "prediction,proba_no,proba_yes\n"
    assert "Traceback" not in done.stderr


def test_a_cell_of_a_megabyte(written: Written, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"size,colour,weight\n1,{'x' * 1_000_000},2\n")
    assert run(written("binary"), tmp_path / "in.csv").returncode == 0


@pytest.mark.slow
def test_it_runs_where_there_is_only_onnxruntime_and_numpy(written: Written, tmp_path: Path) -> None:
    python = bare_environment(tmp_path, "-r", str(written("binary") / "requirements.txt"))
    installed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    names = {line.partition("==")[0].lower() for line in installed.stdout.split()}
    assert not names & {"tidemill", "onnx", "pandas", "pyarrow"}
    source = write_csv(tmp_path / "in.csv", small_columns(5000))
    for kind in KINDS:
        subprocess.run([python, str(written(kind) / "run.py"), str(source), str(tmp_path / "a.csv")], check=True)
        Bundle.open(written(kind)).to_csv(source, tmp_path / "b.csv")
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("release", ["1.29.*", "1.30.*"])
def test_older_onnxruntimes_read_the_graph(written: Written, tmp_path: Path, release: str) -> None:
    python = bare_environment(tmp_path, f"onnxruntime=={release}", "numpy")
    source = write_csv(tmp_path / "in.csv", small_columns(300))
    for kind in KINDS:
        subprocess.run([python, str(written(kind) / "run.py"), str(source), str(tmp_path / "out.csv")], check=True)
        assert (tmp_path / "out.csv").read_text(encoding="utf-8").count("\n") == 301


def bare_environment(tmp_path: Path, *packages: str) -> str:
    """Make a virtual environment with some packages, or skip where they are not to be had."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        pytest.skip(f"not to be had here: {packages} ({done.stderr.strip().splitlines()[-1:]})")
    return python
