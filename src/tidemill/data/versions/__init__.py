"""Immutable versions of datasets: Parquet fragments named by their hash, and a hashed manifest for each version."""

from tidemill.data.versions.canonical import canonical, content_hash
from tidemill.data.versions.ledger import (
    DatasetVersion,
    find_version,
    layout_of,
    list_versions,
    load_profile,
    load_version,
    manifest_of,
    record_version,
    scan,
    write_version,
)
from tidemill.data.versions.manifest import Manifest, Part, Selection
from tidemill.data.versions.operations.select import select_version

__all__ = [
    "DatasetVersion",
    "Manifest",
    "Part",
    "Selection",
    "canonical",
    "content_hash",
    "find_version",
    "layout_of",
    "list_versions",
    "load_profile",
    "load_version",
    "manifest_of",
    "record_version",
    "scan",
    "select_version",
    "write_version",
]
