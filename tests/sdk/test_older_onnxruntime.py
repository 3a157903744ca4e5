"""Every family's graph answers alike on the onnxruntime of today and on the two releases before it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidemill as tm
from tidemill.models import pool

RELEASES = ["1.29.*", "1.30.*"]
DROPPED = {"binary": "value", "regression": "label"}
TARGET = {"binary": "label", "regression": "value"}


@pytest.fixture(scope="module", params=RELEASES)
def older_python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the Python of an environment with an older onnxruntime and numpy, or skip where they are not to be had."""
    folder = tmp_path_factory.mktemp("older")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, "-m", "pip", "install", "-q", f"onnxruntime=={request.param}", "numpy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        pytest.skip(f"onnxruntime {request.param} is not to be had here ({done.stderr.strip().splitlines()[-1:]})")
    return python


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_every_family_answers_as_today(
    kind: str, older_python: str, small_table: dict[str, list[Any]], tmp_path: Path
) -> None:
    data = {name: values for name, values in small_table.items() if name != DROPPED[kind]}
    rows = tmp_path / "rows.csv"
    with rows.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(data)
        writer.writerows(zip(*data.values(), strict=True))
    names = [name for name in pool.families() if not (name == "bayes" and kind == "regression")]
    assert len(names) >= 6
    for family in names:
        with tm.fit(
            data, TARGET[kind], workspace=tmp_path / "w", families=(family,), trials=2, cpus=1, in_process=True
        ) as study:
            bundle = study.best.export(tmp_path / f"{family}.tm")
        for python, answers in ((older_python, "older.csv"), (sys.executable, "today.csv")):
            subprocess.run([python, str(bundle.path / "run.py"), str(rows), str(tmp_path / answers)], check=True)
        older, today = read(tmp_path / "older.csv"), read(tmp_path / "today.csv")
        assert len(older) == len(today) == 120
        for name in today[0]:
            there, here = [r[name] for r in older], [r[name] for r in today]
            if kind == "binary" and name == "prediction":
                assert there == here, family
            else:
                np.testing.assert_allclose(np.array(there, float), np.array(here, float), rtol=1e-5, atol=1e-5)
