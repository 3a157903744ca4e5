"""Folders of media with labels: images, recordings, documents; a row for each file, its bytes as a blob."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pyarrow as pa

from tidemill.core.errors import DataError
from tidemill.data.versions import blobs
from tidemill.data.versions.ledger import DatasetVersion
from tidemill.data.versions.operations._base import Clock
from tidemill.data.versions.operations.images import import_images, keep_files, labelled
from tidemill.store.workspace import Workspace

KINDS = {"image": blobs.IMAGES, "audio": blobs.AUDIO, "document": blobs.DOCUMENTS}
"""Kinds of media, which are also the names of their columns, and the endings by which they are told."""
_STRAY = 0.1
"""Share of files of other kinds that is left out, such as a page about the images."""


def import_media(
    workspace: Workspace,
    name: str,
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    annotator: str = "",
    clock: Clock = time.time,
) -> DatasetVersion:
    """Keep a folder of media as a dataset of one kind: what most of its files are.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    name : str
        Name of the dataset.
    folder : path
        Images, recordings (audio) or documents, in it and in the folders below; other files are left out.
    labels : path, optional
        As for `import_images`; COCO is for images.
    annotator : str
        Who gave the labels.
    clock : callable
        Gives the time.

    Returns
    -------
    DatasetVersion
        Columns ``file``; ``image``, ``audio`` or ``document`` (hash of the blob); for images ``width`` and ``height``,
        else ``size_bytes``; and ``label`` and others.

    Raises
    ------
    DataError
        Where there are none, or of several kinds, one can't be read, or labels name files that aren't there.
    """
    root = Path(folder)
    kind, files = _found(root)
    if kind == "image":
        return import_images(workspace, name, root, labels=labels, annotator=annotator, clock=clock)
    if labels is not None and Path(labels).suffix.lower() == ".json":
        raise DataError("Boxes of COCO are for images.", where=str(labels), hint="Give a table with file and label.")
    columns, types = labelled(root, files, None if labels is None else Path(labels))
    sizes = pa.array([float((root / f).stat().st_size) for f in files])
    return keep_files(workspace, name, root, files, kind, {"size_bytes": sizes, **columns}, types, annotator, clock)


def _found(root: Path) -> tuple[str, list[str]]:
    """Say what the files of a folder are, and name them in order."""
    if not root.is_dir():
        raise DataError("There is no such folder.", where=str(root))
    kinds = {ending: kind for kind, endings in KINDS.items() for ending in endings}
    found = {p.relative_to(root).as_posix(): kinds.get(p.suffix.lower()) for p in root.rglob("*") if p.is_file()}
    counts = Counter(kind for kind in found.values() if kind is not None)
    if not counts:
        known = ", ".join(sorted(kinds))
        raise DataError(
            "The folder holds no images, recordings or documents.", where=str(root), hint=f"Known: {known}."
        )
    (kind, most), *others = counts.most_common()
    if sum(count for _, count in others) > _STRAY * most:
        said = " and ".join(f"{count:,} of the kind {name!r}" for name, count in counts.most_common())
        raise DataError(f"The folder holds {said}.", where=str(root), hint="Put each kind into a folder of its own.")
    return kind, sorted(file for file, of in found.items() if of == kind)
