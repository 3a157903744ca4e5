"""Every metric that scikit-learn has gives scikit-learn's answer; the others are held against plain loops."""

from __future__ import annotations

import pickle
import time
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.metrics import confusion_matrix, default_metric, get_metric, metric_names, metrics_for
from tidemill.core.metrics._base import Evidence
from tidemill.core.task import Task, TaskKind

BINARY = Task(TaskKind.BINARY, "y", ("no", "yes"))
NUMBER = Task(TaskKind.REGRESSION, "y", label_type="number")
CLOSE = {"rel": 1e-9, "abs": 1e-9}

# Few distinct values, so that ties are common.
ANY_CLASSES = st.integers(2, 5)
PROBABILITY = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1, width=32))


def multiclass(k: int) -> Task:
    return Task(TaskKind.MULTICLASS, "y", tuple(f"c{i}" for i in range(k)))


@st.composite
def judged(draw, classes=ANY_CLASSES, weighted=True):
    """True codes, probabilities that sum to 1, weights or None."""
    k, n = draw(classes), draw(st.integers(1, 40))
    y = draw(arrays(np.int64, n, elements=st.integers(0, k - 1)))
    if k == 2:
        p = draw(arrays(np.float64, n, elements=PROBABILITY))
        scores = np.column_stack([1 - p, p])
    else:
        raw = draw(arrays(np.float64, (n, k), elements=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]))) + 1e-3
        scores = raw / raw.sum(axis=1, keepdims=True)
    whole = st.none() | arrays(np.float64, n, elements=st.sampled_from([0.5, 1.0, 2.0, 3.0]))
    return y, scores, draw(whole) if weighted else None


def task_of(scores):
    return BINARY if scores.shape[1] == 2 else multiclass(scores.shape[1])


