"""A bundle, and rows for it that have no gaps: not every server has a word for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.deploy.engine import made

from tidemill.core.schema import Columns


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.bundle(tmp_path_factory.mktemp("protocol") / "small.tm", "multiclass")


@pytest.fixture(scope="session")
def whole_rows() -> Columns:
    return {
        "size": np.array([0.5, -1.0, 2.0, 0.0, 1e6]),
        "colour": np.array(["a", "b", "unseen", "c", "ü"], dtype=object),
        "weight": np.array([1.0, -2.5, 0.0, 3.0, 0.25]),
    }
