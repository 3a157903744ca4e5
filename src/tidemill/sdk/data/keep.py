"""Rows come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidemill.core.errors import OptionError
from tidemill.sdk.data.doors import Door, Place, enter, hashes
from tidemill.sdk.data.names import dataset_name


def add(
    source: Any,
    *,
    name: str | None = None,
    target: str | None = None,
    like: str | None = None,
    labels: str | Path | None = None,
    annotator: str = "",
    query: str | None = None,
    sheet: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Keep a version of a dataset; the same rows give the same version.

    Parameters
    ----------
    source : path, table or query
        Whatever `tidemill.data.ingest.read` takes; or a folder of images, recordings or documents.
    name : str, optional
        Name of the dataset; default the file's name.
    target : str, optional
        The column to predict, so that it gets its type.
    like : str, optional
        A dataset version whose meanings of columns are taken over, so that the two can be merged.
    labels : path, optional
        For such a folder: a table with the columns ``file`` and ``label``; for images also a COCO file.
    annotator : str
        Who gave the labels.
    query, sheet : str, optional
        SQL for a database; sheet of an Excel file.
    workspace : Workspace or path, optional
        Default as everywhere: ``TIDEMILL_WORKSPACE``, else ``./.tidemill``.
    actor : str, optional
        Who does it; default ``TIDEMILL_ACTOR``, else the system's user.
    """
    chosen = name or dataset_name(source)
    with enter(workspace, actor) as door:
        door.may_write(chosen)
        known = hashes(door, chosen)
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            if target is not None or like is not None:
                raise OptionError("A folder of media has its own columns; --target and --like are for tables.")
            from tidemill.data.versions.operations import import_media

            version = import_media(door.workspace, chosen, source, labels=labels, annotator=annotator)
        elif labels is not None:
            raise OptionError("Labels in a file of their own go with a folder of media.", where="--labels")
        else:
            version = _table(door, chosen, source, target, like, annotator, query, sheet)
        return door.made(version, known=version.hash in known)


def append(
    dataset: str,
    source: Any,
    *,
    name: str | None = None,
    annotator: str = "",
    query: str | None = None,
    sheet: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Add rows behind those of a version; the rows that are there are not written again.

    Parameters
    ----------
    dataset : str
        The version; a name means its newest.
    source, name, annotator, query, sheet, workspace, actor
        As in `add`; the columns are read with the meanings that they have in the dataset.
    """
    from tidemill.data.ingest import read
    from tidemill.data.versions.operations import append as run

    with enter(workspace, actor) as door:
        parent = door.version(dataset)
        door.may_read(dataset)
        door.may_write(name or parent.dataset)
        raw = read(source, query=query, sheet=sheet)
        return door.made(run(door.workspace, dataset, raw, name=name, annotator=annotator))


def _table(
    door: Door,
    name: str,
    source: Any,
    target: str | None,
    like: str | None,
    annotator: str,
    query: str | None,
    sheet: str | None,
) -> Any:
    from tidemill.data.infer import infer_schema
    from tidemill.data.ingest import read
    from tidemill.data.versions import write_version
    from tidemill.data.versions.operations.append import like as read_like

    raw = read(source, query=query, sheet=sheet)
    if like is not None:
        if target is not None:
            raise OptionError("With --like the target is that of the other dataset.", where="--target")
        door.may_read(like)
        schema = read_like(raw, door.version(like).schema)
    else:
        schema = infer_schema(raw, target)
    return write_version(door.workspace, name, raw, schema, parameters={"annotator": annotator} if annotator else {})
