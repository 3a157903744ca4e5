"""The bundle of the protocol's tests."""

from tests.deploy.protocol.conftest import bundle_folder, whole_rows  # noqa: F401  fixtures that are used here, too
