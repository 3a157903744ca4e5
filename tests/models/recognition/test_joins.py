"""Lines that are cut between their characters and joined."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from PIL import Image, ImageDraw, ImageFont

torch = pytest.importorskip("torch", reason="lines are cut by a net")

from tests.models.recognition.made import ENCODER, data, words

from tidemill.core import transcripts
from tidemill.core.errors import TrialTimeoutError
from tidemill.models.recognition import joins, learning
from tidemill.models.recognition._base import LineData, LineProfile
from tidemill.models.recognition.augment import Distortion
from tidemill.models.recognition.nets.crnn import Crnn
from tidemill.models.recognition.nets.parts import Recogniser
from tidemill.models.recognition.reading import logs_of
from tidemill.models.recognition.samples import LineSamples, numbers_of
from tidemill.models.training.budget import TrainBudget
from tidemill.train.types import Recipe

RECIPE = Recipe(lr=3e-3, batch=16, epochs=60, warmup=0.1, schedule="cosine", clip_norm=5.0)


def net_of(profile: LineProfile, seed: int = 0) -> Recogniser:
    torch.manual_seed(seed)
    return Recogniser(Crnn(8, 0, profile.height, len(profile.alphabet) + 1), profile.mean, profile.std)


def spaced(count: int) -> tuple[LineProfile, LineData, LineData]:
    """Profile, training lines and others: a digit in the middle of each sixteen pixels."""
    texts, images = words(count), []
    for text in texts:
        image = Image.new("L", (16 * len(text), 16), 255)
        for place, character in enumerate(text):
            ImageDraw.Draw(image).text((16 * place + 5, 2), character, fill=0, font=ImageFont.load_default())
        images.append(np.asarray(image)[..., None].repeat(3, axis=2))
    x, y = ENCODER.transform({"image": images}), transcripts.to_codes(texts)
    cut = count * 3 // 4
    return LineProfile.of(x, y), LineData(x, y, np.arange(cut)), LineData(x, y, np.arange(cut, count))


def ways(numbers: list[int], steps: int) -> list[tuple[int, ...]]:
    """Every way to write a text in so many steps."""
    wanted = [n for n in numbers if n > 0]
    found = []
    for way in itertools.product(range(3), repeat=steps):
        read = [w for w, _ in itertools.groupby(way) if w]
        if read == wanted:
            found.append(way)
    return found


@given(st.lists(st.integers(1, 2), min_size=2, max_size=3), st.integers(0, 2**32 - 1))
def test_cuts_lie_between_the_characters_of_the_likeliest_of_all_ways(text: list[int], seed: int) -> None:
    steps = 6
    rng = np.random.default_rng(seed)
    logs = np.log(rng.dirichlet(np.ones(3), (1, steps))).astype(np.float32)
    numbers = np.array([[*text, *([-1] * (3 - len(text)))]])
    best = max(ways(text, steps), key=lambda way: float(logs[0, np.arange(steps), way].sum(dtype=np.float64)))
    runs = [(kind, [t for t, _ in group]) for kind, group in itertools.groupby(enumerate(best), key=lambda p: p[1])]
    places = [found for kind, found in runs if kind]
    expected = [(a[-1] + 1 + b[0] + 1) // 2 for a, b in itertools.pairwise(places)]
    assert joins.between(logs, numbers)[0, : len(expected)].tolist() == expected


def test_an_end_takes_the_ground_and_the_contrast_of_its_beginning() -> None:
    rng = np.random.default_rng(0)
    first = np.where(rng.random((16, 40)) < 0.2, 60, 200).astype(np.uint8)
    second = np.where(rng.random((16, 60)) < 0.2, 40, 120).astype(np.uint8)
    out = joins.joined(first, 12, second, 20)
    assert out.shape == (16, 52)
    assert np.array_equal(out[:, :12], first[:, :12])
    assert np.median(out[:, 12:]) == 200
    assert abs(int(out[:, 12:].min()) - 60) < 15


@pytest.fixture(scope="module")
def read() -> tuple[LineProfile, LineData, LineData, Recogniser]:
    profile, train, valid = spaced(128)
    samples = LineSamples(train, profile.alphabet, Distortion())
    net = net_of(profile)
    learning._Course(net, samples, None, 0).run(RECIPE, TrainBudget(), new=True)
    return profile, train, valid, net.eval()


def test_lines_are_cut_where_characters_were_drawn(
    read: tuple[LineProfile, LineData, LineData, Recogniser],
) -> None:
    profile, train, _, net = read
    cuts = joins.cuts_of(net, LineSamples(train, profile.alphabet, Distortion()))
    assert len(cuts) > 0.5 * len(train)
    lengths = transcripts.lengths(train.y)
    for row, columns in cuts.items():
        assert len(columns) == lengths[row] - 1 > 0
        assert np.abs(columns - 16 * np.arange(1, lengths[row])).max() <= 8


def test_joined_lines_carry_the_text_that_they_show(
    read: tuple[LineProfile, LineData, LineData, Recogniser],
) -> None:
    profile, train, _, net = read
    cuts = joins.cuts_of(net, LineSamples(train, profile.alphabet, Distortion()))
    samples = joins.JoinedSamples(train, profile.alphabet, Distortion(), cuts, 1.0)
    lines, codes = samples.taken(train.rows, train=True, rng=np.random.default_rng(0))
    changed = ~transcripts.same(codes, train.y[train.rows])
    assert changed.mean() > 0.3
    numbers = numbers_of(codes, profile.alphabet)
    right = [joins._nearly_read(logs_of(net, [line]), numbers[i : i + 1])[0] for i, line in enumerate(lines)]
    assert np.mean(right) > 0.8
    whole, same = samples.taken(train.rows, train=False, rng=np.random.default_rng(0))
    assert np.array_equal(same, train.y[train.rows])
    assert all(a is train.x[row] for a, row in zip(whole, train.rows, strict=True))


def test_the_lines_themselves_stay_as_they_are(read: tuple[LineProfile, LineData, LineData, Recogniser]) -> None:
    profile, train, _, net = read
    before, texts = [line.copy() for line in train.x], train.y.copy()
    cuts = joins.cuts_of(net, LineSamples(train, profile.alphabet, Distortion()))
    joins.JoinedSamples(train, profile.alphabet, Distortion(), cuts, 1.0).batch(
        np.arange(len(train)), train=True, rng=np.random.default_rng(0)
    )
    assert np.array_equal(train.y, texts)
    assert all(np.array_equal(a, b) for a, b in zip(train.x, before, strict=True))


def test_a_net_that_does_not_read_cuts_nothing() -> None:
    profile, train, _ = data(40)
    assert joins.cuts_of(net_of(profile), LineSamples(train, profile.alphabet, Distortion())) == {}


def test_a_net_that_does_not_know_where_characters_stand_cuts_nothing(
    read: tuple[LineProfile, LineData, LineData, Recogniser], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, train, _, net = read
    found = joins.between
    monkeypatch.setattr(joins, "between", lambda logs, numbers: np.minimum(found(logs, numbers) + 2, logs.shape[1]))
    assert joins.cuts_of(net, LineSamples(train, profile.alphabet, Distortion())) == {}


def test_a_text_too_long_for_its_line_is_not_cut(read: tuple[LineProfile, LineData, LineData, Recogniser]) -> None:
    profile, train, _, net = read
    y = np.full((len(train.x), 30), transcripts.END, dtype=np.int32)
    y[:] = ord("0")
    samples = LineSamples(LineData(train.x, y, train.rows), profile.alphabet, Distortion())
    assert joins.cuts_of(net, samples) == {}


@pytest.mark.slow
def test_a_training_goes_on_with_joined_lines_and_keeps_its_better_part(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, train, valid = spaced(128)
    net, budget = net_of(profile), TrainBudget()
    seen: list[float] = []
    taken = joins.JoinedSamples.taken

    def watched(self: joins.JoinedSamples, *args: object, **named: object) -> object:
        seen.append(self.share)
        return taken(self, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(joins.JoinedSamples, "taken", watched)
    recipe = replace(RECIPE, epochs=160)
    net = learning.fit_net(net, recipe, Distortion(), profile, train, valid, budget, 0, joined=0.7)
    assert seen.count(0.7) > len(train) // RECIPE.batch
    steps = [step for step, _ in budget.curve]
    assert steps == sorted(set(steps)), "the curve goes on where the first part ended"
    checks = LineSamples(valid, profile.alphabet, Distortion())
    inputs, targets = checks.batch(np.arange(len(valid)), train=False, rng=np.random.default_rng(0))
    with torch.no_grad():
        error = -learning.FewestErrors()(net(**inputs).numpy(), targets.numpy())
    assert error == pytest.approx(min(e for _, e in budget.curve), abs=0.02)


@pytest.mark.parametrize("why", ["worse", "late"])
def test_what_the_first_part_learned_stays_where_the_second_is_no_better(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    profile, train, valid = data(40)
    net, kept = net_of(profile), {}
    budgets: list[TrainBudget] = []
    run = learning._Course.run

    def parts(course: learning._Course, recipe: Recipe, budget: TrainBudget, *, new: bool, **part: Any) -> None:
        budgets.append(budget)
        if len(budgets) == 1:
            run(course, recipe, budget, new=new, **part)
            kept.update({name: tensor.clone() for name, tensor in net.state_dict().items()})
        elif why == "late":
            raise TrialTimeoutError("There was no time for a single step.")
        else:
            with torch.no_grad():
                net.body.linear.weight.zero_()
            budget.curve.append((1, 9.0))

    monkeypatch.setattr(learning._Course, "run", parts)
    budget = TrainBudget()
    learning.fit_net(net, replace(RECIPE, epochs=12), Distortion(), profile, train, valid, budget, 0, joined=0.7)
    assert len(budgets) == 2
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())


def test_where_time_is_too_short_for_a_first_part_lines_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, train, valid = data(40)
    seen: list[tuple[LineSamples, float, bool]] = []

    def parts(course: learning._Course, recipe: Recipe, budget: TrainBudget, *, new: bool, **part: Any) -> None:
        seen.append((course.samples, recipe.epochs, new))
        if len(seen) == 1:
            raise TrialTimeoutError("An epoch takes 15.6 s, and there were 1.9 s.")

    monkeypatch.setattr(learning._Course, "run", parts)
    budget = TrainBudget(deadline=time.monotonic() + 60)
    learning.fit_net(
        net_of(profile), replace(RECIPE, epochs=12), Distortion(), profile, train, valid, budget, 0, joined=0.7
    )
    (first, early, new), (second, whole, again) = seen
    assert (early, whole) == (3, 12)
    assert type(first) is type(second) is LineSamples
    assert (new, again) == (True, False), "what was begun is gone on with"
