"""Two searches of one study at a time: the second is refused, and a killed one leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.search.conftest import MakeTable

from tidemill.core.budget import Budget
from tidemill.core.errors import SearchError
from tidemill.core.objective import parse_objective
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.search.events import Event
from tidemill.search.fit import run_search
from tidemill.search.lock import only_search
from tidemill.search.settings import SearchSettings
from tidemill.store.workspace import Workspace

HOLD = """
import sys, time
from pathlib import Path
from tidemill.search.lock import only_search
with only_search(Path(sys.argv[1]), "mine"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_holder_is_named_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "mine.lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        named = rf"'mine' is being searched .* process {other.pid}, since 2"
        with pytest.raises(SearchError, match=named), only_search(place, "mine"):
            raise AssertionError
        os.kill(other.pid, signal.SIGKILL)
        other.wait(60)
        with only_search(place, "mine"):
            assert re.search(rf'"pid": {os.getpid()}\b', place.read_text())
    finally:
        other.kill()
        other.communicate()


def test_a_study_under_search_is_not_resumed_and_not_marked(workspace: Workspace, make_table: MakeTable) -> None:
    table, task = make_table(TaskKind.BINARY)
    asked: list[str] = []

    def search(trials: int, *, resume: bool = False, listen: bool = False) -> None:
        def again(event: Event) -> None:
            if listen and event.kind == "finished" and not asked:
                with pytest.raises(SearchError, match="already"):
                    search(2, resume=True)
                asked.append(workspace.metadata.get_study("s").state)

        run_search(
            workspace, "s", table, task, parse_objective("auto"), Budget(trials=trials, cpus=1),
            SearchSettings(folds=2, repeats=1, families=("linear", "lightgbm")), executor=InProcessExecutor(),
            on_event=again, resume=resume,
        )  # fmt: skip

    search(2, listen=True)
    assert asked == ["running"]
    assert workspace.metadata.get_study("s").state == "complete"
    search(3, resume=True)
    numbers = [t.number for t in workspace.metadata.trials("s")]
    assert numbers == [0, 1, 2]
