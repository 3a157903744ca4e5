from __future__ import annotations

from typing import ClassVar

from tests.models.tabular.families.tree_laws import TreeLaws

from tidemill.core.trial import Config
from tidemill.models.tabular.families.forest import FAMILY


class TestForest(TreeLaws):
    family = FAMILY
    quick: ClassVar[Config] = {"forest.trees": 30}
