"""Trainings of several parts end where they are asked to, and say what share of the whole was over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="nets are trained")

from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.signals import END, Signals
from tidemill.train import runtime


def asked(tmp_path: Path) -> TrainBudget:
    (tmp_path / END).touch()
    return TrainBudget(signals=Signals(str(tmp_path), 0))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of every part."""
    whole, steps = runtime.train, []

    def watched(*given: Any, **more: Any) -> Any:
        trained = whole(*given, **more)
        steps.append(trained.step)
        return trained

    monkeypatch.setattr(runtime, "train", watched)
    return steps


def test_a_net_that_sees_halved_images_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.models.vision.made import CLASSES, data

    from tidemill.models.vision import pool

    steps = counted(monkeypatch)
    profile, train, valid = data(64, side=32)
    config = {**pool.space(CLASSES, profile, ["quicknet"]).default(), "quicknet.epochs": 400}
    assert config["quicknet.coarse"] == 0.5
    budget = asked(tmp_path)
    pool.families(["quicknet"])["quicknet"].fit(config, CLASSES, profile, train, valid, budget, 0)
    assert steps == [1, 1]
    assert budget.interrupted is not None
    assert 0.0 < budget.interrupted < 0.01


@pytest.mark.parametrize("joined", [0.0, 0.5])
def test_a_net_that_reads_and_begins_with_even_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joined: float
) -> None:
    from tests.models.recognition.made import READ, data

    from tidemill.models.recognition import pool

    steps = counted(monkeypatch)
    profile, train, valid = data(96)
    own = {"crnn.width": 8, "crnn.joined": joined, "crnn.epochs": 400}
    config = {**pool.space(READ, profile, ["crnn"]).complete({"family": "crnn", **own})}
    budget = asked(tmp_path)
    pool.families(["crnn"])["crnn"].fit(config, READ, profile, train, valid, budget, 0)
    assert steps == [1, 1], "of the start, and of the training; of two parts there is no second one"
    assert budget.interrupted is not None
    assert 0.0 < budget.interrupted < 0.01
