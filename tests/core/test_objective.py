"""An objective is read as people write it, printed so that it reads the same, and wrong ones say what is wrong."""

from __future__ import annotations

import pickle
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InputError, ObjectiveError, OptionError
from tidemill.core.metrics import get_metric, metric_names
from tidemill.core.objective import (
    COSTS,
    Constraint,
    CostMatrix,
    Objective,
    Selector,
    evaluate_constraints,
    evaluate_costs,
    parse_objective,
    slice_mask,
    total_gap,
)
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Cost

FRAUD = Task(TaskKind.BINARY, "y", ("fine", "fraud"))
COLOURS = Task(TaskKind.MULTICLASS, "y", ("red", "green", "blue"))
PRICE = Task(TaskKind.REGRESSION, "y", label_type="number")

WORD = st.one_of(st.text(min_size=1, max_size=8), st.sampled_from(["fraud", "<=50K", "a=b", '"', "a]b", "ü ;", " x "]))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def selectors(draw, slices=True):
    label = draw(WORD) if draw(st.booleans()) or not slices else None
    if slices and (label is None or draw(st.booleans())):
        return Selector(label, draw(WORD), draw(st.text(max_size=8)))
    return Selector(label)


@st.composite
def matrices(draw):
    k = draw(st.integers(2, 4))
    labels = draw(st.none() | st.lists(st.text(max_size=6), min_size=k, max_size=k, unique=True).map(tuple))
    values = draw(st.lists(st.tuples(*[FINITE] * k), min_size=k, max_size=k).map(tuple))
    return CostMatrix(values, labels)


@st.composite
def constraints(draw):
    if draw(st.booleans()):
        return Constraint(draw(st.sampled_from(COSTS)), "<=", draw(st.floats(1e-9, 1e18)))
    name = draw(st.sampled_from([*metric_names(), "pinball@0.9"]))
    op = ">=" if get_metric(name).greater_is_better else "<="
    return Constraint(name, op, draw(FINITE), draw(st.none() | selectors()))


@st.composite
def objectives(draw):
    name = draw(st.sampled_from(["auto", *metric_names(), "pinball@0.25"]))
    bounds = draw(st.lists(constraints(), max_size=4, unique_by=lambda c: (c.subject, c.selector)))
    needs_matrix = name == "cost" or any(c.subject == "cost" for c in bounds)
    matrix = draw(matrices() if needs_matrix else st.none() | matrices())
    selector = None if name in ("auto", "cost") else draw(st.none() | selectors(slices=False))
    return Objective(name, "auto", selector, tuple(bounds), matrix)


class TestRoundTrip:
    @given(objectives())
    def test_what_is_printed_reads_the_same(self, objective):
        text = str(objective)
        assert parse_objective(text) == objective
        assert str(parse_objective(text)) == text

    @given(objectives())
    def test_objectives_cross_process_borders(self, objective):
        assert pickle.loads(pickle.dumps(objective)) == objective

    @given(st.text() | st.text(alphabet='maximze roc_aufdcst()[]=<>;,."0123456789-'))
    def test_any_text_gives_an_objective_or_a_clear_error(self, text):
        try:
            objective = parse_objective(text)
        except InputError as error:
            wrong = error
        else:
            assert parse_objective(str(objective)) == objective
            return
        assert wrong.message
        assert 0 <= getattr(wrong, "position", 0) <= len(text)


