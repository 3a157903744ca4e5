"""The suite for treatment steps, over all that are registered."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.core.task import Task
from tidemill.models.tabular._base import Feature, FeatureKind
from tidemill.models.tabular.treatment import CHOICES, FittedStep, Step
from tidemill.models.tabular.treatment._registry import FITTED
from tidemill.models.tabular.treatment.cross import Pairs, Products
from tidemill.models.tabular.treatment.impute import Impute
from tidemill.models.tabular.treatment.onehot import OneHot
from tidemill.models.tabular.treatment.select import Select
from tidemill.models.tabular.treatment.spline import Spline
from tidemill.models.tabular.treatment.tables import Frequency, TargetMean
from tidemill.testing.treatment import StepSuite, fit, task_of

REGISTERED: list[Step] = [s for values in CHOICES.values() for steps in values.values() for s in steps]
OTHERS: list[Step] = [
    Impute(fill="mean", indicators=False),
    Impute(fill="zero"),
    Select(most=2, kind=FeatureKind.COUNT),
    OneHot(largest=2),
    Frequency(keep=False),
    Spline(pieces=2),
    Pairs(most=1, largest=60),
    Products(most=1),
]
STEPS = list(dict.fromkeys(REGISTERED + OTHERS))


class TestSteps(StepSuite):
    @pytest.fixture(params=STEPS, ids=repr)
    def step(self, request: pytest.FixtureRequest) -> Step:
        step: Step = request.param
        return step

    def test_it_is_registered(self, fitted: FittedStep, task: Task) -> None:
        assert FITTED[fitted.kind] is type(fitted)


def test_every_registered_step_is_used() -> None:
    fitted = [fit(step, task_of("binary"))[0] for step in REGISTERED]
    assert {f.kind for f in fitted if f is not None} == set(FITTED)


def test_the_mean_target_tells_a_training_row_nothing_of_its_own_target() -> None:
    """A code of its own for each row, and a target of pure chance: nothing is left to be seen."""
    rng = np.random.default_rng(0)
    x = np.arange(300, dtype=np.float32)[:, None] // 2
    y = rng.integers(0, 2, 300)
    features = (Feature("id", "id", FeatureKind.CATEGORY, 150),)
    fitted, treated = TargetMean().fit(x, features, y, task_of("binary"), rng)
    assert fitted is not None
    assert abs(np.corrcoef(treated[:, 0], y)[0, 1]) < 0.15
    assert np.corrcoef(fitted.transform(x)[:, 0], y)[0, 1] > 0.5  # what a careless encoding would have shown
