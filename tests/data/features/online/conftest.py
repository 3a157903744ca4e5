"""A private Redis server for the tests of this folder."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def redis_url() -> str:
    """Give the URL of a server that only tests use, or skip; see scripts/services.sh."""
    url = os.environ.get("TIDEMILL_TEST_REDIS")
    if not url:
        pytest.skip("there is no Redis server here; run scripts/test.sh, which starts one")
    return url
