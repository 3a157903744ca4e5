"""What came of a training that trains once says how far it came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Cost
from tidemill.models.training.budget import TrainBudget
from tidemill.search.heldout.trial import HeldOutAssignment, Rows, judged
from tidemill.search.rungs.ladder import Rung

TASK = Task(TaskKind.REGRESSION, "y")


class Half:
    """Answers a half."""

    cost = Cost(params=1, flops=1)

    def predict(self, x: Any) -> Any:
        return np.full((len(x), 1), 0.5, dtype=np.float32)

    def checkpoint(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("rung", "reached", "fidelity"),
    [(None, None, 1.0), (Rung(2, 4, "f"), None, 0.5), (Rung(4, 4, "f"), None, 1.0), (Rung(4, 4, "f"), 2.7, 0.675)],
)
def test_a_training_that_was_shortened_is_not_a_whole_one(
    rung: Rung | None, reached: float | None, fidelity: float
) -> None:
    budget, x, y = TrainBudget(), np.zeros(6), np.arange(6.0)
    budget.reached = reached
    result = judged(
        Half(), HeldOutAssignment(TASK.to_json(), {}, (), "rmse"), Rows(np.arange(3), np.arange(3, 6)), x, None, y,
        family="half", budget=budget, rung=rung, started=0.0, measure=None,
    )  # fmt: skip
    assert result["fidelity"] == pytest.approx(fidelity)
    assert np.isnan(result["oof"][:3]).all()
    assert result["fold_scores"][0] == pytest.approx(float(np.sqrt(np.mean((y[3:] - 0.5) ** 2))))


@pytest.mark.parametrize("rung", [None, Rung(2, 4, "f")])
def test_a_training_that_was_asked_to_end_says_what_share_of_it_was_over(rung: Rung | None) -> None:
    budget, x, y = TrainBudget(interrupted=0.3), np.zeros(6), np.arange(6.0)
    result = judged(
        Half(), HeldOutAssignment(TASK.to_json(), {}, (), "rmse"), Rows(np.arange(3), np.arange(3, 6)), x, None, y,
        family="half", budget=budget, rung=rung, started=0.0, measure=None,
    )  # fmt: skip
    assert (result["fidelity"], result["stopped"]) == (0.3, "asked")
