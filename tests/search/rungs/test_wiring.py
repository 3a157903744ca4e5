"""Where rungs are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.core.errors import OptionError
from tidemill.search.fit import _conductor
from tidemill.search.modality import IMAGE
from tidemill.search.rungs.runner import RungRunner
from tidemill.search.rungs.standing import Standing, Start
from tidemill.search.settings import SearchSettings
from tidemill.store.workspace import Workspace


def test_tables_can_not_pause(tmp_path: Path) -> None:
    from tidemill.sdk.fit import fit

    with pytest.raises(OptionError, match="rungs is for nets"):
        fit({"a": [1.0, 2.0] * 30, "y": ["u", "v"] * 30}, "y", schedule="rungs", trials=2, workspace=tmp_path / "ws")
    with pytest.raises(OptionError, match="Epochs are for"):
        fit({"a": [1.0], "y": ["u"]}, "y", epochs=3, workspace=tmp_path / "ws")
    with pytest.raises(OptionError, match="Brackets are for"):
        fit({"a": [1.0], "y": ["u"]}, "y", brackets=2, workspace=tmp_path / "ws")


def test_a_training_has_an_epoch() -> None:
    with pytest.raises(OptionError, match="`epochs` must be at least 1"):
        SearchSettings(schedule="rungs", epochs=0)


def test_there_is_a_bracket_and_a_study_keeps_how_many(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="`brackets` must be at least 1"):
        SearchSettings(schedule="rungs", brackets=0)
    settings = SearchSettings(schedule="rungs", brackets=2)
    assert SearchSettings.from_json(settings.to_json()) == settings
    older = {name: value for name, value in settings.to_json().items() if name != "brackets"}
    assert SearchSettings.from_json(older).brackets == 1


def test_the_conductor_gets_the_brackets_of_the_settings(workspace: Workspace) -> None:
    class Images:
        modality = IMAGE

    settings = SearchSettings(schedule="rungs", epochs=27, brackets=2, families=("resnet9",))
    kind, more = _conductor(workspace, Images(), settings, workspace.path / "scratch" / "s")  # type: ignore[arg-type]
    assert kind is RungRunner
    begun = [more["schedule"].next([Standing(n, bracket=b) for n, b in enumerate(there)], True)
             for there in ((), (0,), (0, 1), (0, 0, 0))]  # fmt: skip
    assert begun == [Start(0), Start(1), Start(0), Start(1)]
