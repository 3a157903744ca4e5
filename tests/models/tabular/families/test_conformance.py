"""The suite for families, over all that this package has."""

from __future__ import annotations

import pytest

from tidemill.models import pool
from tidemill.models.tabular._base import Family
from tidemill.testing.family import FamilySuite, config_of, profile_of, table_of, task_of

ENTRIES = [entry for entry in pool.entries() if entry.origin == "tidemill"]


class TestFamilies(FamilySuite):
    @pytest.fixture(params=ENTRIES, ids=lambda entry: entry.name)
    def family(self, request: pytest.FixtureRequest) -> Family:
        entry: pool.Entry = request.param
        if entry.absent:
            pytest.skip(f"{entry.name} can't be used: {entry.absent}")
        return entry.load()

    def test_its_name_is_that_in_the_pool(self, family: Family) -> None:
        assert pool.families([family.name]) == {family.name: family}

    def test_the_pool_gives_the_same_defaults(self, family: Family) -> None:
        data = table_of("binary")
        config = pool.default_config(family.name, task_of("binary"), profile_of(data))
        assert config == config_of(family, task_of("binary"), data)
