"""Artifacts keep their laws in a folder, in memory and on S3."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.core.errors import DataError, MissingExtraError, OptionError, WorkspaceError
from tidemill.core.protocols import ArtifactStore
from tidemill.store.artifacts import LocalArtifactStore
from tidemill.store.fsspec_artifacts import FsspecArtifactStore
from tidemill.testing.artifact_store import ArtifactStoreSuite


class TestFolder(ArtifactStoreSuite):
    @pytest.fixture
    def artifacts(self, tmp_path: Path) -> ArtifactStore:
        return LocalArtifactStore(tmp_path / "artifacts")


class TestMemory(ArtifactStoreSuite):
    @pytest.fixture
    def artifacts(self) -> ArtifactStore:
        return FsspecArtifactStore(f"memory://{uuid.uuid4().hex}")


class TestRenamingFileSystem(ArtifactStoreSuite):
    """Stands for SFTP and its kin: what is not atomic is written aside and renamed."""

    @pytest.fixture
    def artifacts(self, tmp_path: Path) -> ArtifactStore:
        return FsspecArtifactStore(f"file://{tmp_path / 'artifacts'}")


class TestS3(ArtifactStoreSuite):
    @pytest.fixture
    def artifacts(self, s3: str) -> ArtifactStore:
        return s3_store(s3, f"s3://tidemill/{uuid.uuid4().hex}")


def s3_store(endpoint: str, url: str) -> FsspecArtifactStore:
    return FsspecArtifactStore(url, endpoint_url=endpoint, key="test", secret="test")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Give the address of an S3 server with the bucket ``tidemill``."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    client.create_bucket(Bucket="tidemill")
    client.close()
    yield endpoint
    server.stop()


def test_another_client_sees_what_is_on_s3_at_once(s3: str) -> None:
    url = f"s3://tidemill/{uuid.uuid4().hex}"
    first, second = s3_store(s3, url), s3_store(s3, url)
    assert list(second.keys()) == []
    key = first.put(b"a")
    assert second.exists(key)
    assert list(second.keys()) == [key]
    first.delete(key)
    assert not second.exists(key)
    assert list(second.keys()) == []


def test_an_absent_bucket_is_refused(s3: str) -> None:
    with pytest.raises(WorkspaceError, match="refused") as caught:
        s3_store(s3, "s3://absent-bucket/a").put(b"a")
    assert caught.value.where == "s3://absent-bucket/a"


def test_a_damaged_artifact_on_s3_is_noticed(s3: str) -> None:
    store = s3_store(s3, f"s3://tidemill/{uuid.uuid4().hex}")
    key = store.put(b"a" * 1000)
    store._fs.pipe_file(store._path(key), b"a" * 999 + b"b")
    with pytest.raises(DataError, match="damaged"):
        store.get(key)


def test_a_file_system_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match="install gcsfs"):
        FsspecArtifactStore("gs://bucket/a")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(OptionError, match="artifact URL"):
        FsspecArtifactStore("nonsense://a")


def test_files_fan_out_over_two_levels(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path)
    key = store.put(b"a")
    assert (tmp_path / key[:2] / key[2:4] / key).read_bytes() == b"a"


@pytest.mark.parametrize("damage", [b"", b"b", b"ab"])
def test_a_damaged_file_is_noticed(tmp_path: Path, damage: bytes) -> None:
    store = LocalArtifactStore(tmp_path)
    key = store.put(b"a")
    path = tmp_path / key[:2] / key[2:4] / key
    path.chmod(0o644)
    path.write_bytes(damage)
    with pytest.raises(DataError, match="damaged") as caught:
        store.get(key)
    assert caught.value.where == str(path)


FULL = """
import resource, sys
from tidemill.core.errors import WorkspaceError
from tidemill.store.artifacts import LocalArtifactStore
store = LocalArtifactStore(sys.argv[1])
store.put(b"small")
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    store.put(bytes(200_000))
except WorkspaceError as error:
    print(error)
"""


def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "disk is full: 200,000 bytes" in done.stdout
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [b"small"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 65536


def test_what_a_crash_left_yesterday_is_removed(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for name in ("old", "new"):
        (temporary / name).write_bytes(b"half")
    os.utime(temporary / "old", (0, 0))
    store = LocalArtifactStore(tmp_path)
    key = store.put(b"a")
    assert [path.name for path in temporary.iterdir()] == ["new"]
    assert list(store.keys()) == [key]
