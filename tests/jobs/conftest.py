"""Readable failures for the laws that stand in the package."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tidemill.testing.executor")