def reference(function, *args, **kwargs):
    """scikit-learn warns where a value isn't defined; those values are tested by name below."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


class TestRanking:
    @given(judged(st.just(2)))
    def test_roc_auc_of_two_classes(self, case):
        y, scores, weight = case
        got = get_metric("roc_auc")(y, scores, task=BINARY, weight=weight)
        if len(set(y)) < 2:
            assert got == 0.5
        else:
            assert got == pytest.approx(sk.roc_auc_score(y, scores[:, 1], sample_weight=weight), **CLOSE)

    @given(judged())
    def test_average_precision_of_one_class(self, case):
        y, scores, weight = case
        task = task_of(scores)
        for k, label in enumerate(task.classes):
            got = get_metric("average_precision")(y, scores, task=task, weight=weight, label=label)
            want = reference(sk.average_precision_score, y == k, scores[:, k], sample_weight=weight)
            assert got == pytest.approx(want, **CLOSE)

    @given(judged(st.integers(3, 5)))
    def test_several_classes_are_averaged_over_those_that_occur(self, case):
        y, scores, weight = case
        present = sorted(set(y))
        if len(present) < 2:
            return
        for name, one in (("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
            want = np.mean([one(y == k, scores[:, k], sample_weight=weight) for k in present])
            assert get_metric(name)(y, scores, task=task_of(scores), weight=weight) == pytest.approx(want, **CLOSE)

    def test_one_against_rest_is_that_of_scikit_learn(self):
        rng = np.random.default_rng(0)
        y, scores = rng.integers(0, 4, 500), rng.dirichlet(np.ones(4), 500)
        want = sk.roc_auc_score(y, scores, multi_class="ovr", average="macro")
        assert get_metric("roc_auc")(y, scores, task=multiclass(4)) == pytest.approx(want, **CLOSE)

    @given(judged(st.just(2), weighted=False))
    def test_a_weight_counts_as_copies(self, case):
        y, scores, _ = case
        copies = np.arange(len(y)) % 3 + 1
        for name in ("roc_auc", "average_precision"):
            m = get_metric(name)
            weighted = m(y, scores, task=BINARY, weight=copies.astype(float))
            repeated = m(y.repeat(copies), scores.repeat(copies, axis=0), task=BINARY)
            assert weighted == pytest.approx(repeated, **CLOSE)

    def test_without_the_class_there_is_nothing_to_rank(self):
        scores = np.array([[0.4, 0.6], [0.9, 0.1]])
        assert get_metric("roc_auc")([0, 0], scores, task=BINARY) == 0.5
        assert get_metric("roc_auc")([1, 1], scores, task=BINARY, weight=[1, 2]) == 0.5
        assert get_metric("average_precision")([0, 0], scores, task=BINARY) == 0.0
        assert get_metric("average_precision")([1, 1], scores, task=BINARY) == 1.0
        three = np.full((2, 3), 1 / 3)
        assert get_metric("roc_auc")([2, 2], three, task=multiclass(3)) == 0.5
        assert get_metric("average_precision")([2, 2], three, task=multiclass(3)) == 1.0


class TestProbability:
    @given(judged())
    def test_log_loss(self, case):
        y, scores, weight = case
        k = scores.shape[1]
        eps = np.finfo(np.float32).eps
        clipped = np.clip(scores, eps, 1 - eps)
        want = reference(sk.log_loss, y, clipped, sample_weight=weight, labels=list(range(k)))
        got = get_metric("log_loss")(y, scores, task=task_of(scores), weight=weight)
        assert got == pytest.approx(want, rel=1e-6, abs=1e-6)

    @given(judged())
    def test_brier(self, case):
        y, scores, weight = case
        k = scores.shape[1]
        want = sk.brier_score_loss(y, scores, sample_weight=weight, labels=list(range(k)), scale_by_half=k == 2)
        got = get_metric("brier")(y, scores, task=task_of(scores), weight=weight)
        assert got == pytest.approx(want, **CLOSE)

    @given(judged())
    def test_ece_is_that_of_a_plain_loop(self, case):
        y, scores, weight = case
        each = np.ones(len(y)) if weight is None else weight
        if scores.shape[1] == 2:
            stated, hit = scores[:, 1], y == 1
        else:
            stated, hit = scores.max(axis=1), scores.argmax(axis=1) == y
        want = 0.0
        for b in range(15):
            inside = [i for i, p in enumerate(stated) if min(max(int(np.ceil(p * 15)) - 1, 0), 14) == b]
            total = sum(each[i] for i in inside)
            if total:
                gap = sum(each[i] * (stated[i] - hit[i]) for i in inside) / total
                want += abs(gap) * total / each.sum()
        assert get_metric("ece")(y, scores, task=task_of(scores), weight=weight) == pytest.approx(want, **CLOSE)

    def test_a_sure_mistake_is_finite(self):
        assert get_metric("log_loss")([1], [[1.0, 0.0]], task=BINARY) == pytest.approx(15.942385)


class TestDecision:
    @given(judged())
    def test_plain_ones(self, case):
        y, scores, weight = case
        decided = scores.argmax(axis=1)
        for name, function in (
            ("accuracy", sk.accuracy_score),
            ("balanced_accuracy", sk.balanced_accuracy_score),
            ("mcc", sk.matthews_corrcoef),
        ):
            want = reference(function, y, decided, sample_weight=weight)
            got = get_metric(name)(y, scores, task=task_of(scores), weight=weight)
            assert got == pytest.approx(want, **CLOSE), name

    @given(judged(), st.sampled_from(["precision", "recall", "f1"]))
    def test_averages_and_single_classes(self, case, name):
        y, scores, weight = case
        task, decided = task_of(scores), scores.argmax(axis=1)
        function = getattr(sk, f"{name}_score")
        common = {"sample_weight": weight, "zero_division": 0}
        for average in ("macro", "micro", "weighted"):
            want = function(y, decided, average=average, **common)
            got = get_metric(f"{name}_{average}")(y, scores, task=task, weight=weight)
            assert got == pytest.approx(want, **CLOSE), average
        each = function(y, decided, average=None, labels=list(range(task.n_classes)), **common)
        for k, label in enumerate(task.classes):
            got = get_metric(name)(y, scores, task=task, weight=weight, label=label)
            assert got == pytest.approx(each[k], **CLOSE)
        if task is BINARY:
            assert get_metric(name)(y, scores, task=task, weight=weight) == pytest.approx(each[1], **CLOSE)

    @given(judged(), st.data())
    def test_cost_is_the_mean_of_looked_up_costs(self, case, data):
        y, scores, weight = case
        k = scores.shape[1]
        matrix = data.draw(arrays(np.float64, (k, k), elements=st.integers(-3, 9).map(float)))
        decided = data.draw(arrays(np.int64, len(y), elements=st.integers(0, k - 1)))
        got = get_metric("cost")(y, scores, decided, task=task_of(scores), weight=weight, cost_matrix=matrix)
        assert got == pytest.approx(np.average(matrix[y, decided], weights=weight), **CLOSE)

    def test_cost_decides_by_cost_unless_told(self):
        scores, matrix = np.array([[0.8, 0.2]]), [[0, 1], [5, 0]]
        assert get_metric("cost")([1], scores, task=BINARY, cost_matrix=matrix) == 0.0
        assert get_metric("cost")([1], scores, [0], task=BINARY, cost_matrix=matrix) == 5.0

    def test_cost_without_its_matrix_is_refused(self):
        for matrix in (None, np.zeros((3, 3))):
            with pytest.raises(OptionError, match="needs a cost matrix"):
                get_metric("cost")([1], [[0.8, 0.2]], task=BINARY, cost_matrix=matrix)

    @given(judged())
    def test_stacks_of_confusion_matrices_are_judged_one_by_one(self, case):
        y, scores, weight = case
        k = scores.shape[1]
        stack = np.stack([confusion_matrix(y, d, k, weight) for d in (scores.argmax(axis=1), scores.argmin(axis=1), y)])
        for m in metrics_for(task_of(scores).kind):
            if m.of_confusion is not None:
                together = m.of_confusion(stack, 1, None)
                assert together.tolist() == [float(m.of_confusion(c, 1, None)) for c in stack]


class TestRegression:
    value = st.floats(-1e3, 1e3).map(lambda v: round(v, 3))

    @given(st.data())
    def test_all_are_those_of_scikit_learn(self, data):
        n = data.draw(st.integers(2, 30))
        y = data.draw(arrays(np.float64, n, elements=self.value))
        p = data.draw(arrays(np.float64, n, elements=self.value))
        weight = data.draw(st.none() | arrays(np.float64, n, elements=st.sampled_from([0.5, 1.0, 2.0])))
        for name, function in (
            ("rmse", sk.root_mean_squared_error),
            ("mae", sk.mean_absolute_error),
            ("r2", sk.r2_score),
            ("mape", sk.mean_absolute_percentage_error),
            ("pinball", sk.mean_pinball_loss),
            ("pinball@0.9", lambda *a, **k: sk.mean_pinball_loss(*a, alpha=0.9, **k)),
        ):
            got = get_metric(name)(y, p[:, None], task=NUMBER, weight=weight)
            assert got == pytest.approx(function(y, p, sample_weight=weight), rel=1e-6, abs=1e-9), name
        y, p = np.abs(y), np.maximum(p, 0)
        want = sk.root_mean_squared_log_error(y, p, sample_weight=weight)
        assert get_metric("rmsle")(y, p[:, None], task=NUMBER, weight=weight) == pytest.approx(want, **CLOSE)

    def test_r2_of_a_constant_target(self):
        assert get_metric("r2")([2.0, 2.0], [[2.0], [2.0]], task=NUMBER) == 1.0
        assert get_metric("r2")([2.0, 2.0], [[2.0], [1.0]], task=NUMBER) == 0.0
        assert get_metric("r2")([2.0, 5.0], [[2.0], [1.0]], task=NUMBER, weight=[1, 0]) == 1.0

    def test_rmsle_takes_a_negative_prediction_for_zero(self):
        assert get_metric("rmsle")([0.0], [[-5.0]], task=NUMBER) == 0.0
        with pytest.raises(DataError, match="never negative"):
            get_metric("rmsle")([-1.0], [[0.0]], task=NUMBER)

    def test_an_error_beyond_floats_is_infinite_and_sorts_last(self):
        rmse, r2 = get_metric("rmse"), get_metric("r2")
        assert rmse.loss(rmse([0.0, 1.0], [[1e300], [0.0]], task=NUMBER)) == np.inf
        assert r2.loss(r2([0.0, 1.0], [[1e300], [0.0]], task=NUMBER)) == np.inf


class TestContract:
    def test_names_and_kinds(self):
        assert [default_metric(k).name for k in TaskKind] == ["roc_auc", "log_loss", "rmse", "log_loss", "cer"]
        for kind in TaskKind:
            assert default_metric(kind) in metrics_for(kind)
        assert all(get_metric(name).name == name for name in metric_names())

    def test_the_unknown_gets_the_nearest(self):
        with pytest.raises(NotFoundError, match="Did you mean 'roc_auc'"):
            get_metric("ROC_AUC_")
        for name in ("pinball@2", "pinball@0"):
            with pytest.raises(OptionError, match="between 0 and 1"):
                get_metric(name)

    @given(st.floats(0.001, 0.999))
    def test_a_quantile_survives_its_name(self, alpha):
        name = get_metric(f"pinball@{alpha!r}").name
        assert get_metric(name) == get_metric(f"pinball@{alpha!r}")

    @pytest.mark.parametrize("name", [*metric_names(), "pinball@0.9"])
    def test_metrics_cross_process_borders(self, name):
        metric = get_metric(name)
        assert pickle.loads(pickle.dumps(metric)) == metric

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(OptionError, match="regression"):
            get_metric("rmse")([0, 1], [[0.5, 0.5]] * 2, task=BINARY)
        with pytest.raises(OptionError, match="does not fit a multiclass"):
            get_metric("recall")([0], [[0.5, 0.5, 0.0]], task=multiclass(3))
        with pytest.raises(NotFoundError, match="'yes'"):
            get_metric("recall")([0], [[0.5, 0.5]], task=BINARY, label="yse")

    @pytest.mark.parametrize(
        ("y", "scores", "weight", "words"),
        [
            ([], np.empty((0, 2)), None, "at least one row"),
            ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], None, "1 rows have a score"),
            ([0, 1], [[0.5, 0.5], [np.inf, 0.5]], None, "NaN or infinite"),
            ([0, 1], [0.5, 0.5], None, "shape"),
            ([0, 1], [[0.5, 0.5]], None, "shape"),
            ([0], [[0.5, 0.5]], [0.0], "above 0"),
            ([0], [[0.5, 0.5]], [-1.0], "not negative"),
            ([0], [[0.5, 0.5]], [np.nan], "finite"),
            ([0], [[0.5, 0.5]], [1.0, 1.0], "shape"),
        ],
    )
    def test_nan_never_leaks(self, y, scores, weight, words):
        with pytest.raises(DataError, match=words):
            get_metric("roc_auc")(y, scores, task=BINARY, weight=weight)

    def test_a_missing_target_is_refused(self):
        with pytest.raises(DataError, match="target"):
            get_metric("mae")([np.nan], [[0.5]], task=NUMBER)

    @pytest.mark.parametrize("kind", [TaskKind.BINARY, TaskKind.MULTICLASS, TaskKind.REGRESSION])
    def test_perfect_is_better_than_wrong(self, kind):
        task = {TaskKind.BINARY: BINARY, TaskKind.MULTICLASS: multiclass(3), TaskKind.REGRESSION: NUMBER}[kind]
        y = np.array([0, 1, 2, 0, 1, 2]) % (task.n_classes or 3)
        right = np.eye(task.n_classes)[y] if task.n_classes else y[:, None].astype(float)
        wrong = np.roll(right, 1, axis=0)
        for m in metrics_for(kind):
            assert m.better(m(y, right, task=task), m(y, wrong, task=task)), m.name


@pytest.mark.parametrize(("name", "weighted"), [("roc_auc", False), ("log_loss", False), ("log_loss", True)])
def test_greedy_selection_may_ask_thousands_of_times(name, weighted):
    """3 ms on 40,000 rows on a free core; the test allows for a busy one, and for a slow one."""
    rng = np.random.default_rng(0)
    y = (rng.random(40_000) < 0.24).astype(np.int64)
    p = np.clip(rng.random(40_000) * 0.6 + 0.3 * y, 0, 1)
    scores, weight = np.column_stack([1 - p, p]), rng.random(40_000) if weighted else None
    took = []
    for _ in range(15):
        start = time.perf_counter()
        get_metric(name)(y, scores, task=BINARY, weight=weight)
        took.append(time.perf_counter() - start)
    print(f"{name}: {1e3 * min(took):.2f} ms")
    assert min(took) < 0.05


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "classes"), [(60, 200), (300, 20), (400, 3)])
def test_classes_that_do_not_occur_change_no_judgement_of_labels(rows: int, classes: int, weighted: bool) -> None:
    from tidemill.core.metrics.decision import METRICS as OF_LABELS

    rng = np.random.default_rng(0)
    y, codes = rng.integers(0, classes // 2, (2, rows))
    y = np.where(rng.random(rows) < 0.5, codes, y)
    weight = rng.random(rows) if weighted else None
    task = Task(TaskKind.MULTICLASS, "y", tuple(f"c{k:03d}" for k in range(classes)))
    whole = confusion_matrix(y, codes, classes, weight)
    asked = [m for m in OF_LABELS if m.fits(task.kind) and m.name != "cost"]
    assert len(asked) > 10
    for metric in asked:
        assert metric.of_confusion is not None
        got = metric(y, np.full((rows, classes), 1 / classes), codes, task=task, weight=weight)
        assert got == pytest.approx(float(metric.of_confusion(whole, None, None)), abs=1e-12), metric.name


def test_of_many_classes_no_matrix_has_cells_for_those_that_nobody_met() -> None:
    y = np.array([5, 5, 900])
    evidence = Evidence(y, np.zeros((3, 1000)), 1000, given=np.array([5, 7, 900]))
    assert evidence.confusion_of_met.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_equal_scores_are_chosen_together_whether_rows_have_weights_or_not() -> None:
    from tidemill.core.metrics.ranking import average_precision

    rng = np.random.default_rng(0)
    for _ in range(50):
        positive, score = rng.random(30) < 0.3, rng.integers(0, 6, 30) / 5
        got = average_precision(positive, score)
        assert got == pytest.approx(average_precision(positive, score, np.ones(30)), abs=1e-12)
