from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tidemill.core.errors import NotFoundError, SpaceError
from tidemill.core.space import Categorical, Space, When
from tidemill.core.task import Task, TaskKind
from tidemill.models import pool
from tidemill.models.tabular._base import Feature, FeatureKind, TableProfile

BINARY = Task(TaskKind.BINARY, "y", ("no", "yes"))
PROFILE = TableProfile(
    1000,
    (
        Feature("age", "age", FeatureKind.NUMBER),
        Feature("city", "city", FeatureKind.CATEGORY, 30),
        Feature("job", "job", FeatureKind.CATEGORY, 12),
    ),
)


def test_every_built_in_family_has_the_name_it_is_listed_under() -> None:
    found = pool.families()
    assert [f.name for f in found.values()] == list(found)
    assert {"lightgbm", "xgboost", "forest", "linear"} <= set(found)


def test_a_family_whose_package_is_absent_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "catboost" else real(name))
    assert "catboost" not in pool.families()
    line = next(line for line in pool.listing().splitlines() if line.startswith("catboost"))
    assert "pip install 'tidemill[catboost]'" in line
    with pytest.raises(NotFoundError, match="'catboost' is not installed"):
        pool.families(["catboost"])


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Let a package outside register a family."""

    def add(name: str, place: str) -> None:
        point = importlib.metadata.EntryPoint(name, place, pool.GROUP)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
        pool._outside.cache_clear()

    yield add
    pool._outside.cache_clear()


def test_a_registration_that_leads_nowhere_is_listed_with_its_reason(register: Callable[[str, str], None]) -> None:
    register("lost", "no_such_package.family:FAMILY")
    assert "lost" not in pool.families()
    assert "has no module 'no_such_package.family'" in pool.listing()


def test_an_unknown_family_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'lightgbm'"):
        pool.families(["lightgmb"])


class _Mine:
    name = "mine"
    bagged = True

    def supports(self, task: Task, profile: TableProfile) -> bool:
        return task.kind is TaskKind.BINARY

    def space(self, task: Task, profile: TableProfile) -> Space:
        return Space([Categorical("mine.a", (1, 2), 1), Categorical("mine.b", (1,), 1, (When("mine.a", (2,)),))])

    def treatment(self, task: Task, profile: TableProfile) -> dict[str, tuple[Any, ...]]:
        return {"treatment.missing": ("impute",)}


MINE = _Mine()


def test_packages_outside_add_families_by_entry_point(register: Callable[[str, str], None]) -> None:
    register("mine", f"{__name__}:MINE")
    assert pool.families(["mine"]) == {"mine": MINE}
    space = pool.space(BINARY, PROFILE, ["mine"])
    assert space.default() == {"family": "mine", "mine.treatment.missing": "impute", "mine.a": 1}
    assert [p.when for p in space][-1] == (When("family", ("mine",)), When("mine.a", (2,)))
    with pytest.raises(SpaceError, match="No family can learn regression from 1000 rows and 3 columns"):
        pool.space(Task(TaskKind.REGRESSION, "y"), PROFILE, ["mine"])


@pytest.mark.parametrize("kind", [k for k in TaskKind if k is not TaskKind.RECOGNITION])
def test_the_joined_space_is_conditional_on_the_family(kind: TaskKind) -> None:
    task = Task(
        kind, "y", () if kind is TaskKind.REGRESSION else ("a", "b", "c")[: 2 if kind is TaskKind.BINARY else 3]
    )
    space = pool.space(task, PROFILE)
    assert Space.from_json(space.to_json()) == space
    rng = np.random.default_rng(0)
    for _ in range(50):
        config = space.sample(rng)
        space.check(config)
        assert all(key == "family" or key.startswith(f"{config['family']}.") for key in config)


@pytest.mark.parametrize("family", [e.name for e in pool.entries() if not e.absent])
def test_default_configs_carry_their_treatment(family: str) -> None:
    config = pool.default_config(family, BINARY, PROFILE)
    assert config["family"] == family
    assert f"{family}.treatment.category" in config
    pool.space(BINARY, PROFILE).check(config)
