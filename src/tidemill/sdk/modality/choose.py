"""Which modality a source is of; what each needs is loaded when it is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidemill.search.modality import IMAGE, modality_of

if TYPE_CHECKING:
    from tidemill.sdk.modality._base import Asked, Modality
    from tidemill.sdk.options import FitOptions
    from tidemill.store.workspace import Workspace


def modality_asked(workspace: Workspace, data: Any, target: str | None, options: FitOptions) -> tuple[Modality, Asked]:
    """Look at what a person named: a dataset version, images, or a table.

    Raises
    ------
    OptionError
        Where the actor may not read a dataset.
    DataError
        Where a dataset version is blocked.
    """
    from tidemill.data.images.source import KINDS, is_images
    from tidemill.sdk.modality._base import Asked
    from tidemill.sdk.sources import read_version

    if options.database is not None:
        return _tables(), Asked(data, target, options)
    named = read_version(data, workspace, training=True)
    if named is not None:
        asked = Asked(data, target or named.target, named.options(options, target or named.target), named)
        return (_images() if _of_images(named.version.schema) else _tables()), asked
    if options.kind in KINDS or is_images(data):
        return _images(), Asked(data, target, options)
    return _tables(), Asked(data, target, options)


def modality_kept(settings: Mapping[str, Any]) -> Modality:
    """The modality of a study that is kept, by its settings."""
    return _images() if modality_of(settings).name == IMAGE else _tables()


def _of_images(schema: Any) -> bool:
    from tidemill.sdk.images import holds_images

    return holds_images(schema)


def _tables() -> Modality:
    from tidemill.sdk.modality.tables import Tables

    return Tables()


def _images() -> Modality:
    from tidemill.sdk.modality.images import Images

    return Images()
