"""Where rungs are refused."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from tests.search.conftest import MakeTable

from tidemill.core.budget import Budget
from tidemill.core.errors import OptionError
from tidemill.core.objective import parse_objective
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.search.fit import _conductor, _rungs, run_search
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


def test_a_new_study_finds_nothing_that_one_of_its_name_left(make_table: MakeTable, workspace: Workspace) -> None:
    table, task = make_table(TaskKind.BINARY)
    left = _rungs(workspace, Path(sha256(b"s").hexdigest()[:16])) / "0"
    left.mkdir(parents=True)
    words = {"budget": Budget(trials=1), "executor": InProcessExecutor()}
    objective, settings = parse_objective("maximize roc_auc"), SearchSettings(families=("linear",))
    run_search(workspace, "s", table, task, objective, settings=settings, **words)
    assert not left.exists()
    left.mkdir(parents=True)
    run_search(workspace, "s", table, task, objective, settings=settings, resume=True, **words)
    assert left.exists(), "it may belong to what is gone on with"
