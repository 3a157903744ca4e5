"""Where trials on lines run makes no difference to what comes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="a trial trains a net")

from tests.jobs.ray.conftest import FakeRay, fake_cluster, fake_ray  # noqa: F401  fixtures that are used here
from tests.models.recognition.made import READ
from tests.search.lines.test_evaluate import SMALL
from tests.search.lines.test_material import material

from tidemill.core.budget import Budget
from tidemill.core.objective import parse_objective
from tidemill.core.protocols import Step
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.search.lines.evaluate import CALL, run_trial
from tidemill.search.lines.executor import open_executor
from tidemill.search.settings import SearchSettings


def test_trials_on_two_nodes_read_as_one_here(
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811  the fixture
    fake_cluster: Cluster,  # noqa: F811  the fixture
) -> None:
    rows, settings = material(), SearchSettings(families=("crnn",))
    splits = rows.splits(READ, rows.settled(settings))
    objective = parse_objective("minimize cer").resolve(READ)
    config = {**rows.space(READ, settings).default(), **SMALL, "crnn.epochs": 2}
    with rows.assigned(tmp_path / "scratch", READ, objective, splits) as assignment:
        words: dict[str, Any] = {"config": config, "assignment": assignment, "seed": 1}
        wanted = run_trial(**words)
        with open_executor(Budget(), settings, fake_cluster) as executor:
            assert executor.capacity == 2
            for _ in range(2):
                executor.submit(Step(CALL, words, files=assignment.places, scratch=assignment.scratch))
            found = executor.wait()
            while len(found) < 2:
                found += executor.wait()
    assert [outcome.error for outcome in found] == [None, None]
    for outcome in found:
        assert np.array_equal(outcome.value["oof"], wanted["oof"], equal_nan=True)
    assert len(fake_ray.puts) >= 4, "the other node had the lines sent"
