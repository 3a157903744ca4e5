"""Labels are decided as promised, and tuning finds the best there is and doesn't believe in noise."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tidemill.core._sweep import make_question, search
from tidemill.core.decision import (
    Decision,
    argmax,
    expected_cost_decision,
    fit_decision,
    threshold,
    tune_offsets,
)
from tidemill.core.errors import OptionError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import evaluate_constraints, parse_objective
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Cost

BINARY = Task(TaskKind.BINARY, "y", ("fine", "fraud"))
THREE = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))


def rare(n, seed=0, share=0.1):
    """A rare class whose probabilities are right but rarely above one half."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.6, 0.6 * (1 - share) / share, n)
    return (rng.random(n) < p).astype(np.int64), np.column_stack([1 - p, p])


def three(n, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([6.0, 1.0, 0.4], n)
    y = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=2)
    return y, p


class TestDecision:
    @given(arrays(np.float32, 20, elements=st.floats(0, 1, width=32)), st.floats(0.01, 0.99))
    def test_a_threshold_is_a_pair_of_factors(self, p, t):
        probs = np.column_stack([1 - p.astype(np.float64), p.astype(np.float64)])
        decision = Decision.by_threshold(t)
        clear = abs(probs[:, 1] - t) > 1e-12
        assert (decision.apply(probs) == threshold(probs, t))[clear].all()
        assert decision.threshold == pytest.approx(t)

    @pytest.mark.parametrize("t", [0.0, 1.0])
    def test_the_ends_are_thresholds_too(self, t):
        probs = np.array([[0.7, 0.3], [1.0, 0.0]])
        assert Decision.by_threshold(t).apply(probs).tolist() == threshold(probs, t).tolist()

    @given(st.integers(2, 5), st.data())
    def test_cost_takes_the_cheapest(self, k, data):
        matrix = data.draw(arrays(np.float64, (k, k), elements=st.integers(-4, 9).map(float)))
        probs = np.random.default_rng(0).dirichlet(np.ones(k), 30)
        got = Decision.by_cost(matrix).apply(probs)
        for p, j in zip(probs, got, strict=True):
            costs = [sum(p[i] * matrix[i, c] for i in range(k)) for c in range(k)]
            assert costs[j] == pytest.approx(min(costs))
        assert (got == expected_cost_decision(probs, matrix)).all()

    def test_equal_costs_for_all_mistakes_give_the_most_probable(self):
        probs = np.random.default_rng(0).dirichlet(np.ones(4), 50)
        assert (Decision.by_cost(1 - np.eye(4)).apply(probs) == argmax(probs)).all()

    @pytest.mark.parametrize("decision", [Decision(), Decision.by_threshold(0.3), Decision.by_cost([[0, 1.5], [5, 0]])])
    def test_json_and_back(self, decision):
        assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision

    def test_thresholds_are_known_where_there_is_one(self):
        assert Decision().threshold == 0.5
        assert Decision.by_cost([[0, 1], [1, 0]]).threshold is None
        assert Decision("offsets", offsets=(1.0, 1.0, 1.0)).threshold is None

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Decision("offsets"),
            lambda: Decision("argmax", offsets=(1.0,)),
            lambda: Decision("cost", offsets=(1.0, 2.0)),
            lambda: Decision("offsets", offsets=(1.0, float("nan"))),
            lambda: Decision("offsets", offsets=(-1.0, 1.0)),
            lambda: Decision.by_threshold(1.5),
        ],
    )
    def test_a_contradiction_is_refused(self, make):
        with pytest.raises(OptionError):
            make()


