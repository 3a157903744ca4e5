from __future__ import annotations

import pytest
from tests.data.features.histories import plain_group

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.data.features.registry import get_group, grow, list_groups, register, update
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType, Packing, Validation
from tidemill.store.workspace import Workspace

KEY = (EntityKey("id"),)


def test_a_group_comes_back_as_it_was_registered(workspace: Workspace) -> None:
    group = FeatureGroup(
        "shop.v1",
        (EntityKey("id"), EntityKey("region", KeyType.STRING)),
        (Feature("a", DType.INT8, 3, Validation(low=0, high=9, nullable=False), "how many"), Feature("b", default=0.5)),
        event_time="at", created_time="known", owner="mia", ttl_s=60.0, freshness_s=5.0, description="shops",
        packing=Packing.FLOAT16,
    )  # fmt: skip
    register(workspace, group)
    assert get_group(workspace, "shop.v1") == group
    assert register(workspace, group) == group
    register(workspace, plain_group("a"))
    assert [g.name for g in list_groups(workspace)] == ["a", "shop.v1"]
    assert [g.name for g in list_groups(workspace, "sh")] == ["shop.v1"]


def test_another_definition_under_the_same_name_is_refused(workspace: Workspace) -> None:
    register(workspace, plain_group())
    with pytest.raises(OptionError, match=r"already, and it is defined otherwise.*grow"):
        register(workspace, plain_group(ttl_s=5))
    with pytest.raises(NotFoundError, match=r"'usr'.*'user'"):
        get_group(workspace, "usr")


def test_a_group_grows_at_its_end_and_remembers_how_wide_it_was(workspace: Workspace) -> None:
    register(workspace, plain_group())
    grown = grow(workspace, "user", [Feature("x"), Feature("score")], actor="mia")
    assert grown.feature_names == ("score", "count", "city", "level", "x")
    assert (grown.schema_version, grown.widths) == (2, (4, 5))
    assert grow(workspace, "user", [Feature("x")]) == grown == get_group(workspace, "user")
    assert grown.at_version(1).feature_names == plain_group().feature_names
    assert [f.name for f in grown.packed] == ["score", "level", "x"]
    assert grown.packed[:2] == plain_group().packed
    with pytest.raises(OptionError, match="'x' already, and it is defined otherwise"):
        grow(workspace, "user", [Feature("x", DType.INT8)])
    last = workspace.journal.read("audit")[-1]
    assert (last.kind, last.actor, last.subject) == ("feature group grown", "mia", "user")


def test_owner_and_times_change_and_nothing_else(workspace: Workspace) -> None:
    register(workspace, plain_group())
    assert update(workspace, "user", owner="ada", ttl_s=9.0).ttl_s == 9.0
    assert get_group(workspace, "user").owner == "ada"
    with pytest.raises(OptionError, match="'packing' of a feature group can't be changed"):
        update(workspace, "user", packing=Packing.INT8)


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (lambda: FeatureGroup("a b", KEY, (Feature("x"),)), "name of a feature group"),
        (lambda: FeatureGroup("../a", KEY, (Feature("x"),)), "name of a feature group"),
        (lambda: FeatureGroup("..", KEY, (Feature("x"),)), "name of a feature group"),
        (lambda: FeatureGroup("g", (), (Feature("x"),)), "at least one entity key"),
        (lambda: FeatureGroup("g", KEY, ()), "at least one feature"),
        (lambda: FeatureGroup("g", KEY, (Feature("x"), Feature("x"))), "two columns 'x'"),
        (lambda: FeatureGroup("g", KEY, (Feature("id"),)), "two columns 'id'"),
        (lambda: FeatureGroup("g", KEY, (Feature("__x"),)), "doesn't begin with '__'"),
        (lambda: FeatureGroup("g", KEY, (Feature("x"),), ttl_s=0), "`ttl_s` must be a positive"),
        (lambda: FeatureGroup("g", KEY, (Feature("x"),), freshness_s=float("inf")), "`freshness_s` must be a positive"),
        (lambda: FeatureGroup("g", KEY, (Feature("x", default="a"),)), "default 'a' is no float32"),
        (lambda: FeatureGroup("g", KEY, (Feature("x", DType.INT8, default=True),)), "default True is no int8"),
        (lambda: FeatureGroup("g", KEY, (Feature("x", DType.BOOL, default=1),)), "default 1 is no bool"),
        (lambda: FeatureGroup("g", KEY, (Feature("x"),), packing=Packing.INT8), "int8 packing needs a range"),
        (
            lambda: FeatureGroup("g", KEY, (Feature("x", validation=Validation(low=2, high=1)),)),
            "`low <= high` must hold",
        ),
        (lambda: FeatureGroup("g", KEY, (Feature("x", DType.STRING, validation=Validation(low=2)),)), "for numbers"),
    ],
)  # fmt: skip
def test_a_definition_that_contradicts_itself_is_refused(definition, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        definition()


def test_a_default_must_be_a_value_that_the_feature_can_hold() -> None:
    with pytest.raises(OptionError, match="300"):
        FeatureGroup("g", KEY, (Feature("x", DType.INT8, default=300),))
    with pytest.raises(OptionError, match="no timestamp"):
        FeatureGroup("g", KEY, (Feature("x", DType.TIMESTAMP, default="soon"),))
