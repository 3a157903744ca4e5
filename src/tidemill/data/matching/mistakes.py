"""What a model made of the rows, as columns that conditions can ask for: out-of-fold answers, or those in service."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.pack import unpack
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import StudyRecord, Trial, TrialState
from tidemill.data.matching._vectors import Vector, numbers_in, words_of
from tidemill.data.versions import find_version
from tidemill.store.workspace import Workspace

MISTAKES = ("_predicted", "_wrong", "_confidence", "_loss")
"""Columns: the answer, whether it is another than the label, the probability of the answer (classification), and
the loss (-log of the label's probability, or the absolute error). Rows that the model did not judge have none."""
ANSWERED = ("capture.label", "capture.value", "capture.confidence")
"""Columns that a version of captured rows has beside those that the model asks for."""
_SURE = 1e-7


def mistakes(workspace: Workspace, study: str, rows: int, source_hash: str) -> tuple[dict[str, Vector], str]:
    """Read the columns of `MISTAKES` from a study.

    Parameters
    ----------
    workspace : Workspace
        Where it is.
    study : str
        Name of the study; ``name#7`` for its trial 7, else the trial with the least loss on the rows is taken.
    rows : int
        Rows of the dataset version that the study was made on.
    source_hash : str
        Hash of the version that rows are matched from; it must be the study's.

    Returns
    -------
    columns : dict
        Vectors over all rows.
    name : str
        ``study#number`` of the trial that was taken.

    Raises
    ------
    OptionError
        Where the study was made on another version.
    NotFoundError
        For an unknown study or trial.
    """
    name, _, number = study.partition("#")
    record = workspace.metadata.get_study(name)
    _same_version(workspace, record, source_hash)
    task = Task.from_json(record.task)
    truth = unpack(workspace.artifacts.get(record.artifacts["truth"]))
    trials = [t for t in workspace.metadata.trials(name) if t.state is TrialState.COMPLETE and "oof" in t.artifacts]
    trials = _asked(trials, name, number)
    found = [(t, _judged(workspace, t, truth, task)) for t in trials]
    trial, best = min(found, key=lambda pair: (float(np.mean(pair[1]["_loss"])), pair[0].number))
    return _columns(best, rows, task), f"{name}#{trial.number}"


def _asked(trials: list[Trial], study: str, number: str) -> list[Trial]:
    if number:
        chosen = [t for t in trials if str(t.number) == number]
        if not chosen:
            raise NotFoundError.of("finished trial", f"{study}#{number}", [f"{study}#{t.number}" for t in trials])
        return chosen
    whole = [t for t in trials if t.fidelity >= 1.0] or trials
    if not whole:
        raise DataError(f"The study {study!r} has no finished trial.", hint="Wait until one is finished.")
    return whole


def _same_version(workspace: Workspace, record: StudyRecord, source_hash: str) -> None:
    if record.dataset_version == source_hash:
        return
    made_on = record.dataset_version[:12]
    with suppress(NotFoundError):
        made_on = find_version(workspace, record.dataset_version).ref
    raise OptionError(
        f"The study {record.name!r} was made on {made_on}, which is another version than {source_hash[:12]}.",
        hint=f"Match from {made_on}.",
    )


def _judged(workspace: Workspace, trial: Trial, truth: Any, task: Task) -> dict[str, NDArray[Any]]:
    tree = unpack(workspace.artifacts.get(trial.artifacts["oof"]))
    rows, scores = np.asarray(tree["rows"]), np.asarray(tree["scores"], dtype=np.float64)
    known = np.asarray(truth["rows"])
    order = np.argsort(known, kind="stable")
    at = order[np.searchsorted(known, rows, sorter=order)]
    y = np.asarray(truth["y"])[at]
    if task.kind is TaskKind.MULTILABEL:
        raise OptionError(
            "Mistakes are asked of studies with one label a row.", hint="Choose another study, or match by columns."
        )
    if not task.kind.is_classification:
        error = np.abs(scores[:, 0] - y)
        return {"rows": rows, "_predicted": scores[:, 0], "_loss": error}
    if scores.shape[1] == 1:
        scores = np.concatenate([1 - scores, scores], axis=1)
    answer = scores.argmax(axis=1)
    label = np.maximum(y.astype(np.int64), 0)
    of_label = np.clip(scores[np.arange(len(rows)), label], _SURE, 1.0)
    return {
        "rows": rows,
        "_predicted": answer,
        "_wrong": answer != y,
        "_confidence": scores.max(axis=1),
        "_loss": -np.log(of_label),
    }


def _columns(judged: dict[str, NDArray[Any]], rows: int, task: Task) -> dict[str, Vector]:
    at = judged["rows"]
    if len(at) and not 0 <= at.min() <= at.max() < rows:
        raise DataError("The study's row numbers lie outside the dataset version.")
    out: dict[str, Vector] = {}
    for name in MISTAKES:
        if name not in judged:
            continue
        if name == "_predicted" and task.kind.is_classification:
            codes = np.full(rows, -1, dtype=np.int32)
            codes[at] = judged[name]
            out[name] = Vector(str, codes, None, words_of(pa.array(list(task.classes), pa.string())).words)
        elif name == "_wrong":
            values, null = np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool)
            values[at], null[at] = judged[name], False
            out[name] = Vector(bool, values, null)
        else:
            numbers = np.full(rows, np.nan)
            numbers[at] = judged[name]
            out[name] = Vector(float, numbers)
    return out


def captured(table: pa.Table, truth: str) -> dict[str, Vector]:
    """Make the columns of `MISTAKES` for rows that were captured in service: what was answered then, and the label now.

    Rows that did not come from an endpoint have no answer. The probability of the label is known where the answer was
    right; where it was wrong, the label is given all that the answer left, which is exact for two classes.

    Parameters
    ----------
    table : pyarrow.Table
        The columns `ANSWERED` and ``truth``, as a version keeps them.
    truth : str
        The column that holds the label.
    """
    label, value, confidence = (_text(table[name]) for name in ANSWERED)
    y = _text(table[truth])
    if label.null_count == len(label) and value.null_count < len(value):
        predicted = _numbers(value)
        return {"_predicted": Vector(float, predicted), "_loss": Vector(float, np.abs(predicted - _numbers(y)))}
    unlike = pc.not_equal(label, y)
    unknown = unlike.is_null().to_numpy(zero_copy_only=False)
    wrong = unlike.fill_null(False).to_numpy(zero_copy_only=False)
    sure = _numbers(confidence)
    of_label = np.where(wrong, 1.0 - sure, sure)
    loss = np.where(unknown, np.nan, -np.log(np.clip(of_label, _SURE, 1.0)))
    return {
        "_predicted": words_of(label),
        "_wrong": Vector(bool, wrong, unknown),
        "_confidence": Vector(float, sure),
        "_loss": Vector(float, loss),
    }


def _text(column: pa.ChunkedArray) -> pa.Array:
    texts = column.cast(pa.string()).combine_chunks()
    return texts if isinstance(texts, pa.Array) else pa.concat_arrays(texts.chunks or [pa.array([], pa.string())])


def _numbers(texts: pa.Array) -> NDArray[np.float64]:
    """Read texts as numbers; NaN where there is none."""
    coded = words_of(texts)
    if coded.words is None:
        raise AssertionError("a text without words")
    return np.asarray(np.append(numbers_in(coded.words), np.nan)[coded.values])
