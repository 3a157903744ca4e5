"""What every `Ensembler` keeps. Subclass `EnsemblerSuite` and give it the fixture ``ensembler``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from tidemill.core.errors import SearchError
from tidemill.core.protocols import Ensembler

ROWS = 400


def example(seed: int = 0) -> tuple[NDArray[np.float64], dict[int, NDArray[np.float32]]]:
    """Give a target and five trials that each see it through noise of their own, number 3 through the least."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=ROWS)
    noise = {3: 0.5, 5: 0.7, 8: 0.9, 13: 1.5, 21: 3.0}
    return y, {n: (y + rng.normal(size=ROWS) * s)[:, None].astype(np.float32) for n, s in noise.items()}


class EnsemblerSuite:
    """Laws of an ensembler."""

    @pytest.fixture
    def ensembler(self) -> Ensembler:
        """Override: build the ensembler."""
        raise AssertionError("Give the fixture `ensembler`.")

    @staticmethod
    def free(weights: Mapping[int, float]) -> float:
        """Price nothing."""
        return 0.0

    def test_weights_are_positive_known_and_sum_to_one(self, ensembler: Ensembler) -> None:
        y, predictions = example()
        found = ensembler.combine(predictions, lambda s: float(np.mean((s[:, 0] - y) ** 2)), self.free)
        assert set(found.weights) <= set(predictions)
        assert all(w > 0 for w in found.weights.values())
        assert sum(found.weights.values()) == pytest.approx(1.0)

    def test_the_loss_is_that_of_the_weights_and_no_worse_than_the_best_trial(self, ensembler: Ensembler) -> None:
        y, predictions = example()

        def loss(scores: NDArray[np.float64]) -> float:
            return float(np.mean((scores[:, 0] - y) ** 2))

        found = ensembler.combine(predictions, loss, self.free)
        mixed = sum(w * predictions[n].astype(np.float64) for n, w in found.weights.items())
        assert found.loss == pytest.approx(loss(np.asarray(mixed)))
        assert found.loss <= min(loss(p.astype(np.float64)) for p in predictions.values()) + 1e-9

    def test_same_arguments_same_weights(self, ensembler: Ensembler) -> None:
        y, predictions = example(1)

        def loss(scores: NDArray[np.float64]) -> float:
            return float(np.mean((scores[:, 0] - y) ** 2))

        first = ensembler.combine(predictions, loss, self.free)
        shuffled = dict(sorted(predictions.items(), reverse=True))
        assert ensembler.combine(shuffled, loss, self.free).weights == first.weights

    def test_a_combination_that_costs_infinitely_much_is_never_chosen(self, ensembler: Ensembler) -> None:
        y, predictions = example()

        def penalty(weights: Mapping[int, float]) -> float:
            return float("inf") if 3 in weights or len(weights) > 2 else 0.0

        found = ensembler.combine(predictions, lambda s: float(np.mean((s[:, 0] - y) ** 2)), penalty)
        assert penalty(found.weights) == 0.0

    def test_one_trial_gets_all_the_weight(self, ensembler: Ensembler) -> None:
        y, predictions = example()
        found = ensembler.combine({8: predictions[8]}, lambda s: float(np.mean((s[:, 0] - y) ** 2)), self.free)
        assert dict(found.weights) == {8: 1.0}

    def test_nothing_allowed_is_said(self, ensembler: Ensembler) -> None:
        _, predictions = example()
        with pytest.raises(SearchError, match="constraints"):
            ensembler.combine(predictions, lambda s: 0.0, lambda w: float("inf"))
