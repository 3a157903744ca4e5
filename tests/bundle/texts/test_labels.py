"""Bundles that give several labels: thresholds and names stand in the graph, and every door writes the same."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bundle.texts.made import COLUMN, SAID, SCHEMA, objects, recipe

from tidemill.bundle.assemble import LABEL, PROBABILITIES, _joined_labels
from tidemill.bundle.evidence import Evidence
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import session
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.texts.write import write_text_bundle
from tidemill.bundle.verify import verify
from tidemill.core.decision import Decision, codes_of, labels_of
from tidemill.core.errors import BundleError, ParityError
from tidemill.core.task import Task, TaskKind

BARS = (0.19, 0.3, 0.4, 0.1, 0.9)
TAGS = Task(TaskKind.MULTILABEL, "mood", ("calm", "glad, or so", "loud", 'odd "one"', "sad"))


def made() -> Recipe:
    return replace(recipe(TAGS), decision=Decision.by_thresholds(BARS))


def write(out: Path) -> Bundle:
    said = objects(SAID)
    answers = made().predict({COLUMN: said})
    evidence = [Evidence("out_of_fold", answers.codes[::-1].copy(), answers.scores)]
    return write_text_bundle(out, made(), tables={"validation": said}, evidence=evidence)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(tmp_path_factory.mktemp("labels") / "mood.tm")


def test_labels_are_those_above_their_thresholds(bundle: Bundle) -> None:
    columns = {COLUMN: objects(SAID)}
    p = bundle.predict_proba(columns)
    codes = (p > np.float32(BARS)).astype(int)
    assert {row.sum() for row in codes} - {0, 1}, "some text has several labels"
    assert bundle.predict(columns).tolist() == [
        [label for label, yes in zip(TAGS.classes, row, strict=True) if yes] for row in codes
    ]
    outputs = bundle.answer(columns)
    assert outputs[LABEL].tolist() == labels_of(TAGS, codes).tolist()
    assert np.array_equal(codes_of(TAGS, outputs[LABEL]), codes)
    assert np.abs(made().predict(columns).scores - outputs[PROBABILITIES]).max() < 1e-6


def test_it_is_whole_and_opens_again(bundle: Bundle) -> None:
    assert verify(bundle.path) == []
    opened = Bundle.open(bundle.path)
    assert opened.spec.decision.thresholds == BARS
    assert {m.name for m in opened.spec.metrics} >= {"f1_micro", "subset_accuracy", "log_loss", "lrap"}
    card = (bundle.path / "README.md").read_text()
    assert "any of `calm`" in card
    assert "| f1_micro |" in card
    assert "its own threshold: `calm` 0.19" in card
    nothing = {COLUMN: objects([])}
    assert opened.predict_columns(nothing).shape == (0,)
    assert opened.answer(nothing)[PROBABILITIES].shape == (0, 5)


def test_run_py_and_tidemill_write_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[COLUMN], *([text] for text in SAID)])
    bundle.to_csv(tmp_path / "in.csv", tmp_path / "ours.csv")
    command = [sys.executable, str(bundle.path / "run.py"), str(tmp_path / "in.csv"), str(tmp_path / "theirs.csv")]
    subprocess.run(command, check=True)
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()
    with (tmp_path / "ours.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["prediction", *(f"proba_{label}" for label in TAGS.classes)]
    assert [r["prediction"] for r in rows] == bundle.answer({COLUMN: objects(SAID)})[LABEL].tolist()
    assert bundle.predict_records({COLUMN: SAID[:1]})[0]["prediction"] == bundle.predict({COLUMN: objects(SAID)})[0]


def test_it_is_judged_on_cells_as_they_stand(bundle: Bundle) -> None:
    columns = {COLUMN: objects(SAID)}
    truth = bundle.answer(columns)[LABEL].tolist()
    values = bundle.evaluate({COLUMN: SAID, "mood": truth})
    assert values["subset_accuracy"] == 1.0
    assert values["hamming_loss"] == 0.0
    flags = codes_of(TAGS, truth)
    several = {COLUMN: SAID, **{label: flags[:, k].tolist() for k, label in enumerate(TAGS.classes)}}
    with pytest.raises(BaseException, match="target column"):  # one column was trained on, and these have other names
        bundle.evaluate(several)


def test_a_graph_that_gives_other_labels_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recipe, "decide", lambda self, scores: (scores > self.bars() - 0.15).astype(np.int64))
    with pytest.raises(ParityError, match="calm"):
        write(tmp_path / "wrong.tm")
    assert not (tmp_path / "wrong.tm").exists()


def test_openvino_says_that_it_can_t_join_texts(bundle: Bundle) -> None:
    import onnx

    from tidemill.bundle.exporters.openvino import without_texts

    with pytest.raises(BundleError, match="The label is not looked up"):
        without_texts(onnx.load_model(str(bundle.model_path)))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(0, 1000))
def test_any_number_of_labels_is_joined_as_python_joins_it(labels: int, seed: int) -> None:
    task = Task(TaskKind.MULTILABEL, "mood", tuple(f"ü{k}" for k in range(labels)))
    rng = np.random.default_rng(seed)
    some = Recipe(
        task=task, schema=SCHEMA, encoder=made().encoder, members=made().members,
        decision=Decision.by_thresholds(rng.random(labels).round(1)),
    )  # fmt: skip
    graph = GraphBuilder()
    inlet = graph.input("p", np.float32, ["N", labels])
    graph.output(_joined_labels(graph, some, inlet), LABEL, str, ["N"])
    p = rng.random((7, labels)).astype(np.float32).round(1)
    (got,) = session(graph.model().SerializeToString()).run(None, {"p": p})
    assert got.tolist() == labels_of(task, some.decide(p)).tolist()
