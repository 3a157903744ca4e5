"""Servers of the engine's tests."""

from tests.deploy.engine.conftest import models, start  # noqa: F401  fixtures that are used here, too
