from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import lightgbm as lgb
import numpy as np
import pytest
from tests.models.tabular.families.tree_laws import TreeLaws, table_of, task_of

from tidemill.core.errors import InternalError
from tidemill.core.trial import Config
from tidemill.models.tabular._base import FitBudget
from tidemill.models.tabular.families.lightgbm import FAMILY, read_trees


class TestLightGBM(TreeLaws):
    family = FAMILY
    quick: ClassVar[Config] = {"lightgbm.max_rounds": 60, "lightgbm.learning_rate": 0.1, "lightgbm.min_data_in_leaf": 5}
    short: ClassVar[Config] = {"lightgbm.max_rounds": 8}


@pytest.mark.parametrize("with_gaps", [False, True])
def test_the_text_of_a_model_says_where_missing_values_go(with_gaps: bool) -> None:
    """Without gaps in training LightGBM reads NaN as 0, so they go where 0 goes."""
    x = np.linspace(-1, 1, 200, dtype=np.float32)[:, None]
    y = (x[:, 0] > 0.5).astype(float)
    if with_gaps:
        x[::10] = np.nan
    params = {"objective": "regression", "num_leaves": 6, "min_data_in_leaf": 2, "verbosity": -1, "num_threads": 1}
    booster = lgb.train(params, lgb.Dataset(x, y), 5)
    table = read_trees(booster.model_to_string(), 1)
    asked = np.array([[np.nan], [0], [-1], [0.5], [1]], dtype=np.float32)
    np.testing.assert_allclose(table.predict(asked)[:, 0], booster.predict(asked), atol=1e-6)


@pytest.mark.parametrize("kind", ["regression", "binary", "3 classes"])
def test_answers_by_blocks_of_trees_are_those_of_the_library_from_any_thread(kind: str) -> None:
    """A booster keeps the range of rounds that it answers with, so threads must not meet in it."""
    task, data = task_of(kind), table_of(kind)
    config = {"lightgbm.max_rounds": 130, "lightgbm.learning_rate": 0.05, "lightgbm.min_data_in_leaf": 5}
    model = FAMILY.fit(TestLightGBM().config(task, data) | config, task, data, None, FitBudget(), 0)
    own = np.asarray(lgb.Booster(model_str=model.checkpoint()["model"]).predict(data.x, num_threads=1))
    found = model.predict(data.x)
    expected = own[:, None] if own.ndim == 1 else own
    np.testing.assert_allclose(found[:, -expected.shape[1] :], expected, rtol=1e-6, atol=1e-7)
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(model.predict, [data.x] * 16):
            np.testing.assert_array_equal(again, found)


def test_splits_by_category_are_refused() -> None:
    x = np.repeat(np.arange(8), 30)[:, None].astype(np.float32)
    data = lgb.Dataset(x, (x[:, 0] % 2), categorical_feature=[0], params={"verbosity": -1})
    booster = lgb.train({"objective": "binary", "verbosity": -1, "min_data_per_group": 1, "num_threads": 1}, data, 2)
    with pytest.raises(InternalError, match="splits by category"):
        read_trees(booster.model_to_string(), 1)
