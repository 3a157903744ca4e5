"""Servers of the engine's tests."""

from tests.deploy.engine.conftest import start  # noqa: F401  a fixture that is used here, too
