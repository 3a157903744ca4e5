"""The first steps of a net that reads."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

torch = pytest.importorskip("torch", reason="the start is a training")

from tests.models.recognition.made import data  # noqa: E402

from tidemill.models.recognition import start  # noqa: E402
from tidemill.models.recognition._net import CtcLoss  # noqa: E402
from tidemill.models.recognition.augment import Distortion  # noqa: E402
from tidemill.models.recognition.nets.crnn import Crnn  # noqa: E402
from tidemill.models.recognition.nets.parts import Recogniser  # noqa: E402
from tidemill.models.recognition.samples import LineSamples  # noqa: E402
from tidemill.models.training.budget import TrainBudget  # noqa: E402
from tidemill.train import runtime  # noqa: E402
from tidemill.train.types import Recipe  # noqa: E402


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
