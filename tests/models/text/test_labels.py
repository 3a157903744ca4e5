"""Families for texts where several labels may stand: every output speaks for itself, also in the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.models.text.made import encoder, texts

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import session
from tidemill.bundle.texts.readers import read_all
from tidemill.core.errors import TrialTimeoutError
from tidemill.core.pack import pack, unpack
from tidemill.core.task import Task, TaskKind
from tidemill.models.text import pool
from tidemill.models.text._base import FittedText, TextData, TextProfile
from tidemill.models.training.budget import TrainBudget

TAGS = Task(TaskKind.MULTILABEL, "y", ("a", "b", "c", "never"))


def data(count: int = 160, weights: tuple[str, ...] = ()) -> tuple[TextProfile, TextData, TextData]:
    """Texts of two kinds joined, so that each has one label or two; one label never stands."""
    x, first = texts(count)
    more, second = texts(count, seed=1)
    second = np.roll(second, 1)
    more = np.roll(more, 1)
    joined = np.array([f"{a} {b}" for a, b in zip(x, more, strict=True)], dtype=object)
    y = np.zeros((count, 4), dtype=np.int8)
    y[np.arange(count), first] = y[np.arange(count), second] = 1
    y[::9] = 0
    joined[::9] = "the old and small"
    cut = count * 3 // 4
    profile = TextProfile.of(joined, weights=weights)
    return profile, TextData(joined, y, np.arange(cut)), TextData(joined, y, np.arange(cut, count))


def exported(model: FittedText, x: np.ndarray) -> np.ndarray:
    graph = GraphBuilder()
    for reader in model.readers:
        reader.declare(graph)
    graph.output(model.emit(graph, ""), "scores", np.float32, ["N", "K"])
    feed = read_all(model.readers, [str(text) for text in x])
    (got,) = session(graph.model().SerializeToString()).run(None, feed)
    return np.asarray(got)


def check(name: str, model: FittedText, valid: TextData, least: float) -> None:
    p = model.predict(valid.x[valid.rows])
    y = valid.truth > 0
    assert p.shape == y.shape
    assert p.min() >= 0
    assert p.max() <= 1
    assert ((p > 0.5) == y).mean() > least
    assert (p.sum(axis=1) > 1.2).any(), "they are no shares of one"
    assert np.abs(exported(model, valid.x[valid.rows]) - p).max() < 1e-4
    again = pool.restore(unpack(pack(model.checkpoint())), TAGS)
    assert np.allclose(again.predict(valid.x[valid.rows]), p, atol=1e-6)
    assert model.cost.params


def test_ngrams_learn_a_model_for_each_label() -> None:
    profile, train, valid = data()
    family = pool.families(["ngrams"])["ngrams"]
    config = family.space(TAGS, profile).default()
    model = family.fit(config, TAGS, profile, train, valid, TrainBudget(), 0)
    check("ngrams", model, valid, 0.9)
    assert model.predict(valid.x)[:, 3].max() < 0.05


def test_ngrams_stop_where_the_time_is_over() -> None:
    profile, train, valid = data()
    family = pool.families(["ngrams"])["ngrams"]
    config = family.space(TAGS, profile).default()
    with pytest.raises(TrialTimeoutError, match="0 of 4 labels"):
        family.fit(config, TAGS, profile, train, valid, TrainBudget(deadline=0.0), 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["sentence", "encoder"])
def test_encoders_learn_labels(name: str, tmp_path: Path) -> None:
    for package in ("torch", "transformers", "tokenizers", "onnxscript"):
        pytest.importorskip(package, reason="encoders need the extra `text`")
    profile, train, valid = data(weights=(str(encoder(tmp_path / "bert")),))
    family = pool.families([name])[name]
    config = {**family.space(TAGS, profile).default(), "family": name}
    model = family.fit(config, TAGS, profile, train, valid, TrainBudget(threads=1), 0)
    check(name, model, valid, 0.75)
