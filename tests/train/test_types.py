"""Recipes, placements and points as values."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.train.types import OPTIMIZERS, SCHEDULES, Placement, Point, Recipe


@given(
    optimizer=st.sampled_from(OPTIMIZERS),
    lr=st.floats(1e-8, 10),
    batch=st.integers(1, 10**6),
    schedule=st.sampled_from(SCHEDULES),
    ema=st.none() | st.floats(0.01, 0.999),
    scales=st.dictionaries(st.text(max_size=5), st.floats(0, 10)),
)
def test_a_recipe_survives_json(optimizer, lr, batch, schedule, ema, scales) -> None:
    recipe = Recipe(optimizer=optimizer, lr=lr, batch=batch, schedule=schedule, ema=ema, lr_scales=scales)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_all_that_is_wrong_with_a_recipe_is_said_at_once() -> None:
    with pytest.raises(OptionError, match=r"lr must be positive.*batch must be at least 1.*warmup is a share"):
        Recipe(lr=math.nan, batch=0, warmup=2)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(NotFoundError, match="or 'adamw'"):
        Recipe(optimizer="adamv")
    with pytest.raises(NotFoundError, match="Did you mean 'epochs'"):
        Recipe.from_json({"epoch": 3})


def test_a_placement_needs_processes() -> None:
    with pytest.raises(OptionError, match="at least 1"):
        Placement(replicas=0)
    with pytest.raises(NotFoundError, match="way to recompute"):
        Placement(recompute="all")


def test_a_point_is_judged_by_score_then_loss_then_step() -> None:
    point = Point(step=5, epoch=1, seconds=0, lr=0.1, train_loss=2.0)
    assert point.merit == 5
    assert Point(5, 1, 0, 0.1, 2.0, loss=0.5).merit == -0.5
    assert Point(5, 1, 0, 0.1, 2.0, loss=0.5, score=0.9).merit == 0.9
