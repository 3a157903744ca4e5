"""Errors, budgets, tasks, schemas and costs: small types that must not lie."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import errors
from tidemill.core.budget import Budget, available_cpus, parse_duration_s, parse_size_bytes
from tidemill.core.errors import (
    DataError,
    ExpressionError,
    MissingExtraError,
    NotFoundError,
    ObjectiveError,
    OptionError,
    TidemillError,
    nearest_hint,
)
from tidemill.core.schema import Column, Schema, SemanticType, take_rows
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Cost, Trial, TrialState, Usage


def every_error():
    found = [TidemillError]
    for kind in found:
        found += kind.__subclasses__()
    return [k for k in found if k.__module__ == errors.__name__]


class TestErrors:
    @pytest.mark.parametrize("kind", every_error())
    def test_errors_cross_process_borders(self, kind):
        error = (
            kind("It is wrong.", hint="Do this.")
            if issubclass(kind, ExpressionError)
            else kind("It is wrong.", hint="Do this.", where="a.csv:3")
        )
        if issubclass(kind, ExpressionError):
            error = kind("It is wrong.", text="maximize x", position=9, hint="Do this.")
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(again) is kind
            assert str(again) == str(error)
            assert vars(again) == vars(error)
            assert again.args == error.args

    @pytest.mark.parametrize("kind", every_error())
    def test_the_tree_is_as_drawn(self, kind):
        drawn = errors.__doc__ or ""
        assert kind.__name__ in drawn
        assert kind.exit_code in (1, 2)

    @given(st.text(), st.text(max_size=200), st.integers(0, 200))
    def test_the_mark_stands_below_its_sign(self, message, text, position):
        position = min(position, len(text))
        error = ObjectiveError("Wrong.", text=text, position=position)
        if text:
            _, shown, mark = str(error).split("\n")
            assert mark == " " * (len(mark) - 1) + "^"
            if position < len(text):
                sign = text[position]
                assert shown[len(mark) - 1] == (sign if sign.isprintable() and not sign.isspace() else " ")

    def test_the_nearest_is_offered_whatever_its_case(self):
        assert nearest_hint("INCOME", ["age", "income"]) == "Did you mean 'income'?"
        assert nearest_hint("x", []) == "There are none yet."
        assert nearest_hint("zzz", [f"name{i:02}" for i in range(20)]).endswith("'name11', ….")
        assert NotFoundError.of("study", "a", ["b"], hint="Look.").hint == "Look."
        assert MissingExtraError.of("ray", "to scale", extra="ray").exit_code == 2


class TestBudget:
    @given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
    def test_durations(self, h, m, s):
        assert parse_duration_s(f"{h}h{m}m{s}s") == 3600 * h + 60 * m + s
        assert parse_duration_s(f"{h}h {m}m {s}") == 3600 * h + 60 * m + s

    @pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5m", 90), (" 2H ", 7200), (3, 3), (0.5, 0.5)])
    def test_durations_as_people_write_them(self, text, seconds):
        assert parse_duration_s(text) == seconds

    @pytest.mark.parametrize(
        "text", ["", " ", "soon", "-1", "0", "0s", "1d", "1m2h", "nan", "9" * 400, 0, -1.0, float("nan"), float("inf")]
    )
    def test_other_durations_are_refused(self, text):
        with pytest.raises(OptionError):
            parse_duration_s(text)

    @given(st.integers(1, 4000), st.sampled_from([("", 1), ("kB", 10**3), ("MB", 10**6), ("GiB", 2**30), ("k", 1000)]))
    def test_sizes(self, n, unit):
        assert parse_size_bytes(f"{n}{unit[0]}") == n * unit[1]
        assert parse_size_bytes(f"{n} {unit[0].upper()}") == n * unit[1]

    @pytest.mark.parametrize("text", ["", "much", "0", "-1", "4XB", "0.1", "9" * 400, "4GBs", 0, -5])
    def test_other_sizes_are_refused(self, text):
        with pytest.raises(OptionError):
            parse_size_bytes(text)

    @given(st.text())
    def test_any_text_is_read_or_refused(self, text):
        for parse in (parse_duration_s, parse_size_bytes):
            try:
                value = parse(text)
            except OptionError:
                continue
            assert value > 0

    @pytest.mark.parametrize(
        "limits", [{"trials": 0}, {"cpus": -1}, {"time_s": 0.0}, {"time_s": float("nan")}, {"memory_bytes": 0}]
    )
    def test_a_budget_that_allows_nothing_is_refused(self, limits):
        with pytest.raises(OptionError):
            Budget(**limits)

    def test_no_limit_is_a_budget(self):
        assert Budget.parse() == Budget()
        assert Budget().cores == available_cpus()
        assert Budget(cpus=3).cores == 3


class TestTask:
    def test_json_and_back(self):
        for task in (
            Task(TaskKind.BINARY, "y", ("a", "b"), positive="b", label_type="boolean"),
            Task(TaskKind.MULTICLASS, "y", ("a", "b", "c")),
            Task(TaskKind.REGRESSION, "y", label_type="integer"),
        ):
            assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task

    def test_sizes(self):
        assert Task(TaskKind.BINARY, "y", ("a", "b")).positive == "b"
        assert Task(TaskKind.MULTICLASS, "y", ("a", "b", "c")).n_outputs == 3
        assert (Task(TaskKind.REGRESSION, "y").n_outputs, Task(TaskKind.REGRESSION, "y").n_classes) == (1, 0)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((TaskKind.BINARY, "y", ("a",)), "exactly 2"),
            ((TaskKind.BINARY, "y", ("a", "b", "c")), "exactly 2"),
            ((TaskKind.MULTICLASS, "y", ("a",)), "at least 2"),
            ((TaskKind.MULTICLASS, "y", ("a", "b", "a")), "distinct"),
            ((TaskKind.BINARY, "y", ("a", "b"), "a"), "must be the second"),
            ((TaskKind.MULTICLASS, "y", ("a", "b", "c"), "a"), "no positive"),
            ((TaskKind.REGRESSION, "y", ("a", "b")), "no classes"),
        ],
    )
    def test_a_contradiction_is_refused(self, arguments, words):
        with pytest.raises(OptionError, match=words):
            Task(*arguments)


class TestSchema:
    schema = Schema(
        (
            Column("age", SemanticType.NUMBER, unit="years", missing=0.25, distinct=9, low=1.0, high=99.0),
            Column("job", SemanticType.CATEGORY),
            Column("id", SemanticType.IDENTIFIER, reason="all different"),
            Column("y", SemanticType.TARGET),
        )
    )

    def test_json_and_back(self):
        assert Schema.from_json(json.loads(json.dumps(self.schema.to_json()))) == self.schema
        assert pickle.loads(pickle.dumps(self.schema)) == self.schema
        assert len({self.schema, Schema(self.schema.columns)}) == 1

    def test_looking_up(self):
        assert [c.name for c in self.schema.features] == ["age", "job"]
        assert "job" in self.schema
        assert self.schema["job"].type.is_string
        assert len(self.schema) == len(list(self.schema)) == 4
        with pytest.raises(NotFoundError, match="Did you mean 'job'"):
            _ = self.schema["jbo"]

    def test_types_can_be_given(self):
        got = self.schema.with_types({"id": SemanticType.TEXT})
        assert (got["id"].type, got["id"].reason) == (SemanticType.TEXT, "given")
        assert self.schema["id"].type is SemanticType.IDENTIFIER
        with pytest.raises(NotFoundError):
            self.schema.with_types({"ID2": SemanticType.TEXT})

    def test_a_name_stands_once(self):
        with pytest.raises(DataError, match="two columns 'a'"):
            Schema((Column("a", SemanticType.NUMBER), Column("a", SemanticType.TEXT)))

    def test_rows_are_taken_from_every_column(self):
        columns = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array(["x", "y", "z"], dtype=object)}
        assert [v.tolist() for v in take_rows(columns, np.array([2, 0])).values()] == [[3.0, 1.0], ["z", "x"]]
        assert [v.tolist() for v in take_rows(columns, columns["a"] > 1).values()] == [[2.0, 3.0], ["y", "z"]]


COST = st.builds(
    Cost,
    *[st.none() | st.integers(0, 2**40)] * 3,
    st.none() | st.integers(0, 1000).map(float),
)


class TestTrial:
    @given(COST, COST)
    def test_costs_add_up_and_the_unknown_stays_unknown(self, a, b):
        total = a + b
        assert total == b + a
        for name, x in a.to_json().items():
            y = b.to_json()[name]
            assert getattr(total, name) == (None if x is None or y is None else x + y)
        assert Cost.from_json(json.loads(json.dumps(a.to_json()))) == a

    def test_usage_and_names(self):
        usage = Usage(1.5, 2.5, 3)
        assert Usage.from_json(json.loads(json.dumps(usage.to_json()))) == usage
        assert Trial("s", 7, {}, TrialState.COMPLETE, "lightgbm").name == "lightgbm-7"
