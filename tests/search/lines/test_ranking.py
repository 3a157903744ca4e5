"""The leaderboard of a study that reads lines says which texts its figures belong to."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.core import transcripts
from tidemill.core.objective import parse_objective
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Trial, TrialState
from tidemill.search.judge import Judge
from tidemill.search.ranking import leaderboard

TRIAL = Trial("s", 0, {"family": "f"}, TrialState.COMPLETE, "f", fold_scores=(0.5,))


def test_figures_of_a_study_belong_to_best_paths() -> None:
    task = Task(TaskKind.RECOGNITION, "text")
    judge = Judge(parse_objective("minimize cer").resolve(task), task, transcripts.to_codes(["ab", "c"]), {})
    read = transcripts.to_scores(np.array([0.9, 0.8]), ["ab", "d"]).astype(np.float32)
    (row,) = leaderboard([TRIAL], {0: read}, judge)
    assert row["cer"] == pytest.approx(1 / 3)
    assert row["decoding"] == "greedy"


def test_where_nothing_is_read_nothing_is_decoded() -> None:
    task = Task(TaskKind.REGRESSION, "y")
    judge = Judge(parse_objective("minimize rmse").resolve(task), task, np.array([1.0, 2.0]), {})
    (row,) = leaderboard([TRIAL], {0: np.float32([[1.0], [2.0]])}, judge)
    assert "decoding" not in row
