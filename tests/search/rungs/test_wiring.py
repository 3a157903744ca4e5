"""Where rungs are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.core.errors import OptionError
from tidemill.search.settings import SearchSettings


def test_tables_can_not_pause(tmp_path: Path) -> None:
    from tidemill.sdk.fit import fit

    with pytest.raises(OptionError, match="rungs is for nets"):
        fit({"a": [1.0, 2.0] * 30, "y": ["u", "v"] * 30}, "y", schedule="rungs", trials=2, workspace=tmp_path / "ws")
    with pytest.raises(OptionError, match="Epochs are for"):
        fit({"a": [1.0], "y": ["u"]}, "y", epochs=3, workspace=tmp_path / "ws")


def test_a_training_has_an_epoch() -> None:
    with pytest.raises(OptionError, match="`epochs` must be at least 1"):
        SearchSettings(schedule="rungs", epochs=0)
