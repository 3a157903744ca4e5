from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from tests.models.tabular.families.tree_laws import COLUMNS, TreeLaws, check_parity, table_of, task_of

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.trial import Config
from tidemill.models.tabular._base import FitBudget
from tidemill.models.tabular.families import forest
from tidemill.models.tabular.families.forest import FAMILY


class TestForest(TreeLaws):
    family = FAMILY
    quick: ClassVar[Config] = {"forest.trees": 30}
    short: ClassVar[Config] = {"forest.trees": 20}

    @pytest.mark.parametrize("kind", ["binary", "19 classes"])
    def test_size_in_the_graph_is_limited(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forest, "MOST_BYTES", 40_000)
        model, data, task = self.fit(kind, **{"forest.min_samples_leaf": 1})
        graph = GraphBuilder()
        graph.output(model.emit(graph, graph.input("x", np.float32, ["N", COLUMNS])), "y", np.float32, ["N", "K"])
        assert 5_000 < len(graph.model().SerializeToString()) <= 44_000
        check_parity(model, data.x, task)

    def test_trees_with_room_for_their_pure_leaves_grow_to_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, _, _ = self.fit("19 classes", **{"forest.min_samples_leaf": 1})
        pure = np.sort(whole.table.leaf, axis=1)[:, -1] * len(whole.table.root)
        assert (pure > 0.999).mean() > 0.99
        graph = GraphBuilder()
        graph.output(whole.emit(graph, graph.input("x", np.float32, ["N", COLUMNS])), "y", np.float32, ["N", "K"])
        size, estimate = len(graph.model().SerializeToString()), whole.cost.size_bytes
        assert estimate is not None
        assert 0.8 * size <= estimate <= 1.6 * size, "equal leaves are counted once"

    def test_the_number_of_chunks_does_not_matter(self) -> None:
        whole, data, _ = self.fit("regression")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forest, "_CHUNK", 3)
            pieces, _, _ = self.fit("regression")
        assert np.array_equal(whole.predict(data.x), pieces.predict(data.x))

    def test_a_fold_with_one_class_gives_a_constant(self) -> None:
        task, data = task_of("binary"), table_of("binary")
        data = data.take(np.asarray(data.y) == 1)
        model = FAMILY.fit(self.config(task, data), task, data, None, FitBudget(), 0)
        assert np.array_equal(model.predict(data.x), np.tile(np.float32([0, 1]), (len(data.x), 1)))
        check_parity(FAMILY.restore(model.checkpoint(), task), data.x, task)