class TestReading:
    def test_the_whole_form(self, tmp_path):
        (tmp_path / "m.csv").write_text("true,fine,fraud\nfraud,5,0\nfine,0,1\n")
        text = (
            "maximize roc_auc; params <= 2e5; latency_ms <= 3; recall[fraud] >= 0.9; "
            "recall[region=north] >= 0.8; cost(m.csv)"
        )
        got = parse_objective(text, base_dir=tmp_path)
        assert got == Objective(
            "roc_auc",
            "maximize",
            None,
            (
                Constraint("params", "<=", 200000.0),
                Constraint("latency_ms", "<=", 3.0),
                Constraint("recall", ">=", 0.9, Selector("fraud")),
                Constraint("recall", ">=", 0.8, Selector(column="region", value="north")),
            ),
            CostMatrix(((0.0, 1.0), (5.0, 0.0)), ("fine", "fraud")),
        )
        assert got.cost_constraints == got.constraints[:2]
        assert got.metric_constraints == got.constraints[2:]

    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ("roc_auc", "maximize roc_auc"),
            ("maximise roc_auc;", "maximize roc_auc"),
            ("  Maximize   roc_auc ;; ", "maximize roc_auc"),
            ("params<=1e5", "auto; params <= 100000"),
            ("cost([[0,5],[1,0]])", "minimize cost([[0,5],[1,0]])"),
            ("minimize cost; cost([[0,5],[1,0]])", "minimize cost([[0,5],[1,0]])"),
            ("cost([[0,5],[1,0]]); maximize f1", "maximize f1; cost([[0,5],[1,0]])"),
            ("f1; cost([[0,5],[1,0]]) <= 0.5", "maximize f1; cost <= 0.5; cost([[0,5],[1,0]])"),
            ('cost(["a;b)", "c"], [[0,5],[1,0]])', 'minimize cost(["a;b)","c"],[[0,5],[1,0]])'),
            ("rmse; size_bytes ≤ 10MB", "minimize rmse; size_bytes <= 10000000"),
            ("auto; recall[ big one , region = the north ] >= .5", "auto; recall[big one,region=the north] >= 0.5"),
            ("maximize recall[<=50K]", "maximize recall[<=50K]"),
            ('auto; recall["<=50K", "age" = "a=b"] >= 1', 'auto; recall[<=50K,age="a=b"] >= 1'),
        ],
    )
    def test_other_words_for_the_same(self, text, same):
        assert str(parse_objective(text)) == same

    @pytest.mark.parametrize(
        ("text", "position", "words"),
        [
            ("", 0, "The objective is empty"),
            (" ; ", 0, "The objective is empty"),
            ("maximize roc_acu", 9, "no metric 'roc_acu'. Did you mean 'roc_auc'"),
            ("parms <= 3", 0, "Did you mean 'params'"),
            ("minimize roc_auc", 9, "better when greater.*Write maximize roc_auc"),
            ("maximize rmse", 9, "better when smaller.*Write minimize rmse"),
            ("maximize", 8, "must be followed by a metric"),
            ("roc_auc; params <", 16, "'<' is not an operator here. Write <= or >="),
            ("roc_auc; params <= ", 19, "The bound is missing"),
            ("roc_auc; params <= many", 19, "'many' is not a number"),
            ("roc_auc; params <= 1e999", 19, "must be finite"),
            ("roc_auc; params <= -3", 9, "must be positive"),
            ("roc_auc; params >= 3", 9, "better when smaller.*Write params <= 3"),
            ("roc_auc; recall <= 0.5", 9, "better when greater.*Write recall >= 0.5"),
            ("roc_auc; params", 15, "'params' needs a bound"),
            ("minimize params", 9, "can be bounded, but not be the aim"),
            ("roc_auc; f1", 9, "two aims, 'roc_auc' and 'f1'"),
            ("roc_auc; params <= 3; params <= 4", 22, "bounded twice"),
            ("maximize roc_auc >= 0.9", 17, "An aim has no bound"),
            ("roc_auc params <= 3", 8, "Expected ';'"),
            ("recall[fraud >= 0.9", 6, "never closed"),
            ("recall[a=b=c] >= 0.9", 10, "'=' can't stand here. Put names"),
            ("recall[fraud", 6, "never closed"),
            ("recall[] >= 0.9", 7, "Expected a class"),
            ("recall[region=] >= 0.9", 14, "Expected a class"),
            ("params[fraud] <= 3", 0, "a cost of the whole model"),
            ("maximize recall[region=north]", 9, "A slice can be a constraint, but not the aim"),
            ("minimize cost", 0, "needs a cost matrix"),
            ("cost([[0,5],[1]])", 5, "must be square.*row 2 with 1 values"),
            ("cost([[0,5],[1,1e999]])", 5, "must be finite"),
            ('cost([[0,"5"],[1,0]])', 5, "list of lists of numbers"),
            ("cost([[0,5],[1,0]]", 18, "ends with '\\)'"),
            ("cost(", 4, "never closed"),
            ("cost()", 5, "Expected a file or a matrix"),
            ("cost([[0,5],[1,0]]); cost([[0,1],[1,0]])", 25, "two different cost matrices"),
            ("f1(3) >= 1", 2, "takes no parentheses"),
            ("pinball@7", 0, "between 0 and 1"),
            ("maximize auto", 9, "'auto' stands alone"),
        ],
    )
    def test_what_is_wrong_is_marked(self, text, position, words):
        with pytest.raises(ObjectiveError, match=f"(?s){words}") as caught:
            parse_objective(text)
        assert caught.value.position == position
        if text:
            *_, shown, mark = str(caught.value).split("\n")
            assert (shown, mark) == (f"  {text}", " " * (position + 2) + "^")

    def test_of_a_long_text_the_surroundings_are_shown(self):
        with pytest.raises(ObjectiveError) as caught:
            parse_objective("maximize roc_auc;\n" + "params <= 3; " * 50)
        *_, shown, mark = str(caught.value).split("\n")
        assert len(shown) < 120
        assert shown[len(mark) - 1 :].startswith("params")


