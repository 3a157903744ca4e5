"""What every `ArtifactStore` keeps. Subclass `ArtifactStoreSuite` and supply the fixture ``artifacts``."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.protocols import ArtifactStore

_ABSENT = "0" * 64


class ArtifactStoreSuite:
    """The laws of bytes by hash."""

    @pytest.fixture
    def artifacts(self) -> ArtifactStore:
        """Return an empty store; overridden by every implementation."""
        raise NotImplementedError("supply the fixture artifacts")

    @pytest.mark.parametrize("data", [b"", b"\0", b"weights", bytes(range(256)) * 999], ids=len)
    def test_bytes_come_back_under_their_hash(self, artifacts: ArtifactStore, data: bytes) -> None:
        key = artifacts.put(data)
        assert key == hashlib.sha256(data).hexdigest()
        assert artifacts.get(key) == data
        with artifacts.open(key) as file:
            assert file.read() == data

    def test_an_opened_artifact_can_be_read_in_parts(self, artifacts: ArtifactStore) -> None:
        key = artifacts.put(bytes(range(256)) * 1000)
        with artifacts.open(key) as file:
            file.seek(256 * 500 + 3)
            assert file.read(2) == b"\x03\x04"

    def test_the_same_bytes_are_stored_once(self, artifacts: ArtifactStore) -> None:
        assert artifacts.put(b"a") == artifacts.put(b"a")
        assert len(artifacts.keys()) == 1

    def test_keys_are_sorted_and_complete(self, artifacts: ArtifactStore) -> None:
        assert list(artifacts.keys()) == []
        put = [artifacts.put(b"%d" % i) for i in range(20)]
        assert list(artifacts.keys()) == sorted(put)

    def test_an_absent_artifact_is_not_found(self, artifacts: ArtifactStore) -> None:
        assert not artifacts.exists(_ABSENT)
        with pytest.raises(NotFoundError, match="no artifact 0000"):
            artifacts.get(_ABSENT)
        with pytest.raises(NotFoundError, match="no artifact 0000"), artifacts.open(_ABSENT):
            pass

    def test_a_deleted_artifact_is_gone_and_may_come_back(self, artifacts: ArtifactStore) -> None:
        key = artifacts.put(b"a")
        other = artifacts.put(b"b")
        assert artifacts.exists(key)
        artifacts.delete(key)
        artifacts.delete(key)
        assert not artifacts.exists(key)
        assert list(artifacts.keys()) == [other]
        assert artifacts.put(b"a") == key
        assert artifacts.get(key) == b"a"

    def test_it_is_known_when_an_artifact_was_stored(self, artifacts: ArtifactStore) -> None:
        before = time.time()
        at = artifacts.written_at(artifacts.put(b"a"))
        assert at is None or before - 60 < at < time.time() + 60
        with pytest.raises(NotFoundError, match="no artifact 0000"):
            artifacts.written_at(_ABSENT)

    @pytest.mark.parametrize("key", ["", "abc", "../" * 21 + "x", "A" * 64, "0" * 63 + "\n"])
    def test_only_a_hash_is_a_key(self, artifacts: ArtifactStore, key: str) -> None:
        for call in (artifacts.get, artifacts.open, artifacts.exists, artifacts.delete, artifacts.written_at):
            with pytest.raises(OptionError, match="64 hex digits"):
                call(key)

    def test_many_may_put_the_same_bytes_at_once(self, artifacts: ArtifactStore) -> None:
        data = bytes(100_000)
        with ThreadPoolExecutor(8) as threads:
            keys = set(threads.map(artifacts.put, [data] * 32))
        assert list(artifacts.keys()) == list(keys)
        assert artifacts.get(keys.pop()) == data
