"""Workspaces, and small versions that are quickly made."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import create_engine, text

from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.versions import DatasetVersion, load_version, write_version
from tidemill.store.workspace import Workspace

T = SemanticType
SCHEMA = Schema((Column("key", T.CATEGORY), Column("x", T.NUMBER), Column("word", T.CATEGORY), Column("y", T.TARGET)))
Make = Callable[..., DatasetVersion]
Rows = list[tuple[Any, ...]]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace") as opened:
        yield opened


def make(workspace: Workspace, rows: Rows, name: str = "d", at: float = 1.0, **told: Any) -> DatasetVersion:
    """Write rows of key, x, word, y."""
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    kinds = [pa.string(), pa.float64(), pa.string(), pa.string()]
    table = pa.table({n: pa.array(list(c), k) for n, c, k in zip(SCHEMA.names, columns, kinds, strict=True)})
    return write_version(workspace, name, table, SCHEMA, clock=lambda: at, **told)


def rows_of(workspace: Workspace, version: DatasetVersion | str) -> Rows:
    """Read the rows of a version as tuples, in order."""
    table, _ = load_version(workspace, version if isinstance(version, str) else version.hash)
    return [tuple(row.values()) for row in table.to_pylist()]


def bag(rows: Rows) -> Rows:
    """Rows without their order."""
    return sorted(rows, key=repr)


def artifact_path(workspace: Workspace, key: str) -> Path:
    """The file of an artifact."""
    return workspace.path / "artifacts" / key[:2] / key[2:4] / key


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """Give the URL of an empty schema of the test server."""
    server = os.environ.get("TIDEMILL_TEST_POSTGRES")
    if not server:
        pytest.skip("no PostgreSQL server: TIDEMILL_TEST_POSTGRES is not set (scripts/test.sh starts one)")
    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    yield f"{server}?options=-csearch_path%3D{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
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


@pytest.fixture
def on_s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """Open a workspace whose artifacts are on S3; all that it needs stands in the environment, as for people."""
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", s3_server), ("TIDEMILL_ARTIFACT_URL", f"s3://tidemill/{uuid.uuid4().hex}"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    with Workspace.open(tmp_path / "s3") as opened:
        yield opened
