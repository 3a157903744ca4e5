from __future__ import annotations

from typing import ClassVar

from tests.models.tabular.families.tree_laws import TreeLaws

from tidemill.core.trial import Config
from tidemill.models.tabular.families.xgboost import FAMILY


class TestXGBoost(TreeLaws):
    family = FAMILY
    quick: ClassVar[Config] = {"xgboost.max_rounds": 60, "xgboost.learning_rate": 0.1}
