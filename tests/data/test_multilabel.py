"""Cells with several labels: taken apart as they were meant, or refused with a word."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.task import Task, TaskKind
from tidemill.data.coerce import drop_unlabelled, known_rows
from tidemill.data.infer import infer_schema, infer_task
from tidemill.data.ingest import RawTable
from tidemill.data.multilabel import (
    JSON,
    SEPARATORS,
    encode_labels,
    infer_separator,
    join_cell,
    label_task,
    read_labels,
    split_cell,
    unknown_labels,
    with_labels,
)

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=8).filter(
    lambda word: word == word.strip()
)


def table(cells: list[object], name: str = "tags") -> RawTable:
    return RawTable(pa.table({"said": [f"text {i}" for i in range(len(cells))], name: cells}), "made")


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, max_size=5, unique=True))
def test_a_list_is_read_back_whatever_its_labels_hold(labels: list[str]) -> None:
    assert split_cell(join_cell(labels), JSON) == tuple(labels)
    assert split_cell(labels, JSON) == tuple(labels)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS.filter(lambda word: not set(word) & {";", "|", ","}), max_size=5, unique=True),
       st.sampled_from(SEPARATORS), st.sampled_from(["", " "]))  # fmt: skip
def test_labels_without_the_separator_are_read_back(labels: list[str], separator: str, space: str) -> None:
    assert split_cell(f"{separator}{space}".join(labels), separator) == tuple(labels)


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["a;b", "c"], ";"),
        (["a|b;c", "d|e", ""], "|"),
        (["a, b", "c"], ","),
        (['["a","b"]', "[]"], JSON),
        (["['a', 'b']", ""], JSON),
        ([["a"], []], JSON),
        (["a", "b"], ";"),
        ([], ";"),
    ],
)
def test_the_separator_is_what_stands_in_most_cells(cells: list[object], wanted: str) -> None:
    assert infer_separator(cells) == wanted


def test_known_labels_tell_the_separator_better() -> None:
    assert infer_separator(["sea, deep;boat", "boat"]) == ";"
    assert infer_separator(["sea; deep,boat"], known={"sea; deep", "boat"}) == ","


def test_the_column_becomes_lists_once_and_for_all_and_what_was_found_is_said() -> None:
    raw = table(["a|b", "", "b", None])
    done, chosen = with_labels(raw, "tags")
    assert chosen == "|"
    assert done.table["tags"].to_pylist() == ['["a", "b"]', "[]", '["b"]', "[]"]
    assert any("taken apart at '|'" in notice for notice in done.notices)
    assert any("2 of 4 rows have no label" in notice for notice in done.notices)
    again, chosen = with_labels(done, "tags")
    assert chosen == JSON
    assert again.table.equals(done.table)
    assert len(done.notices) == 2


def test_a_person_may_say_what_stands_between() -> None:
    assert with_labels(table(["a/b", "c"]), "tags", separator="/")[0].table["tags"][0].as_py() == '["a", "b"]'
    with pytest.raises(OptionError, match="A separator must be a sign"):
        with_labels(table(["a"]), "tags", separator=" ")


def test_several_columns_of_0_and_1_are_one_target() -> None:
    raw = RawTable(pa.table({"x": ["t"] * 3, "sea": [1, 0, 0], "boat": ["true", "no", None]}), "made")
    done, _ = with_labels(raw, "sea,boat")
    assert done.table.column_names == ["x", "sea,boat"]
    assert done.table["sea,boat"].to_pylist() == ['["sea", "boat"]', "[]", "[]"]
    with pytest.raises(NotFoundError, match="'boot'"):
        with_labels(raw, "sea,boot")
    odd = RawTable(pa.table({"a": ["1", "2"], "b": ["0", "1"]}), "made")
    with pytest.raises(DataError, match="Column 'a', row 2: '2' is neither 0 nor 1"):
        with_labels(odd, "a,b")


def test_a_cell_that_is_no_list_among_lists_is_named() -> None:
    with pytest.raises(DataError, match=r"row 3 holds 'c; d': it is no list"):
        read_labels(table(['["a"]', '["b"]', "c; d"]), "tags")
    with pytest.raises(DataError, match="no plain value"):
        read_labels(table(['[["a"]]']), "tags")


def test_the_task_has_the_labels_of_two_rows_and_more() -> None:
    said: list[str] = []
    task = label_task(table(["a;b", "b;c", "a", ""]), "tags", said)
    assert task == Task(TaskKind.MULTILABEL, "tags", ("a", "b"))
    assert said == ["1 label stands in a single row, too few to learn from and to test: 'c'; left out."]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["", None, "[]"], "No row has a label in 'tags'"),
        (["a;b", "c"], "No label of 'tags' stands in two rows"),
        (["a;b", "b;a"], "Every row has the same labels"),
        (['["a;b"]', '["a;b"]', "[]"], "The label 'a;b' holds ';'"),
    ],
)
def test_what_can_t_be_learned_is_told(cells: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        label_task(table(cells), "tags", [])


def test_one_label_alone_is_a_question_of_yes_or_no() -> None:
    said: list[str] = []
    assert label_task(table(["a", "a", "", ""]), "tags", said).classes == ("a",)
    assert "There is one label only, 'a'" in said[0]


def test_rows_become_0_and_1_and_strange_labels_are_counted() -> None:
    task = Task(TaskKind.MULTILABEL, "tags", ("a", "b"))
    raw = table(["b,z", "", "a"])
    assert encode_labels(raw, task).tolist() == [[0, 1], [0, 0], [1, 0]]
    assert encode_labels(raw, task).dtype == np.int8
    assert "1 labels of the test rows are not learned" in (unknown_labels(raw, task) or "")
    assert unknown_labels(table(["a", "b"]), task) is None
    with pytest.raises(DataError, match=r"No label of 'tags' is known: found 'y', 'z'; the labels are 'a', 'b'"):
        encode_labels(table(["z;y"]), task)


def test_several_labels_are_asked_for_never_guessed() -> None:
    raw = table(["a;b", "b", "a", ""] * 5)
    schema = infer_schema(raw, "tags")
    assert infer_task(raw, schema, kind="multilabel").kind is TaskKind.MULTILABEL
    assert infer_task(raw, schema).kind is TaskKind.MULTICLASS
    with pytest.raises(OptionError, match="no positive class"):
        infer_task(raw, schema, kind="multilabel", positive="a")


def test_an_empty_cell_among_lists_is_not_known_and_the_empty_list_is_no_label() -> None:
    raw = table(['["a", "b"]', "[]", None, '["b"]', " ", '["a"]'])
    done, chosen = with_labels(raw, "tags")
    assert chosen == JSON
    assert done.table["tags"].to_pylist() == ['["a", "b"]', "[]", None, '["b"]', None, '["a"]']
    assert done.notices == ["1 of 6 rows have no label; they are taken as rows to which none applies."]
    task = label_task(done, "tags", [])
    y = encode_labels(done, task)
    assert y.tolist() == [[1, 1], [0, 0], [-1, -1], [0, 1], [-1, -1], [1, 0]]
    assert known_rows(task, y).tolist() == [True, True, False, True, False, True]
    assert drop_unlabelled(done, task).table["tags"].to_pylist() == ['["a", "b"]', "[]", '["b"]', '["a"]']
    assert "2 of 6 rows have no target 'tags' (2); they are left out." in done.notices
    assert unknown_labels(done, task) is None
    with pytest.raises(DataError, match="No label of 'tags' is known: found 'z'"):
        encode_labels(table(['["z"]', None]), task)
