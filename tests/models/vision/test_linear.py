"""A head on frozen features: it keeps its time, and asks a backbone once for each image."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a head is fitted with torch")

from tests.models.vision.made import CLASSES, data

from tidemill.core.errors import TrialTimeoutError
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import linear
from tidemill.models.vision._net import wrap
from tidemill.models.vision.features import FeatureCache
from tidemill.models.vision.linear import frozen_key, head_on_features
from tidemill.testing.clock import Clock


class Rows(torch.nn.Module):
    """The brightness of every row, slowly by a clock where asked, and how many images it was asked for."""

    def __init__(self, seconds: float = 0.0, factor: float = 1.0, clock: Clock | None = None) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(12, 3)
        self.seconds, self.factor, self.seen = seconds, factor, 0
        self.clock = clock or Clock()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        self.clock.now += self.seconds
        return x.mean(dim=(1, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.features(x)) * self.factor


def right(net: torch.nn.Module, images: np.ndarray, y: np.ndarray) -> float:
    with torch.inference_mode():
        said = net.eval()(torch.from_numpy(images.astype(np.float32))).argmax(dim=1).numpy()
    return float((said == y).mean())


@pytest.mark.parametrize("factor", [1.0, 0.2])
def test_a_head_is_fitted_whatever_its_outputs_are_multiplied_with(factor: float) -> None:
    profile, train, valid = data(120)
    net = wrap(Rows(factor=factor), CLASSES, profile)
    head_on_features(net, train, valid, TrainBudget(), CLASSES)
    assert right(net, valid.x[valid.rows], valid.y[valid.rows]) == 1.0


def test_what_the_cache_knows_is_not_asked_again(tmp_path: Path) -> None:
    profile, train, valid = data(120)
    outputs = []
    for asked in (120, 0):
        body = Rows()
        torch.manual_seed(0)
        body.linear.reset_parameters()
        net = wrap(body, CLASSES, profile)
        cache = FeatureCache(tmp_path, frozen_key(net, "rows"))
        head_on_features(net, train, valid, TrainBudget(), CLASSES, cache)
        assert body.seen == asked
        outputs.append(net.eval()(torch.from_numpy(valid.x.astype(np.float32))).detach().numpy())
    assert np.array_equal(*outputs)


def test_the_key_names_what_features_depend_on() -> None:
    profile, _, _ = data(12)
    net = wrap(torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2), "linear": torch.nn.Linear(2, 2)}), CLASSES, profile)
    before = frozen_key(net, "a")
    with torch.no_grad():
        net.body["linear"].weight.add_(1)
    assert frozen_key(net, "a") == before, "the head says nothing of the features"
    assert frozen_key(net, "b") != before
    with torch.no_grad():
        net.body["model"].weight.add_(1)
    assert frozen_key(net, "a") != before


def test_features_keep_the_deadline_and_are_of_all_classes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(linear, "_IMAGES", 10)
    profile, train, valid = data(600)
    order = np.argsort(train.y[train.rows], kind="stable")
    train = type(train)(train.x, train.y, train.rows[order])  # class after class, as folders come
    body = Rows(seconds=0.05, clock=clock)
    net = wrap(body, CLASSES, profile)
    head_on_features(net, train, valid, TrainBudget(deadline=1.0), CLASSES)
    assert body.seen < 450
    assert right(net, valid.x[valid.rows], valid.y[valid.rows]) > 0.9


def test_too_short_a_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(linear, "_IMAGES", 2)
    profile, train, valid = data(60)
    net = wrap(Rows(seconds=0.1, clock=clock), CLASSES, profile)
    with pytest.raises(TrialTimeoutError, match=r"features of \d+ images in .* not enough"):
        head_on_features(net, train, valid, TrainBudget(deadline=0.2), CLASSES)
