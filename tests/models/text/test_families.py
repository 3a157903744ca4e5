"""What every family for texts promises."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.models.text.made import CLASSES, TWO, VALUES, data, encoder, texts

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import session
from tidemill.bundle.runner.texts.reading import answer_texts
from tidemill.core.errors import DataError, TrialError, TrialTimeoutError
from tidemill.core.pack import pack, unpack
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.text import pool
from tidemill.models.text._base import FittedText, TextData, TextProfile
from tidemill.models.training.budget import TrainBudget

NAMES = ("ngrams", "sentence", pytest.param("encoder", marks=pytest.mark.slow))
STRANGE = ["", "никогда", "x" * 5_000, "the " * 500, "\n\t", "naïve 🙂 fox"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    for package in ("torch", "transformers", "tokenizers", "onnxscript"):
        pytest.importorskip(package, reason="encoders need the extra `text`")
    return str(encoder(tmp_path_factory.mktemp("encoder") / "bert"))


@pytest.fixture
def weights(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Encoders for the families that begin from one."""
    name = request.node.callspec.params["name"]
    return () if name == "ngrams" else (request.getfixturevalue("folder"),)


def config_of(name: str, task: Task, profile: TextProfile, **more: object) -> Config:
    config = pool.space(task, profile, [name]).default()
    quick = {"encoder.lr": 6e-4, "encoder.epochs": 3.0} if name == "encoder" else {}
    return {**config, **quick, **more}


def graph_of(model: FittedText) -> Callable[[list[str]], np.ndarray]:
    """Scores of the exported graph, which takes long to write."""
    graph = GraphBuilder()
    for reader in model.readers:
        reader.declare(graph)
    graph.output(model.emit(graph, ""), "scores", np.float32, ["N", "K"])
    run = session(graph.model().SerializeToString())
    return lambda given: answer_texts(run, [reader.read for reader in model.readers], given)["scores"]


def graph_scores(model: FittedText, given: list[str]) -> np.ndarray:
    return graph_of(model)(given)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_is_kept_and_answers_the_same_as_its_graph(name: str, weights: tuple[str, ...]) -> None:
    profile, train, valid = data(150, weights)
    family = pool.families([name])[name]
    model = family.fit(config_of(name, CLASSES, profile), CLASSES, profile, train, valid, TrainBudget(), 0)
    given = valid.x[valid.rows]
    scores = model.predict(given)
    assert scores.dtype == np.float32
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert (scores.argmax(axis=1) == valid.truth).mean() >= 0.8

    kept = pool.restore(unpack(pack(model.checkpoint())), CLASSES)
    strange = np.array([*given, *STRANGE], dtype=object)
    again = kept.predict(strange)
    assert np.allclose(again[: len(given)], scores, atol=1e-6)
    assert np.isfinite(again).all()
    graph = graph_of(kept)
    assert np.abs(graph(strange.tolist()) - again).max() <= 1e-5
    assert np.abs(graph(["fox"]) - kept.predict(np.array(["fox"], dtype=object))).max() <= 1e-5

    assert model.cost.params
    assert model.cost.flops
    counted = family.cost(config_of(name, CLASSES, profile), CLASSES, profile)
    if name == "ngrams":
        assert counted.params is not None
        assert counted.params >= model.cost.params
    else:
        assert (counted.params, counted.flops) == (model.cost.params, model.cost.flops)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_learned_in_their_own_units(name: str, weights: tuple[str, ...]) -> None:
    profile, train, valid = data(150, weights)
    y = 1000.0 + 50.0 * train.y.astype(np.float64)
    train, valid = TextData(train.x, y, train.rows), TextData(valid.x, y, valid.rows)
    family = pool.families([name])[name]
    model = family.fit(config_of(name, VALUES, profile), VALUES, profile, train, valid, TrainBudget(), 0)
    got = model.predict(valid.x[valid.rows])
    assert got.shape == (len(valid), 1)
    assert np.abs(got[:, 0] - y[valid.rows]).mean() < 25
    assert np.abs(graph_scores(model, valid.texts) - got).max() <= 1e-2  # of a thousand


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_model(name: str, weights: tuple[str, ...]) -> None:
    profile, train, valid = data(60, weights)
    config = config_of(name, CLASSES, profile)
    family = pool.families([name])[name]
    models = [family.fit(config, CLASSES, profile, train, valid, TrainBudget(), 7) for _ in range(2)]
    assert np.array_equal(*(model.predict(valid.x) for model in models))


