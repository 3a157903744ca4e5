"""A small study made by the command line itself, for the tests that look at it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.cli.main import run

QUICK = ["--family", "linear", "--cpus", "1"]


@dataclass(frozen=True)
class Small:
    """A study of two trials, its bundle, and what ``fit --json`` said while it ran."""

    train: Path
    workspace: Path
    bundle: Path
    said: list[str]

    @property
    def result(self) -> dict[str, Any]:
        """The last line: what came out."""
        value: dict[str, Any] = json.loads(self.said[-1])
        return value


@pytest.fixture(autouse=True)
def age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command that runs in the process of the tests begin when it is called, not when they began."""
    monkeypatch.setattr("tidemill.cli.commands.fit._process_age_s", lambda: 0.0)


def write_table(path: Path, rows: int = 90, seed: int = 0) -> Path:
    """Write a CSV with a number, a category, and a binary target ``y`` that follows from them."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=rows), rng.choice(["u", "v", "w"], size=rows)
    y = np.where(a + (b == "u") + 0.3 * rng.normal(size=rows) > 0.3, "yes", "no")
    lines = ["a,b,y"] + [f"{x:.4f},{c},{t}" for x, c, t in zip(a, b, y, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def make_table() -> Callable[..., Path]:
    return write_table


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    train, bundle, workspace = write_table(folder / "train.csv"), folder / "small.tm", folder / "workspace"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = run(
            ["fit", str(train), "--target", "y", "--trials", "2", *QUICK, "--test-size", "0.3", "--name", "small",
             "--out", str(bundle), "--no-report", "--json", "--workspace", str(workspace)]
        )  # fmt: skip
    assert code == 0, said.getvalue()
    return Small(train, workspace, bundle, said.getvalue().splitlines())
