"""Import is cheap, rooms keep to their walls, and the public names are the documented ones."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tidemill

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "tidemill"

# What no one should wait for who only imports the package or asks for help.
HEAVY = {
    "PIL", "aiohttp", "alembic", "catboost", "duckdb", "fastapi", "google", "great_expectations", "grpc", "jinja2",
    "lightgbm", "matplotlib", "mlflow", "model_signing", "onnx", "onnxruntime", "openpyxl", "opentelemetry", "openvino",
    "optuna", "pandas", "pandera", "polars", "psycopg", "pyarrow", "ray", "s3fs", "scipy", "sklearn", "sqlalchemy",
    "starlette", "torch", "transformers", "xgboost",
}  # fmt: skip

# Promised for the machine of docs/benchmarks.md; a slower one may take longer, as much as for imports of Python's own.
STEADY = "import asyncio, ctypes, decimal, email.message, http.client, multiprocessing, sqlite3, unittest.mock, uuid"
STEADY_CPU_S = 0.1
IMPORT_CPU_S = 0.3
# Of 0.26 s on the machine of docs/benchmarks.md typer and what it takes of rich are 0.18 s (2026-11-21, least of 9).
HELP_CPU_S = 0.5

# Runs a program in a child of its own and reports the user CPU seconds it took: unlike the clock on the wall, these
# do not grow when the machine has other work.
STOPWATCH = """
import json, resource, subprocess, sys
result = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([result.returncode, usage.ru_utime, result.stdout.decode()]))
"""


def cpu_seconds(*command: str) -> float:
    """Give the user CPU seconds of the quickest of nine warm runs."""
    # Timed as in a person's terminal: without a coverage tool or a hash seed from the test run.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    seconds = []
    for _ in range(10):
        done = subprocess.run(
            [sys.executable, "-c", STOPWATCH, *command], capture_output=True, text=True, check=True, env=environment
        )
        code, user_s, output = json.loads(done.stdout)
        assert code == 0, output
        seconds.append(user_s)
    return min(seconds[1:])  # the first run may compile modules; of the others, what a busy machine adds is not ours


@pytest.fixture(scope="module")
def slowness() -> float:
    """How often this machine is slower than that of docs/benchmarks.md; at least 1."""
    return max(1.0, cpu_seconds(sys.executable, "-c", STEADY) / STEADY_CPU_S)


def loaded_by(program: str) -> set[str]:
    """Give the top-level packages that a program has loaded at its end."""
    program += "\nimport sys; print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import tidemill") & (HEAVY | {"numpy"}) == set()


def test_help_loads_nothing_heavy() -> None:
    program = """
import sys
from tidemill.cli.main import main
sys.argv = ["tidemill", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_by(program) & HEAVY == set()


def test_import_is_quick(slowness: float) -> None:
    assert cpu_seconds(sys.executable, "-c", "import tidemill") < IMPORT_CPU_S * slowness


def test_help_is_quick(slowness: float) -> None:
    assert cpu_seconds(str(Path(sys.executable).parent / "tidemill"), "--help") < HELP_CPU_S * slowness


@pytest.mark.parametrize("path", sorted((SRC / "cli" / "commands").rglob("*.py")), ids=lambda path: path.name)
def test_annotations_of_commands_are_values(path: Path) -> None:
    assert "__future__" not in imported(path), "typer reads an annotation that is text four times"


@pytest.mark.parametrize("name", tidemill.__all__)
def test_every_public_name_is_found_in_its_room(name: str) -> None:
    assert getattr(tidemill, name) is not None
    assert name in dir(tidemill)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'study'"):
        _ = tidemill.study


def test_rooms_import_only_rooms_below_them() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path: Path) -> set[str]:
    """Give the modules that a file imports by absolute name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("path", sorted((SRC / "core").rglob("*.py")), ids=lambda path: path.name)
def test_core_stands_on_numpy_and_the_standard_library_alone(path: Path) -> None:
    strangers = {
        name
        for name in imported(path)
        if name.partition(".")[0] not in sys.stdlib_module_names | {"numpy"}
        and name != "tidemill.core"
        and not name.startswith("tidemill.core.")
    }
    assert strangers == set()


def test_only_the_cli_knows_a_terminal() -> None:
    knowing = {
        path.relative_to(SRC).parts[0]
        for path in SRC.rglob("*.py")
        if {name.partition(".")[0] for name in imported(path)} & {"typer", "click", "rich"}
    }
    assert knowing <= {"cli"}
