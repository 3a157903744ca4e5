"""Our front keeps the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deploy.engine.conftest import Running

from tidemill.bundle.runtime import Bundle
from tidemill.core.schema import Columns
from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.server import Server
from tidemill.deploy.engine.sources import StaticSource
from tidemill.testing.inference_protocol import InferenceProtocolSuite, ServedBundle


@pytest.fixture(scope="module")
def served(bundle_folder: Path, whole_rows: Columns) -> Iterator[ServedBundle]:
    source = StaticSource({"m": read_facts(bundle_folder)})
    running = Running(Server(source, limits=Limits(), port=0, measure=False)).wait_ready()
    yield ServedBundle(running.server.url, "m", Bundle.open(bundle_folder), whole_rows, binary=True)
    running.stop()


class TestOurs(InferenceProtocolSuite):
    """Every law of the suite."""
