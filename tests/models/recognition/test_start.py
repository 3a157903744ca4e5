"""The first steps of a net that reads."""

from __future__ import annotations

import time
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

torch = pytest.importorskip("torch", reason="the start is a training")

from tests.models.recognition.made import data

from tidemill.core import transcripts
from tidemill.core.errors import TrialTimeoutError
from tidemill.models.recognition import learning, start
from tidemill.models.recognition.augment import Distortion
from tidemill.models.recognition.learning import CtcLoss
from tidemill.models.recognition.nets.crnn import Crnn
from tidemill.models.recognition.nets.parts import Recogniser
from tidemill.models.recognition.samples import LineSamples
from tidemill.models.training.budget import TrainBudget
from tidemill.train import runtime
from tidemill.train.types import Recipe


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 30), st.integers(0, 10))
def test_characters_keep_their_order_and_share_the_line_evenly(text: list[int], steps: int, more: int) -> None:
    target = torch.tensor([[steps, *text, *([-1] * (12 - len(text)))]])
    found = start.evenly(target, steps + more)[0].tolist()
    assert len(found) == steps + more
    assert found[steps:] == [0] * more
    runs = [found[i * steps // len(text) : -(-(i + 1) * steps // len(text))] for i in range(len(text))]
    if len(text) <= steps:
        assert all(character in run for character, run in zip(text, runs, strict=True))
    else:
        assert all(c in text for c in found[:steps])
    if not text:
        assert found == [0] * (steps + more)


def _loss(net: Recogniser, samples: LineSamples) -> float:
    inputs, targets = samples.batch(torch.arange(len(samples)).numpy(), train=False, rng=None)  # type: ignore[arg-type]
    with torch.no_grad():
        return float(CtcLoss()(net.eval()(**inputs), targets).mean())


def test_a_training_after_it_is_sooner_past_saying_nothing() -> None:
    profile, train, _ = data(64)
    samples = LineSamples(train, profile.alphabet, Distortion())
    recipe = Recipe(lr=3e-3, batch=16, epochs=60, warmup=0.1, schedule="cosine", clip_norm=5.0)

    def net() -> Recogniser:
        torch.manual_seed(0)
        return Recogniser(Crnn(8, 0, profile.height, len(profile.alphabet) + 1), profile.mean, profile.std)

    plain, begun = net(), net()
    runtime.train(plain, CtcLoss(), samples, recipe)
    start.begin(begun, recipe, samples, TrainBudget(), 0)
    runtime.train(begun, CtcLoss(), samples, recipe)
    assert _loss(begun, samples) < 0.7 * _loss(plain, samples)


def test_it_looks_at_the_lines_with_the_shortest_texts() -> None:
    _, train, _ = data(512)
    lengths = transcripts.lengths(train.y)
    rows = start._shortest(train).rows
    assert len(rows) == 96
    assert lengths[rows].max() <= lengths[np.setdiff1d(train.rows, rows)].min()
    _, few, _ = data(40)
    assert np.array_equal(start._shortest(few).rows, few.rows)


@pytest.mark.parametrize(("error", "begun"), [(0.95, 1), (0.5, 0)])
def test_weights_that_read_nothing_begin_as_a_new_net_does(
    monkeypatch: pytest.MonkeyPatch, error: float, begun: int
) -> None:
    profile, train, _ = data(40)
    net = Recogniser(Crnn(8, 0, profile.height, len(profile.alphabet) + 1), profile.mean, profile.std)
    calls: list[object] = []
    monkeypatch.setattr(learning, "begin", lambda *given: calls.append(given))
    monkeypatch.setattr(learning, "error_rate", lambda *given: error)
    learning.fit_net(
        net, Recipe(lr=1e-3, batch=16, epochs=1), Distortion(), profile, train, None, TrainBudget(), 0, new=False
    )
    assert len(calls) == begun


@pytest.mark.parametrize(("left_s", "batch"), [(3600.0, 16), (60.0, 8)])
def test_batches_are_smaller_where_time_is_short(monkeypatch: pytest.MonkeyPatch, left_s: float, batch: int) -> None:
    profile, train, _ = data(400)
    net = Recogniser(Crnn(8, 0, profile.height, len(profile.alphabet) + 1), profile.mean, profile.std)
    samples = LineSamples(train, profile.alphabet, Distortion())
    monkeypatch.setattr(learning, "measure_step_s", lambda *given: 0.004 * given[3])
    recipe = Recipe(lr=1e-3, batch=16, epochs=5000)
    planned = learning._Course(net, samples, None, 0).planned(recipe, TrainBudget(deadline=time.monotonic() + left_s))
    assert planned.batch == batch
    assert planned.lr == pytest.approx(1e-3 * (batch / 16) ** 0.5)


def _course() -> learning._Course:
    profile, train, _ = data(400)
    net = Recogniser(Crnn(8, 0, profile.height, len(profile.alphabet) + 1), profile.mean, profile.std)
    return learning._Course(net, LineSamples(train, profile.alphabet, Distortion()), None, 0)


def test_before_time_is_called_too_short_steps_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def busy_at_first(*given: Any) -> float:
        looks.append(given[5])
        return 30.0 if len(looks) == 1 else 0.01

    monkeypatch.setattr(learning, "measure_step_s", busy_at_first)
    recipe = Recipe(lr=1e-3, batch=16, epochs=5000)
    planned = _course().planned(recipe, TrainBudget(deadline=time.monotonic() + 100.0))
    assert planned.epochs > 100
    assert looks[1] > 2 * looks[0], "longer"
    monkeypatch.setattr(learning, "measure_step_s", lambda *given: 30.0)
    with pytest.raises(TrialTimeoutError, match=r"An epoch takes [0-9.]+ s, and there were"):
        _course().planned(recipe, TrainBudget(deadline=time.monotonic() + 100.0))


def test_a_training_whose_steps_seemed_slow_is_lengthened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "measure_step_s", lambda *given: 0.3)
    begun = time.monotonic()
    budget = TrainBudget(deadline=begun + 12.0)
    net, recipe = _course().net, Recipe(lr=1e-3, batch=16, epochs=5000)
    learning.fit_net(net, recipe, Distortion(), *data(400), budget, 0, new=False)
    assert 6.0 < time.monotonic() - begun < 30.0
    assert budget.curve[-1][0] > 100, "about 50 steps were planned"
