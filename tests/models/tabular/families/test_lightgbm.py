from __future__ import annotations

from typing import ClassVar

from tests.models.tabular.families.tree_laws import TreeLaws

from tidemill.core.trial import Config
from tidemill.models.tabular.families.lightgbm import FAMILY


class TestLightGBM(TreeLaws):
    family = FAMILY
    quick: ClassVar[Config] = {"lightgbm.max_rounds": 60, "lightgbm.learning_rate": 0.1, "lightgbm.min_data_in_leaf": 5}