class TestTuning:
    @given(st.integers(5, 40), st.integers(0, 10_000), st.sampled_from(["f1", "mcc", "balanced_accuracy", "recall"]))
    def test_the_sweep_misses_no_threshold(self, n, seed, name):
        """For two classes the factors are as good as the best of all thresholds."""
        rng = np.random.default_rng(seed)
        y, p = rng.integers(0, 2, n), rng.integers(0, 12, n) / 11
        probs = np.column_stack([1 - p, p])
        metric = get_metric(name)
        offsets = search(make_question(metric, BINARY, y, None, None, None), probs)
        got = metric(y, probs, (probs * np.exp(offsets)).argmax(axis=1), task=BINARY)
        every = [metric(y, probs, (p > t).astype(int), task=BINARY) for t in np.arange(-1, 24) / 22 + 1e-6]
        # A probability of exactly 0 or 1 can't be moved by any factor.
        inside = [metric(y, probs, np.where((p == 0) | (p == 1), p, p > t), task=BINARY) for t in np.arange(24) / 22]
        assert max(inside) - 1e-9 <= got <= max(every) + 1e-9

    def test_the_threshold_is_about_half_the_best_f1(self):
        """Lipton et al. 2014: for right probabilities the F1-optimal threshold is half of the optimal F1."""
        y, probs = rare(50_000)
        decision = tune_offsets(y, probs, get_metric("f1"), BINARY)
        best = sk.f1_score(y, decision.apply(probs))
        assert decision.threshold == pytest.approx(best / 2, abs=0.03)
        assert best > sk.f1_score(y, argmax(probs)) + 0.02

    def test_weights_count_as_copies(self):
        y, probs = rare(400)
        copies = np.arange(400) % 3 + 1
        weighted = search(make_question(get_metric("f1"), BINARY, y, copies.astype(float), None, None), probs)
        again = make_question(get_metric("f1"), BINARY, y.repeat(copies), None, None, None)
        assert weighted == pytest.approx(search(again, probs.repeat(copies, axis=0)))

    @pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro", "mcc"])
    def test_several_classes_generalise(self, name):
        y, probs = three(6_000)
        metric = get_metric(name)
        decision = tune_offsets(y[:3000], probs[:3000], metric, THREE)
        assert decision.kind == "offsets"
        rest = metric(y[3000:], probs[3000:], decision.apply(probs[3000:]), task=THREE)
        assert rest > metric(y[3000:], probs[3000:], task=THREE) - 0.002

    def test_balanced_accuracy_of_right_probabilities_divides_by_the_frequencies(self):
        y, probs = three(20_000)
        decision = tune_offsets(y, probs, get_metric("balanced_accuracy"), THREE)
        assert decision.offsets is not None
        factors = np.array(decision.offsets) * np.bincount(y)
        assert factors / factors[0] == pytest.approx(1.0, rel=0.25)

    def test_below_the_least_rows_nothing_is_tuned(self):
        y, probs = rare(49, share=0.3)
        assert tune_offsets(y, probs, get_metric("f1"), BINARY) == Decision()
        y, probs = rare(9_999)
        biased = probs * [1.0, 200.0]
        biased /= biased.sum(axis=1, keepdims=True)
        assert tune_offsets(y, biased, get_metric("accuracy"), BINARY) == Decision()
        assert tune_offsets(y, biased, get_metric("mcc"), BINARY) != Decision()

    def test_one_class_alone_is_left_alone(self):
        probs = np.tile([0.4, 0.6], (100, 1))
        assert tune_offsets(np.zeros(100, dtype=int), probs, get_metric("f1"), BINARY) == Decision()

    def test_noise_is_left_alone(self):
        """Scores that say nothing: what looks better is luck, and mostly isn't believed."""
        used = 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            p = rng.normal(0.5, 0.01, 200)
            y = (rng.random(200) < 0.5).astype(np.int64)
            used += tune_offsets(y, np.column_stack([1 - p, p]), get_metric("mcc"), BINARY, seed=seed) != Decision()
        assert used <= 8

    def test_a_metric_of_scores_is_refused(self):
        with pytest.raises(OptionError, match="does not depend on decided labels"):
            tune_offsets(np.zeros(60), np.zeros((60, 2)), get_metric("roc_auc"), BINARY)

    def test_the_same_seed_gives_the_same(self):
        y, probs = three(900)
        first, second = (tune_offsets(y, probs, get_metric("f1_macro"), THREE, seed=7) for _ in range(2))
        assert first == second


class TestForAnObjective:
    def decide(self, text, y, probs, task=BINARY, columns=None):
        objective = parse_objective(text).resolve(task)
        decision = fit_decision(objective, task, y, probs, columns=columns)
        codes = decision.apply(probs)
        return decision, evaluate_constraints(objective, task, y, probs, codes, columns, Cost())

    def test_scores_need_no_decision(self):
        y, probs = rare(500)
        assert self.decide("maximize roc_auc; log_loss <= 0.5", y, probs)[0] == Decision()

    def test_labels_are_tuned(self):
        y, probs = rare(2_000)
        assert self.decide("maximize f1", y, probs)[0].kind == "offsets"

    def test_a_matrix_decides_whatever_the_metric(self):
        y, probs = rare(500)
        for text in ("cost([[0,1],[9,0]])", "maximize roc_auc; cost([[0,1],[9,0]])"):
            assert self.decide(text, y, probs)[0] == Decision.by_cost([[0, 1], [9, 0]])

    @pytest.mark.parametrize("aim", ["maximize roc_auc", "maximize precision", "cost([[0,1],[1,0]])"])
    def test_a_floor_is_kept_as_cheaply_as_can_be(self, aim):
        y, probs = rare(4_000)
        decision, (result,) = self.decide(f"{aim}; recall[fraud] >= 0.9", y, probs)
        assert result.satisfied
        assert result.value == pytest.approx(0.9, abs=0.005)
        assert decision.kind == "offsets"

    def test_the_floor_of_a_slice_is_kept(self):
        y, probs = rare(4_000)
        columns = {"region": np.where(np.arange(4_000) % 5 == 0, "north", "south").astype(object)}
        text = "maximize precision; recall[region=north] >= 0.8; precision[region=south] >= 0.1"
        _, results = self.decide(text, y, probs, columns=columns)
        assert all(r.satisfied for r in results)

    def test_floors_for_one_of_several_classes(self):
        y, probs = three(4_000)
        _, (result,) = self.decide("minimize log_loss; recall[c] >= 0.8", y, probs, THREE)
        assert result.satisfied

    def test_what_cannot_be_kept_is_approached(self):
        y, probs = rare(4_000)
        _, results = self.decide("maximize f1; recall >= 0.95; precision >= 0.95", y, probs)
        assert not all(r.satisfied for r in results)
        assert sum(r.gap for r in results) < 0.95

    def test_many_classes_are_left_to_the_most_probable(self):
        task = Task(TaskKind.MULTICLASS, "y", tuple(str(i) for i in range(31)))
        rng = np.random.default_rng(0)
        y, probs = rng.integers(0, 31, 500), rng.dirichlet(np.ones(31), 500)
        assert self.decide("maximize f1_macro", y, probs, task)[0] == Decision()
