"""Facts are costly to fit: one of each kind for all tests, with little time for resampling."""

from __future__ import annotations

import pytest
from tests.report import makers

from tidemill.report.facts import ReportFacts


@pytest.fixture(scope="session")
def cancer() -> ReportFacts:
    return makers.cancer()


@pytest.fixture(scope="session")
def digits() -> ReportFacts:
    return makers.digits()


@pytest.fixture(scope="session")
def diabetes() -> ReportFacts:
    return makers.diabetes()
