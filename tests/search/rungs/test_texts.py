"""Rungs with encoders of texts: pauses change nothing, and a study of texts climbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.text.made import CLASSES, data, encoder, texts

import tidemill as tm
from tidemill.core.errors import OptionError
from tidemill.core.trial import TrialState

QUICK: dict[str, Any] = {"kind": "text-classification", "schedule": "rungs", "cpus": 1, "in_process": True}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    for package in ("torch", "transformers", "tokenizers", "onnxscript"):
        pytest.importorskip(package, reason="encoders need the extra `text`")
    return (str(encoder(tmp_path_factory.mktemp("weights") / "bert")),)


def table(count: int = 150) -> dict[str, list[Any]]:
    x, y = texts(count)
    return {"said": x.tolist(), "animal": ["abc"[label] for label in y]}


def test_without_an_encoder_nothing_can_pause(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="encoders alone can pause"):
        tm.fit(table(), "animal", workspace=tmp_path / "w", trials=2, **QUICK)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rank", [0, 8])
def test_an_encoder_that_paused_twice_is_the_one_that_never_did(
    weights: tuple[str, ...], tmp_path: Path, rank: int
) -> None:
    from tidemill.models.text import pool
    from tidemill.models.training.budget import TrainBudget

    profile, train, valid = data(96, weights)
    family = pool.families(["encoder"])["encoder"]
    own = {"encoder.lora": rank, "encoder.lr": 6e-4}
    config = {**pool.space(CLASSES, profile, ["encoder"]).complete({"family": "encoder", **own})}

    def fit(folder: str, *stops: int) -> np.ndarray:
        for epochs in stops:
            budget = TrainBudget(epochs=epochs, of=4, folder=str(tmp_path / folder))
            model = family.fit(config, CLASSES, profile, train, valid, budget, 3)
        return np.asarray(model.predict(valid.x[valid.rows]))

    np.testing.assert_allclose(fit("legs", 1, 2, 4), fit("whole", 4), atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_of_texts_climbs_rungs(weights: tuple[str, ...], tmp_path: Path) -> None:
    words = {**QUICK, "families": ("encoder",), "epochs": 4, "trials": 4, "weights": weights}
    with tm.fit(table(), "animal", workspace=tmp_path / "w", name="climb", **words) as study:
        trials = study.search.trials()
        assert {t.state for t in trials} <= {TrialState.PAUSED, TrialState.COMPLETE}
        assert any(t.state is TrialState.COMPLETE and "valid@4" in t.scores for t in trials)
        assert any(t.state is TrialState.PAUSED and "valid@1" in t.scores for t in trials)
        assert all(len({step for step, _ in t.curve}) == len(t.curve) for t in trials)
        epochs = sum(4 if "valid@4" in t.scores else 1 for t in trials)
        assert epochs < 4 * len(trials)
        bundle = study.best.export(tmp_path / "m.tm")
    assert bundle.evaluate(table())["accuracy"] > 0.8


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_families_that_can_t_pause_are_trained_to_the_end_at_once(weights: tuple[str, ...], tmp_path: Path) -> None:
    words = {**QUICK, "epochs": 2, "trials": 3, "weights": weights}
    with tm.fit(table(), "animal", workspace=tmp_path / "w", **words) as study:
        found = {t.family: t for t in study.search.trials()}
    assert found["ngrams"].state is TrialState.COMPLETE
    assert found["ngrams"].fidelity == 1.0
    assert found["sentence"].state is TrialState.COMPLETE
