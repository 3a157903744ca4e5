"""Folders of images with labels: by sub-folder, from a CSV file, or from a COCO file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidemill.core.errors import DataError, nearest_hint
from tidemill.core.schema import Schema, SemanticType
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import RawTable, read
from tidemill.data.versions import blobs
from tidemill.data.versions.incoming import incoming
from tidemill.data.versions.ledger import DatasetVersion, write_version
from tidemill.data.versions.locks import writing
from tidemill.data.versions.manifest import BLOB
from tidemill.data.versions.operations._base import Clock
from tidemill.store.workspace import Workspace

IMAGE, FILE, LABEL, BOXES = "image", "file", "label", "boxes"
MEASURED = ("width", "height", "size_bytes")
"""Columns that are measured of the files."""


def import_images(
    workspace: Workspace,
    name: str,
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    annotator: str = "",
    clock: Clock = time.time,
) -> DatasetVersion:
    """Keep a folder of images as a dataset: a row for each image, its bytes as a blob.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    name : str
        Name of the dataset.
    folder : path
        The images, in it and in the folders below.
    labels : path, optional
        A table whose column ``file`` (or its first) names images relative to the folder, and ``label`` (or its second)
        labels them, further columns are kept; or a COCO ``.json``, whose boxes become the column ``boxes`` (JSON), with
        the category as label where an image has only one. Without it the label is the folder that an image stands in,
        if there are any.
    annotator : str
        Who gave the labels.
    clock : callable
        Gives the time.

    Returns
    -------
    DatasetVersion
        Columns ``file``, ``image`` (hash of the blob), ``width``, ``height``, and ``label`` and others.

    Raises
    ------
    DataError
        Where there are no images, one can't be read, or labels name images that aren't there.
    """
    root = Path(folder)
    files = _files(root)
    columns, types = labelled(root, files, None if labels is None else Path(labels))
    sizes = [blobs.image_size(root / f) for f in files]
    measured = {"width": pa.array([float(w) for w, _ in sizes]), "height": pa.array([float(h) for _, h in sizes])}
    return keep_files(workspace, name, root, files, IMAGE, {**measured, **columns}, types, annotator, clock)


def keep_files(
    workspace: Workspace,
    name: str,
    root: Path,
    files: list[str],
    kind: str,
    columns: Mapping[str, Any],
    types: Mapping[str, SemanticType],
    annotator: str,
    clock: Clock,
) -> DatasetVersion:
    """Keep files as blobs, each once, and a row for each: its name, its hash in the column ``kind``, and more."""
    paths = [root / f for f in files]
    keys = blobs.blob_keys(paths)
    with writing(workspace), incoming(workspace, keys):
        stored = blobs.put_blobs(workspace.artifacts, paths)
        changed = next((f for f, a, b in zip(files, keys, stored, strict=True) if a != b), None)
        if changed is not None:
            raise DataError("The file changed while it was read.", where=str(root / changed), hint="Try again.")
        table = pa.table({FILE: pa.array(files, pa.string()), kind: pa.array(keys, pa.string()), **columns})
        told = {"annotator": annotator} if annotator else {}
        raw = RawTable(table, str(root))
        return write_version(workspace, name, raw, _schema(table, kind, types), parameters=told, clock=clock)


def _files(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError("There is no such folder.", where=str(root))
    found = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in blobs.IMAGES)
    if not found:
        raise DataError(
            "The folder holds no images.", where=str(root), hint=f"Known are {', '.join(sorted(blobs.IMAGES))}."
        )
    return found


def labelled(root: Path, files: list[str], labels: Path | None) -> tuple[dict[str, Any], dict[str, SemanticType]]:
    """Give the columns that labels make, for each of the files, and what they mean."""
    if labels is None:
        folders = [Path(f).parent.as_posix() for f in files]
        if set(folders) == {"."}:
            return {}, {}
        return {LABEL: pa.array([None if f == "." else f for f in folders], pa.string())}, {}
    if labels.suffix.lower() == ".json":
        return _coco(files, labels)
    return _table(root, files, labels)


def _table(root: Path, files: list[str], labels: Path) -> tuple[dict[str, Any], dict[str, SemanticType]]:
    table = read(labels).table
    names = table.column_names
    key = FILE if FILE in names else names[0]
    rest = [n for n in names if n != key]
    if not rest:
        raise DataError("A table of labels needs a column of files and one of labels.", where=str(labels))
    given = [str(v).strip() for v in table[key].to_pylist()]
    line = _lines(given, files, labels)
    known = LABEL if LABEL in rest else rest[0]
    taken = table.take(pa.array([line.get(f) for f in files], pa.int64()))
    clash = {FILE, IMAGE, "audio", "document", *MEASURED} & set(rest)
    if clash:
        raise DataError(f"The column {min(clash)!r} is made from the files.", where=str(labels), hint="Rename it.")
    return {LABEL if n == known else n: taken[n] for n in rest}, {}


def _lines(given: list[str], files: list[str], labels: Path) -> dict[str, int]:
    line: dict[str, int] = {}
    for i, file in enumerate(given):
        if file in line:
            raise DataError(
                f"The file {file!r} stands twice, in lines {line[file] + 2} and {i + 2}.", where=str(labels)
            )
        line[file] = i
    lost = sorted(set(given) - set(files))
    if lost:
        raise DataError(
            f"{len(lost):,} labels name files that are not in the folder, the first is {lost[0]!r}.",
            where=str(labels),
            hint=nearest_hint(lost[0], files[:10000]),
        )
    return line


def _coco(files: list[str], labels: Path) -> tuple[dict[str, Any], dict[str, SemanticType]]:
    try:
        found = json.loads(labels.read_bytes())
        images = {i["id"]: str(i["file_name"]) for i in found["images"]}
        words = {c["id"]: str(c["name"]) for c in found["categories"]}
        boxes: dict[str, list[dict[str, Any]]] = {f: [] for f in files}
        _lines(list(images.values()), files, labels)
        for a in found["annotations"]:
            mark: dict[str, Any] = {"category": words[a["category_id"]]}
            if a.get("bbox"):
                mark["bbox"] = [float(v) for v in a["bbox"]]
            boxes[images[a["image_id"]]].append(mark)
    except OSError as error:
        raise DataError(f"The file can't be read: {error.strerror}.", where=str(labels)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"This is no COCO file: {error!r}.", where=str(labels)) from error
    kinds = [{b["category"] for b in boxes[f]} for f in files]
    return {
        LABEL: pa.array([next(iter(k)) if len(k) == 1 else None for k in kinds], pa.string()),
        BOXES: pa.array([json.dumps(boxes[f], sort_keys=True) for f in files], pa.string()),
    }, {BOXES: SemanticType.IGNORED}


def _schema(table: pa.Table, kind: str, types: Mapping[str, SemanticType]) -> Schema:
    given = {FILE: SemanticType.IDENTIFIER, kind: SemanticType.IGNORED, **types}
    measured = {n: SemanticType.NUMBER for n in MEASURED if n in table.column_names}
    schema = infer_schema(table, types={**given, **measured})
    if LABEL in table.column_names:
        schema = schema.with_types({LABEL: SemanticType.TARGET}, reason="given as the target")
    told = f"names a stored {kind} by its hash" if kind != "audio" else "names a stored recording by its hash"
    return Schema(tuple(replace(c, unit=f"{BLOB}{kind}", reason=told) if c.name == kind else c for c in schema))
