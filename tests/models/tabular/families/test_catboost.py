from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from tests.models.tabular.families.tree_laws import TreeLaws, check_parity, table_of, task_of

from tidemill.core.errors import TrialError
from tidemill.core.trial import Config
from tidemill.models.tabular._base import FitBudget

pytest.importorskip("catboost", reason="CatBoost is an extra")

from tidemill.models.tabular.families.catboost import FAMILY


class TestCatBoost(TreeLaws):
    family = FAMILY
    quick: ClassVar[Config] = {"catboost.max_rounds": 60, "catboost.learning_rate": 0.2, "catboost.depth": 4}
    short: ClassVar[Config] = {"catboost.max_rounds": 8}

    def test_gaps_that_only_validation_has_are_no_error(self) -> None:
        task, data = task_of("binary"), table_of("binary")
        whole = data.take(~np.isnan(data.x).any(axis=1))
        model = FAMILY.fit(self.config(task, data), task, whole, data, FitBudget(), 0)
        check_parity(model, data.x, task)

    def test_a_fold_with_one_class_is_a_failed_trial(self) -> None:
        task, data = task_of("binary"), table_of("binary")
        data = data.take(np.asarray(data.y) == 1)
        with pytest.raises(TrialError, match="CatBoost could not train"):
            FAMILY.fit(self.config(task, data), task, data, None, FitBudget(), 0)
