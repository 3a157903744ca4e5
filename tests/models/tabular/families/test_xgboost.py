from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from tests.models.tabular.families.tree_laws import TreeLaws, check_parity, table_of, task_of

from tidemill.core.trial import Config
from tidemill.models.tabular._base import FitBudget
from tidemill.models.tabular.families.xgboost import FAMILY, _document


class TestXGBoost(TreeLaws):
    family = FAMILY
    quick: ClassVar[Config] = {"xgboost.max_rounds": 60, "xgboost.learning_rate": 0.1}
    short: ClassVar[Config] = {"xgboost.max_rounds": 8}

    @pytest.mark.parametrize("code", [0, 1])
    def test_a_fold_with_one_class_gives_a_constant(self, code: int) -> None:
        """The base score is then a probability of 0 or 1, which has no logarithm of odds."""
        task, data = task_of("binary"), table_of("binary")
        data = data.take(np.asarray(data.y) == code)
        model = FAMILY.fit(self.config(task, data), task, data, None, FitBudget(), 0)
        assert model.predict(data.x)[:, code].min() > 0.99
        check_parity(model, data.x, task)


def test_a_gain_that_json_has_no_word_for_is_read() -> None:
    class Booster:
        def save_raw(self, form: str) -> bytearray:
            return bytearray(b'{"learner": {"gain": [Infinity, 1.5]}}')

    assert _document(Booster())["learner"]["gain"] == [float("inf"), 1.5]  # type: ignore[arg-type]
