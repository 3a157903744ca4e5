"""A workspace with one or two small bundles, and a clock that moves when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.bundle.small import make

from tidemill.deploy.registry import Registry
from tidemill.store.workspace import Workspace


class FakeClock:
    """Seconds since 1970 that pass only when `go` is called."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def go(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(scope="session")
def small_bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Give the folder of the n-th small bundle; no test may change it."""
    root = tmp_path_factory.mktemp("served")

    def of(number: int) -> Path:
        if not (root / f"m{number}").exists():
            make(root / f"m{number}", "binary", rows=200 + number)
        return root / f"m{number}"

    return of


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "ws") as opened:
        yield opened


@pytest.fixture
def registry(workspace: Workspace, clock: FakeClock) -> Registry:
    return Registry(workspace, actor="test", clock=clock)