class TestCostMatrix:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "m.csv: The cost matrix is empty"),
            ("x,a,b\n", "empty"),
            ("x,a,b\na,0,1\nb,1\n", "m.csv:3: .* a label and 2 numbers, but this has 1"),
            ("x,a,b\na,0,1\nb,1,zero\n", "m.csv:3: 'zero' in column 'b' is not a number"),
            ("x,a,b\na,0,1\n", "m.csv: The column 'b' of the cost matrix has no row"),
            ("x,a,b\na,0,1\na,0,1\n", "m.csv:3: The label 'a' stands twice"),
            ("x,apple,b\naple,0,1\nb,1,0\n", "m.csv:2: The row 'aple' .* Did you mean 'apple'"),
            ("x,a,a\na,0,1\n", "m.csv: .*square|twice"),
            ("x,a\na,0\n", "at least 2 classes"),
            ("x,a,b\na,0,nan\nb,1,0\n", "row 1, column 2 is nan"),
        ],
    )
    def test_a_wrong_file_is_explained(self, tmp_path, text, words):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(OptionError, match=words):
            parse_objective("cost(m.csv)", base_dir=tmp_path)

    def test_who_must_not_name_files_writes_the_matrix_itself(self, tmp_path):
        (tmp_path / "m.csv").write_text("x,a,b\na,0,1\nb,1,0\n")
        for text in ("minimize cost(m.csv)", 'cost( "m.csv" )', f"roc_auc; cost({tmp_path}/m.csv)", "cost(/no/such)"):
            with pytest.raises(ObjectiveError, match="A file can't be named here"):
                parse_objective(text, base_dir=tmp_path, files=False)
        assert parse_objective("cost([[0,1],[1,0]])", files=False).cost_matrix is not None

    def test_a_file_that_cannot_be_read(self, tmp_path):
        with pytest.raises(OptionError, match=r"nowhere\.csv: The cost matrix can't be read"):
            CostMatrix.read(tmp_path / "nowhere.csv")
        (tmp_path / "latin.csv").write_bytes("x,é,b".encode("latin-1"))
        with pytest.raises(OptionError, match=r"not UTF-8 text \(byte 2\)"):
            CostMatrix.read(tmp_path / "latin.csv")

    @given(matrices(), st.randoms())
    def test_aligning_keeps_each_cost_with_its_labels(self, matrix, random):
        labels = matrix.labels or tuple("abcd"[: len(matrix.values)])
        order = list(labels)
        random.shuffle(order)
        source = CostMatrix(matrix.values, labels)
        got = source.aligned(order)
        assert got.labels == tuple(order)
        for i, a in enumerate(order):
            for j, b in enumerate(order):
                assert got.values[i][j] == source.values[labels.index(a)][labels.index(b)]

    def test_labels_are_held_against_the_task(self):
        with pytest.raises(OptionError, match=r"has 2 classes, but the task has 3: 'red', 'green', 'blue'"):
            parse_objective("cost([[0,1],[1,0]])").resolve(COLOURS)
        with pytest.raises(OptionError, match=r"no class 'frod'\. Did you mean 'fraud'"):
            parse_objective('cost(["fine","frod"],[[0,1],[1,0]])').resolve(FRAUD)