@pytest.mark.parametrize("name", NAMES)
def test_two_classes_have_two_probabilities(name: str, weights: tuple[str, ...]) -> None:
    x, y = texts(90)
    y = (y == 1).astype(np.int64)
    profile = TextProfile.of(x, weights=weights)
    family = pool.families([name])[name]
    config = config_of(name, TWO, profile)
    model = family.fit(config, TWO, profile, TextData(x, y, np.arange(90)), None, TrainBudget(), 0)
    scores = model.predict(x)
    assert scores.shape == (90, 2)
    assert (scores.argmax(axis=1) == y).mean() > 0.8
    assert np.abs(graph_scores(model, x.tolist()) - scores).max() <= 1e-5


def test_a_class_that_was_not_dealt_to_the_training_gets_next_to_nothing() -> None:
    x, y = texts(90)
    profile = TextProfile.of(x)
    rows = np.flatnonzero(y != 2)
    family = pool.families(["ngrams"])["ngrams"]
    config = config_of("ngrams", CLASSES, profile)
    scores = family.fit(config, CLASSES, profile, TextData(x, y, rows), None, TrainBudget(), 0).predict(x)
    assert scores[:, 2].max() < 1e-6
    assert (scores[rows].argmax(axis=1) == y[rows]).mean() > 0.9
    with pytest.raises(TrialError, match="have one class"):
        family.fit(config, CLASSES, profile, TextData(x, y, np.flatnonzero(y == 0)), None, TrainBudget(), 0)


def test_texts_without_a_common_piece_are_told() -> None:
    x = np.array([chr(0x4E00 + i) for i in range(20)], dtype=object)
    profile = TextProfile.of(x)
    family = pool.families(["ngrams"])["ngrams"]
    train = TextData(x, np.arange(20) % 3, np.arange(20))
    with pytest.raises(TrialError, match="stands in two texts"):
        family.fit(config_of("ngrams", CLASSES, profile), CLASSES, profile, train, None, TrainBudget(), 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["distilbert", "electra", "roberta", "modernbert", "deberta-v2", "mpnet", "albert", "lora"]
)
def test_other_encoders_and_low_rank_do_as_well(kind: str, folder: str, tmp_path: Path) -> None:
    place = folder if kind == "lora" else str(encoder(tmp_path / kind, kind))
    profile, train, valid = data(60, (place,))
    family = pool.families(["encoder"])["encoder"]
    config = config_of("encoder", CLASSES, profile, **{"encoder.epochs": 1.0, "encoder.lora": 8 * (kind == "lora")})
    model = family.fit(config, CLASSES, profile, train, valid, TrainBudget(), 0)
    assert np.abs(graph_scores(model, valid.texts) - model.predict(valid.x[valid.rows])).max() <= 1e-5


@pytest.mark.slow
def test_a_training_is_cut_to_its_time_and_says_where_there_is_none(folder: str) -> None:
    profile, train, valid = data(180, (folder,))
    family = pool.families(["encoder"])["encoder"]
    config = config_of("encoder", CLASSES, profile, **{"encoder.epochs": 5_000.0})
    begun = time.monotonic()
    family.fit(config, CLASSES, profile, train, valid, TrainBudget(deadline=begun + 15.0), 0)
    assert time.monotonic() - begun < 60
    with pytest.raises(TrialTimeoutError):
        family.fit(config, CLASSES, profile, train, valid, TrainBudget(deadline=time.monotonic()), 0)


def test_features_are_computed_once_for_all_trials(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill.models.text.nets import Body

    profile, train, valid = data(60, (folder,))
    family = pool.families(["sentence"])["sentence"]
    config = config_of("sentence", CLASSES, profile)
    budget = TrainBudget(cache=str(tmp_path / "cache"))
    before = family.fit(config, CLASSES, profile, train, valid, budget, 0).predict(valid.x[valid.rows])
    assert len(list((tmp_path / "cache").iterdir())) == 1

    def never(self: Body, tokens: object) -> None:
        raise AssertionError("the features are known")

    with monkeypatch.context() as patched:
        patched.setattr(Body, "forward", never)
        patched.setattr("tidemill.models.text._net.count", lambda *_: Cost(params=1, flops=1, size_bytes=1))
        model = family.fit(config, CLASSES, profile, train, valid, budget, 0)
        assert np.array_equal(model.predict(valid.x[valid.rows]), before)
    other = family.fit({**config, "sentence.pool": "first"}, CLASSES, profile, train, valid, budget, 0)
    assert not np.array_equal(other.predict(valid.x[valid.rows]), before)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_weights_that_don_t_fit_name_the_tensor(folder: str, tmp_path: Path) -> None:
    import json
    import shutil

    place = tmp_path / "other"
    shutil.copytree(folder, place)
    described = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**described, "vocab_size": 40}))
    profile, train, valid = data(60, (str(place),))
    family = pool.families(["sentence"])["sentence"]
    with pytest.raises(DataError, match=r"'embeddings\.word_embeddings\.weight' is \(32, 32\), not \(40, 32\)"):
        family.fit(config_of("sentence", CLASSES, profile), CLASSES, profile, train, valid, TrainBudget(), 0)
