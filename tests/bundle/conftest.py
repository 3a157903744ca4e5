"""Bundles of small linear parts, written once for each kind of task."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bundle.small import make


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a bundle that no test may change."""
    root = tmp_path_factory.mktemp("bundles")

    def of(kind: str) -> Path:
        if not (root / kind).exists():
            make(root / kind, kind)
        return root / kind

    return of


@pytest.fixture
def copied(written: Callable[[str], Path], tmp_path: Path) -> Path:
    """Give a copy of the binary bundle that a test may damage."""
    shutil.copytree(written("binary"), tmp_path / "small.tm")
    return tmp_path / "small.tm"
