"""The operations that make versions from versions, one file each."""

from tidemill.data.versions.operations.append import append
from tidemill.data.versions.operations.dedupe import drop_duplicates
from tidemill.data.versions.operations.filter import filter_version, rows_where
from tidemill.data.versions.operations.images import import_images
from tidemill.data.versions.operations.media import import_media
from tidemill.data.versions.operations.merge import Merged, merge
from tidemill.data.versions.operations.relabel import relabel, relabel_by_key
from tidemill.data.versions.operations.sample import sample
from tidemill.data.versions.operations.select import select_version
from tidemill.data.versions.operations.split import split

__all__ = [
    "Merged",
    "append",
    "drop_duplicates",
    "filter_version",
    "import_images",
    "import_media",
    "merge",
    "relabel",
    "relabel_by_key",
    "rows_where",
    "sample",
    "select_version",
    "split",
]
