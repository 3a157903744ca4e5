"""Spaces round-trip, and what they draw or complete lies within them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import SpaceError
from tidemill.core.space import Categorical, Float, Int, Space, When, config_key

VALUE = st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=3), st.floats(-5, 5).map(lambda v: round(v, 2) + 0.5))


@st.composite
def params(draw, name, earlier):
    when = ()
    choosers = [p for p in earlier if isinstance(p, Categorical)]
    if choosers and draw(st.booleans()):
        chooser = draw(st.sampled_from(choosers))
        values = draw(st.lists(st.sampled_from(chooser.choices), min_size=1, unique=True))
        when = (When(chooser.name, tuple(values)),)
    kind = draw(st.sampled_from(["float", "int", "categorical"]))
    if kind == "categorical":
        choices = tuple(draw(st.lists(VALUE, min_size=1, max_size=4, unique=True)))
        return Categorical(name, choices, draw(st.sampled_from(choices)), when)
    log = draw(st.booleans())
    number = st.integers(1 if log else -1000, 1000)
    if kind == "int":
        low, default, high = sorted(draw(st.tuples(number, number, number)))
        return Int(name, low, high, default, log, when)
    real = st.floats(1e-6 if log else -1e6, 1e6)
    low, default, high = sorted(draw(st.tuples(real, real, real)))
    return Float(name, low, high, default, log, when)


@st.composite
def spaces(draw):
    out = []
    for i in range(draw(st.integers(0, 6))):
        out.append(draw(params(f"p{i}", tuple(out))))
    return Space(out)


@given(spaces())
def test_json_and_back(space):
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert hash(again) == hash(space)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_what_is_drawn_lies_within(space, seed):
    config = space.sample(np.random.default_rng(seed))
    space.check(config)
    assert config == space.sample(np.random.default_rng(seed))
    again = json.loads(json.dumps(config))
    space.check(again)
    assert config_key(again) == config_key(config)


@given(spaces())
def test_defaults_lie_within(space):
    space.check(space.default())


@given(spaces(), st.integers(0, 99), st.data())
def test_completing_keeps_what_is_given_and_lies_within(space, seed, data):
    config = space.sample(np.random.default_rng(seed))
    assert space.complete(config) == config
    kept = data.draw(st.sets(st.sampled_from(sorted(config)))) if config else set()
    partial = {k: config[k] for k in kept}
    full = space.complete(partial)
    space.check(full)
    assert all(full[k] == v for k, v in partial.items() if k in full)


@given(spaces(), st.integers(0, 99))
def test_check_names_all_that_is_wrong(space, seed):
    config = space.sample(np.random.default_rng(seed))
    wrong = {**config, "strange": 1}
    for name in config:
        wrong[name] = object()
    with pytest.raises(SpaceError) as caught:
        space.check(wrong)
    assert "'strange' is not a parameter" in caught.value.message
    first = space.params[0].name if space.params else "strange"
    assert repr(first) in caught.value.message


def test_conditions_follow_each_other():
    space = Space(
        [
            Categorical("family", ("linear", "forest"), "forest"),
            Categorical("forest.sample", (True, False), True, when=(When("family", ("forest",)),)),
            Float("forest.share", 0.1, 1.0, 0.5, when=(When("forest.sample", (True,)),)),
        ]
    )
    assert space.default() == {"family": "forest", "forest.sample": True, "forest.share": 0.5}
    assert space.default(family="linear") == {"family": "linear"}
    assert space.default(forest__sample=False) == {"family": "forest", "forest.sample": False}
    assert space.complete({"family": "linear", "forest.share": 0.2}) == {"family": "linear"}
    with pytest.raises(SpaceError, match=r"'forest\.share' is given, but not active"):
        space.check({"family": "linear", "forest.share": 0.2})
    with pytest.raises(SpaceError, match="Did you mean 'family'"):
        space.default(famly="linear")


def test_a_logarithmic_range_is_drawn_on_its_scale():
    rng = np.random.default_rng(0)
    real, whole = Float("r", 1e-4, 1.0, 0.1, log=True), Int("w", 1, 10_000, 10, log=True)
    assert np.median([real.sample(rng) for _ in range(2000)]) == pytest.approx(1e-2, rel=0.3)
    assert np.median([whole.sample(rng) for _ in range(2000)]) == pytest.approx(100, rel=0.3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Float("a", 3, 1, 2), r"`low <= high` must hold for 'a', but got \(low=3, high=1\)"),
        (lambda: Float("a", 0, float("inf"), 1), "must hold"),
        (lambda: Float("a", 0.0, 1.0, 0.5, log=True), "must be positive"),
        (lambda: Float("a", 0.0, 1.0, 2.0), r"default 2.0 of 'a' is outside \[0.0, 1.0\]"),
        (lambda: Int("a", 1, 5, 7), r"default 7 of 'a' is outside the whole numbers 1\.\.5"),
        (lambda: Int("a", 1, 5.5, 2), "must be whole"),
        (lambda: Categorical("a", (), 1), "not empty"),
        (lambda: Categorical("a", ("x", "x"), "x"), "distinct"),
        (lambda: Categorical("a", ("x", "y"), "z"), r"default 'z' of 'a' is outside 'x' \| 'y'"),
        (lambda: Categorical("a", (1, 2), True), "outside 1"),
        (lambda: Space([Int("a", 1, 2, 1), Int("a", 1, 2, 1)]), "stands twice"),
        (lambda: Space([Int("a", 1, 2, 1, when=(When("b", (1,)),))]), "must stand before it"),
        (lambda: Space.from_json([{"type": "complex", "name": "a"}]), "'complex' is not a type"),
    ],
)
def test_a_contradiction_is_refused(make, words):
    with pytest.raises(SpaceError, match=words):
        make()


def test_spaces_add_up():
    a, b = Space([Int("a", 1, 2, 1)]), Space([Float("b", 0, 1, 0.5)])
    assert [p.name for p in a + b] == ["a", "b"]
    assert len(a + b) == 2
    with pytest.raises(SpaceError, match="stands twice"):
        a + a
