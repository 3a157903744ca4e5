from __future__ import annotations

from typing import ClassVar

from tests.models.tabular.families.tree_laws import TreeLaws

from tidemill.core.trial import Config
from tidemill.models.tabular.families.catboost import FAMILY


class TestCatBoost(TreeLaws):
    family = FAMILY
    quick: ClassVar[Config] = {"catboost.max_rounds": 60, "catboost.learning_rate": 0.2, "catboost.depth": 4}
