"""Servers and sites that end with their test, and bundles that answer otherwise than each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.small import make
from tests.deploy.engine.conftest import models, start
from tests.deploy.faults.sites import Site

from tidemill.testing.parts import small_columns, small_recipe

__all__ = ["models", "start"]

MakeSite = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSite]:
    """Make sites; counters are published quickly, so that gates need not wait for them."""
    monkeypatch.setattr("tidemill.deploy.watch.observer.PUBLISH_S", 0.1)
    made: list[Site] = []

    def begin(**options: Any) -> Site:
        made.append(Site(tmp_path / f"site{len(made)}", **options))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles that say the same."""
    root = tmp_path_factory.mktemp("pair")
    for number in range(2):
        make(root / f"m{number}", "binary", rows=200 + number)
    return root / "m0", root / "m1"


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says another thing than those of `pair` as often as can be."""
    columns = small_columns(500, seed=9)

    def codes(seed: int) -> Any:
        return small_recipe("binary", seed=seed).predict(columns).codes

    seed = max(range(1, 12), key=lambda s: abs(float(np.mean(codes(s))) - float(np.mean(codes(0)))))
    out = tmp_path_factory.mktemp("other") / "m"
    make(out, "binary", seed=seed)
    return out
