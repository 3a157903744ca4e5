"""Transcripts as numbers, and how far apart two of them are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import transcripts
from tidemill.core.errors import DataError, ObjectiveError, OptionError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.task import Task, TaskKind

READ = Task(TaskKind.RECOGNITION, "text")
TEXTS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=12), min_size=1, max_size=6)
FEW = st.text("abA ", max_size=7)
PAIRS = st.lists(st.tuples(FEW, FEW), min_size=1, max_size=8)


def plain_distance(a: str, b: str) -> int:
    """The dynamic program as it stands in textbooks."""
    table = [[i + j if not i or not j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            change = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, change)
    return table[-1][-1]


@given(TEXTS)
def test_texts_survive_as_numbers_also_in_the_floats_of_scores(texts: list[str]) -> None:
    codes = transcripts.to_codes(texts)
    assert transcripts.to_texts(codes) == texts
    assert transcripts.lengths(codes).tolist() == [len(t) for t in texts]
    scores = transcripts.to_scores(np.full(len(texts), 0.5), texts)
    assert scores.dtype == np.float32
    assert transcripts.to_texts(transcripts.codes_of(scores)) == texts
    assert transcripts.confidence_of(scores).tolist() == [0.5] * len(texts)


@given(PAIRS)
def test_distances_are_those_of_the_plain_program(pairs: list[tuple[str, str]]) -> None:
    a, b = (transcripts.to_codes([p[i] for p in pairs]) for i in (0, 1))
    expected = [plain_distance(*p) for p in pairs]
    assert transcripts.edit_distances(a, b).tolist() == expected
    assert transcripts.edit_distances(b, a).tolist() == expected
    assert transcripts.same(a, b).tolist() == [x == y for x, y in pairs]


@given(PAIRS.filter(lambda pairs: any(a for a, _ in pairs)))
def test_metrics_are_what_their_names_say(pairs: list[tuple[str, str]]) -> None:
    y = transcripts.to_codes([a for a, _ in pairs])
    scores = transcripts.to_scores(np.zeros(len(pairs)), [b for _, b in pairs])
    for suffix, fold in (("", str), ("_nocase", str.lower)):
        told = [(fold(a), fold(b)) for a, b in pairs]
        errors = sum(plain_distance(a, b) for a, b in told) / sum(len(a) for a, _ in told)
        assert get_metric(f"cer{suffix}")(y, scores, task=READ) == pytest.approx(errors)
        right = np.mean([a == b for a, b in told])
        assert get_metric(f"exact{suffix}")(y, scores, task=READ) == pytest.approx(right)


def test_rows_weigh_what_they_weigh() -> None:
    y, scores = transcripts.to_codes(["ab", "abcd"]), transcripts.to_scores(np.zeros(2), ["ab", "abxx"])
    weight = [1.0, 3.0]
    assert get_metric("cer")(y, scores, task=READ, weight=weight) == pytest.approx(6 / 14)
    assert get_metric("exact")(y, scores, task=READ, weight=weight) == pytest.approx(0.25)


def test_lower_case_keeps_the_number_of_characters() -> None:
    assert transcripts.to_texts(transcripts.folded(transcripts.to_codes(["ÄßİK"]))) == ["äßİk"]


def test_what_is_no_transcript_is_refused() -> None:
    y, scores = transcripts.to_codes(["a"]), transcripts.to_scores(np.zeros(1), ["b"])
    with pytest.raises(DataError, match="rows of code points"):
        get_metric("cer")(np.zeros(1), scores, task=READ)
    with pytest.raises(DataError, match="needs a character"):
        get_metric("cer")(transcripts.to_codes([""]), scores, task=READ)
    with pytest.raises(OptionError, match="does not fit a recognition"):
        get_metric("rmse")(y, scores, task=READ)
    with pytest.raises(OptionError, match="A recognition task has no classes"):
        Task(TaskKind.RECOGNITION, "text", ("a", "b"))
    assert not TaskKind.RECOGNITION.is_classification
    with pytest.raises(ObjectiveError, match="does not fit a recognition task"):
        parse_objective("maximize roc_auc").resolve(READ)
    assert parse_objective("auto").resolve(READ).metric == "cer"


def test_parts_of_any_width_stand_under_each_other() -> None:
    parts = [transcripts.to_codes(t) for t in (["abc"], ["", "z"], [])]
    assert transcripts.to_texts(transcripts.joined(parts)) == ["abc", "", "z"]
    assert transcripts.joined([]).shape == (0, 0)
