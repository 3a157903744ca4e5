from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.data.features.online._base import OnlineStore
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.online.placement import ShardedStore
from tidemill.data.features.online.redis_store import RedisStore
from tidemill.data.features.online.sqlite_store import SqliteStore
from tidemill.testing.online_store import OnlineStoreSuite


class TestLmdb(OnlineStoreSuite):
    @pytest.fixture
    def online(self, tmp_path: Path) -> Iterator[OnlineStore]:
        store = LmdbStore(tmp_path / "online", map_bytes=1 << 20)
        yield store
        store.close()


class TestSqlite(OnlineStoreSuite):
    @pytest.fixture
    def online(self, tmp_path: Path) -> Iterator[OnlineStore]:
        store = SqliteStore(tmp_path / "online.db")
        yield store
        store.close()


class TestRedis(OnlineStoreSuite):
    @pytest.fixture
    def online(self, redis_url: str) -> Iterator[OnlineStore]:
        store = RedisStore(redis_url, namespace=f"test-{uuid.uuid4().hex}")
        yield store
        store.close()


class TestSharded(OnlineStoreSuite):
    @pytest.fixture
    def online(self, tmp_path: Path) -> Iterator[OnlineStore]:
        store = ShardedStore(
            {
                "one": LmdbStore(tmp_path / "one"),
                "two": SqliteStore(tmp_path / "two.db"),
                "three": LmdbStore(tmp_path / "three"),
            }
        )
        yield store
        store.close()
