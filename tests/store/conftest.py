"""Places for stores: an SQLite file, a schema of the test PostgreSQL server, a bucket of a test S3 server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'metadata.db'}"


@pytest.fixture(scope="session")
def postgres_server() -> str:
    url = os.environ.get("TIDEMILL_TEST_POSTGRES")
    if not url:
        if os.environ.get("CI"):
            pytest.fail("TIDEMILL_TEST_POSTGRES must hold a URL under CI")
        pytest.skip("no PostgreSQL server: TIDEMILL_TEST_POSTGRES is not set (scripts/test.sh starts one)")
    pytest.importorskip("psycopg")
    return url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """Give the URL of an empty schema of its own."""
    from sqlalchemy import create_engine, text

    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    yield f"{postgres_server}?options=-csearch_path%3D{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
