"""How many nets a fit on lines trains side by side."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.core.budget import Budget
from tidemill.sdk.modality import lines
from tidemill.search.settings import SearchSettings


@pytest.mark.parametrize(
    ("width", "time_s", "together"), [(0, 1500.0, False), (10, 1500.0, True), (10, 60.0, False), (10, None, True)]
)
def test_nets_are_trained_side_by_side_where_they_will_read_together_and_there_is_time(
    monkeypatch: pytest.MonkeyPatch, width: int, time_s: float | None, together: bool
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(lines, "open_executor", lambda *given, **words: asked.append(words))
    lines.Lines(width).executor(Budget(time_s=time_s, cpus=2), SearchSettings())
    assert asked == [{"together": together}]
