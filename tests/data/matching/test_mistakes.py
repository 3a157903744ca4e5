"""Rows can be asked for by what a model made of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError, PredicateError
from tidemill.core.pack import pack
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import StudyRecord, Trial, TrialState
from tidemill.data.matching import match
from tidemill.data.versions import write_version
from tidemill.data.versions.operations import relabel

LABELS = ["no", "yes", "no", "yes", "no", "yes"]
X = [1.5, 2.5, 3.25, 4.5, 5.5, 6.25]
GOOD = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55], [0.05, 0.95]]
"""Probabilities of "no" and "yes" on the rows 0 to 4; the row 4 is wrong, and confidently so."""
BAD = [[0.1, 0.9]] * 5


def _study(workspace, version, task, y, trials, name="s"):
    put = workspace.artifacts.put
    workspace.metadata.create_study(
        StudyRecord(
            name, task.to_json(), "auc", [], {}, version.hash, {}, "complete", 0.0,
            {"truth": put(pack({"y": np.asarray(y), "rows": np.arange(len(y))}))},
        )
    )  # fmt: skip
    for number, scores in enumerate(trials):
        rows = np.arange(len(scores))
        oof = put(pack({"rows": rows, "scores": np.asarray(scores, dtype=np.float32).reshape(len(rows), -1)}))
        workspace.metadata.put_trial(
            Trial(name, number, {}, TrialState.COMPLETE, "linear", artifacts={"oof": oof}, folds=5)
        )


@pytest.fixture
def version(workspace, write):
    found = write(pa.table({"x": X, "label": LABELS}), "small")
    _study(
        workspace, found, Task(TaskKind.BINARY, "label", ("no", "yes")), [int(v == "yes") for v in LABELS], [BAD, GOOD]
    )
    return found


def test_wrong_and_confident_rows_are_those_of_the_best_trial(workspace, version):
    assert match(workspace, "small", "_wrong", model="s").rows.tolist() == [4]
    found = match(workspace, "small", "_wrong and _confidence > 0.9", model="s")
    assert found.rows.tolist() == [4]
    assert found.question["model"] == "s#1"
    assert match(workspace, "small", "_predicted = 'yes'", model="s").rows.tolist() == [1, 3, 4]
    assert match(workspace, "small", "_confidence < 0.7", model="s").rows.tolist() == [2, 3]
    assert match(workspace, "small", "_loss > 2", model="s").rows.tolist() == [4]


def test_a_trial_can_be_named(workspace, version):
    assert match(workspace, "small", "_wrong", model="s#0").rows.tolist() == [0, 2, 4]


def test_rows_that_were_not_judged_are_unknown(workspace, version):
    assert match(workspace, "small", "_wrong is null and _loss is null and _predicted is null", model="s").rows[0] == 5
    assert 5 not in match(workspace, "small", "not _wrong", model="s").rows


def test_errors_of_a_regression_are_absolute(workspace, write):
    found = write(pa.table({"x": X, "y": [1.0, 2.0, 3.5, 4.0, 5.0, 6.0]}), "values", "y")
    _study(
        workspace,
        found,
        Task(TaskKind.REGRESSION, "y"),
        [1.0, 2.0, 3.5, 4.0, 5.0, 6.0],
        [[1.0, 4.0, 3.0, 4.0, 5.0]],
        "r",
    )
    assert match(workspace, "values", "_loss > 0.4", model="r").rows.tolist() == [1, 2]
    assert match(workspace, "values", "_predicted = 4", model="r").rows.tolist() == [1, 3]


def test_bad_questions_are_told(workspace, write, version):
    with pytest.raises(NotFoundError, match="s#0"):
        match(workspace, "small", model="s#7")
    with pytest.raises(NotFoundError):
        match(workspace, "small", model="nothing")
    other = write(pa.table({"x": [9.5, *X[1:]], "label": LABELS}), "small")
    with pytest.raises(OptionError, match="another version"):
        match(workspace, other.ref, model="s")
    _study(workspace, version, Task(TaskKind.BINARY, "label", ("no", "yes")), [0, 1], [], "empty")
    with pytest.raises(DataError, match="no finished trial"):
        match(workspace, version.ref, model="empty")


def _cases(workspace, truth, answers, values, confidences):
    """Rows as the watch keeps them: inputs, the truth where it came, and what was answered."""
    kinds = {"x": SemanticType.NUMBER, "y": SemanticType.TARGET}
    told = {"capture.label": answers, "capture.value": values, "capture.confidence": confidences}
    schema = Schema(tuple(Column(n, kinds.get(n, SemanticType.IGNORED)) for n in ("x", "y", *told)))
    table = pa.table({"x": [float(i) for i in range(len(truth))], "y": truth, **told})
    return write_version(workspace, "cases", table, schema, operation="capture")


def test_rows_that_were_captured_in_service_can_be_asked_for_by_what_was_answered(workspace):
    numbers = pa.array([None] * 4, pa.float64())
    _cases(workspace, ["no", "yes", None, "yes"], ["no", "no", "yes", "yes"], numbers, [0.9, 0.8, 0.7, None])
    assert match(workspace, "cases", "_wrong").rows.tolist() == [1]
    assert match(workspace, "cases", "_wrong is null").rows.tolist() == [2]
    assert match(workspace, "cases", "_predicted = 'yes' and _confidence > 0.5").rows.tolist() == [2]
    assert match(workspace, "cases", f"_loss between {-np.log(0.21)} and {-np.log(0.19)}").rows.tolist() == [1]
    assert match(workspace, "cases", "_loss is null").rows.tolist() == [2, 3]
    corrected = relabel(workspace, "cases", np.array([0, 2]), ["yes", "yes"], annotator="mia")
    assert match(workspace, corrected.ref, "_wrong").rows.tolist() == [0, 1]


def test_answers_of_a_regression_in_service_miss_by_a_distance(workspace):
    words = pa.array([None] * 3, pa.string())
    _cases(workspace, [1.0, 2.5, None], words, [1.5, 2.5, 9.0], pa.array([None] * 3, pa.float64()))
    assert match(workspace, "cases", "_loss > 0.4").rows.tolist() == [0]
    assert match(workspace, "cases", "_predicted > 2 and _loss is null").rows.tolist() == [2]
    with pytest.raises(PredicateError, match="_wrong"):
        match(workspace, "cases", "_wrong")