class TestResolve:
    @pytest.mark.parametrize(("task", "name"), [(FRAUD, "roc_auc"), (COLOURS, "log_loss"), (PRICE, "rmse")])
    def test_auto_becomes_the_default(self, task, name):
        got = parse_objective("params <= 10").resolve(task)
        assert got.metric == name
        assert got.direction == ("maximize" if name == "roc_auc" else "minimize")

    @pytest.mark.parametrize(
        ("text", "task", "words"),
        [
            ("minimize rmse", FRAUD, "'rmse' does not fit a binary task. These fit: roc_auc, average_precision"),
            ("maximize roc_auc", PRICE, "These fit: rmse, mae"),
            ("maximize recall", COLOURS, r"needs one class.*recall\[red\] or recall_macro"),
            ("maximize recall[gren]", COLOURS, "no class 'gren'. Did you mean 'green'"),
            ("maximize accuracy[red]", COLOURS, "can't be asked of one class"),
            ("rmse; recall[x] >= 0.5", PRICE, "does not fit a regression"),
            ("rmse; cost([[0,1],[1,0]])", PRICE, "A cost matrix fits classification"),
            ("roc_auc; recall[regoin=north] >= 0.5", FRAUD, "no column 'regoin'. Did you mean 'region'"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, text, task, words):
        with pytest.raises(ObjectiveError, match=words):
            parse_objective(text).resolve(task, columns=["region", "age"])

    def test_one_class_of_many(self):
        objective = parse_objective("maximize f1[green]; recall[blue] >= 0.5").resolve(COLOURS)
        y = np.array([0, 1, 2])
        assert objective.measure(COLOURS, y, np.eye(3)) == 1.0

    def test_the_matrix_stands_in_the_order_of_the_classes(self):
        got = parse_objective('cost(["fraud","fine"],[[0,5],[1,0]])').resolve(FRAUD)
        assert got.cost_matrix is not None
        assert got.cost_matrix.array.tolist() == [[0, 1], [5, 0]]


class TestEvaluate:
    y = np.array([0, 1, 1, 1])
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    columns: ClassVar = {
        "region": np.array(["north", "north", "north", "south"], dtype=object),
        "age": np.array([30.0, 30.0, np.nan, 40.0]),
    }

    def results(self, text, cost=None):
        objective = parse_objective(text).resolve(FRAUD)
        cost = cost or Cost()
        return evaluate_constraints(objective, FRAUD, self.y, self.scores, None, self.columns, cost)

    @pytest.mark.parametrize(
        ("bound", "value", "gap"),
        [
            ("recall >= 0.5", 2 / 3, 0.0),
            ("recall[fraud] >= 1", 2 / 3, 1 / 3),
            ("recall[fine] >= 1", 1.0, 0.0),
            ("recall[region=north] >= 0.8", 0.5, 0.375),
            ("recall[fine,region=north] >= 0.8", 1.0, 0.0),
            ("recall[age=30] >= 0.8", 1.0, 0.0),
            ('recall[age=""] >= 0.8', 0.0, 1.0),
            ("recall[region=west] >= 0.8", None, np.inf),
            ("recall[fine,region=south] >= 0.8", None, np.inf),
            ("log_loss <= 0.1", 0.3994, 2.994),
        ],
    )
    def test_metrics(self, bound, value, gap):
        (result,) = self.results(f"roc_auc; {bound}")
        assert result.value == (None if value is None else pytest.approx(value, abs=1e-3))
        assert result.gap == pytest.approx(gap, abs=1e-2)
        assert result.satisfied == (gap == 0)

    def test_costs(self):
        got = self.results("roc_auc; params <= 100; latency_ms <= 3", Cost(params=150))
        assert [(r.value, r.satisfied, r.gap) for r in got] == [(150.0, False, 0.5), (None, False, np.inf)]
        assert total_gap(got) == np.inf
        known = evaluate_costs(parse_objective("params <= 100; latency_ms <= 3"), Cost(params=50))
        assert [(r.value, r.satisfied) for r in known] == [(50.0, True)]

    def test_expected_cost_can_be_bounded(self):
        (result,) = self.results("roc_auc; cost([[0,1],[10,0]]) <= 0.5")
        assert result.value == 0.25  # the first row is decided as fraud, for its 10 % chance of costing 10

    def test_decisions_and_weights_count(self):
        objective = parse_objective("roc_auc; recall >= 1").resolve(FRAUD)
        decisions, weight = np.array([0, 1, 1, 0]), np.array([1.0, 1.0, 1.0, 2.0])
        (r,) = evaluate_constraints(
            objective, FRAUD, self.y, self.scores, decisions, self.columns, Cost(), weight=weight
        )
        assert r.value == 0.5

    def test_a_slice_that_cannot_be(self):
        with pytest.raises(ObjectiveError, match=r"no column 'regio'\. Did you mean 'region'"):
            self.results("recall[regio=north] >= 0.5")
        with pytest.raises(ObjectiveError, match="holds numbers, but 'old' is none"):
            self.results("recall[age=old] >= 0.5")

    def test_booleans_are_written_in_words(self):
        mask = slice_mask(Selector(column="new", value="true"), {"new": np.array([1.0, 0.0, np.nan])})
        assert mask.tolist() == [True, False, False]
