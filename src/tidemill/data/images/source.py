"""What a person names when it is about images: a folder, an archive, or a table of file names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, nearest_hint
from tidemill.data import vector
from tidemill.data.images.files import Files, FolderFiles, ZipFiles
from tidemill.data.images.named import LOOKED_AT, file_column, file_name, names_images
from tidemill.data.images.pictures import ArrayPictures, FilePictures, Pictures
from tidemill.data.ingest import RawTable, read
from tidemill.data.versions.blobs import IMAGES

FILE, LABEL = "file", "label"
"""Columns of a table that is made from a folder: where an image lies, and the class folder that it stands in."""
KINDS = ("image-classification", "image-regression", "image-multilabel")
"""Values of ``--kind`` that say that it is about images."""
RECOGNITION = "text-recognition"
"""The value of ``--kind`` that says that lines of text are read from images."""
_TABLES = frozenset({".csv", ".tsv", ".txt", ".tab", ".parquet", ".arrow", ".feather", ".jsonl", ".ndjson", ".xlsx"})
_ENDING = re.compile(r"\.(png|jpe?g|gif|bmp|webp|tiff?|ppm|pgm)[\"']?\s*(?=[,;\t|]|$)", re.IGNORECASE | re.MULTILINE)
_HEAD_BYTES = 1 << 15
_NAMED = 5
"""So many files that are not there are named in a message."""


@dataclass(frozen=True)
class ImageTable:
    """Images and what is known of each.

    Parameters
    ----------
    source : str
        Where it came from, for messages.
    pictures : Pictures
        The images.
    table : pyarrow.Table
        A row for each: the file's name in ``column``, the label where one is known, and what else stood there.
    column : str
        The column with the names of the files.
    notices : list of str
        What a person should know about how it was read.
    by_folder : bool
        True where labels are names of folders, and so classes, also where they look like numbers.
    """

    source: str
    pictures: Pictures
    table: pa.Table
    column: str = FILE
    notices: list[str] = field(default_factory=list)
    by_folder: bool = False

    def take(self, places: NDArray[np.int64]) -> ImageTable:
        """Return some rows; notices are shared."""
        rows = self.table.take(pa.array(places))
        return replace(self, pictures=self.pictures.take(places), table=rows)

    @property
    def raw(self) -> RawTable:
        """Its columns as a table."""
        return RawTable(self.table, self.source, self.notices)


def is_images(source: Any) -> bool:
    """Say whether a source is about images: a folder or an archive of them, or a table that names some in every row.

    Only the beginning of a text file is looked at; of other tables a person has to say it with ``--kind``.

    Examples
    --------
    >>> is_images("no such place"), is_images({"x": [1]})
    (False, False)
    """
    if not isinstance(source, (str, Path)) or len(str(source)) > 4096 or "\n" in str(source):
        return False
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return any(p.suffix.lower() in IMAGES for p in path.rglob("*"))
        if not path.is_file():
            return False
        if path.suffix.lower() in IMAGES:
            return True
        if path.suffix.lower() == ".zip":
            return bool(ZipFiles(path).names())
        if path.suffix.lower() not in (".csv", ".tsv", ".txt", ".tab", ".jsonl", ".ndjson"):
            return False
        with path.open("rb") as file:
            lines = file.read(_HEAD_BYTES).decode("utf-8", "replace").splitlines()[1:]
    except (OSError, ValueError, DataError):
        return False
    # The last line may be cut off.
    return sum(bool(_ENDING.search(line)) for line in lines) >= max(1.0, 0.9 * len(lines) - 1)


def read_images(
    source: Any,
    target: str | None = None,
    *,
    images: str | Path | None = None,
    within: str | Path | None = None,
    beside: bool = False,
    keep_missing: bool = False,
) -> ImageTable:
    """Find images and what is known of them.

    Parameters
    ----------
    source : path, ndarray or sequence of ndarray
        A folder or ``.zip`` archive, whose class folders are the labels; one image file; a table that names files,
        which lie beside it, or in a folder or archive that is called as the table (with or without ``_labels``); or
        arrays of pixels. A ``.npy`` file holds images along its first axis.
    target : str, optional
        The column to predict; default ``"label"``.
    images : path, optional
        Folder or archive in which the files of a table lie.
    within : path, optional
        Folder that names in a table must not lead out of; without it they may name any file.
    beside : bool
        They may lie beside the table, too, where ``images`` has fewer of them.
    keep_missing : bool
        Of a table whose files are partly missing: True keeps every row, whose images then can't be read, for whoever
        answers row by row; False leaves such rows out, with a notice.

    Returns
    -------
    ImageTable
        A row for each image, in the order of the table, else by name.

    Raises
    ------
    DataError
        Where there are no images, or none of the files that a table names is there.

    Examples
    --------
    >>> read_images(np.zeros((3, 8, 8), np.uint8)).table.num_rows
    3
    """
    if isinstance(source, ImageTable):
        return source
    if not isinstance(source, (str, Path)):
        return _arrays(source, "array")
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(FolderFiles(path), str(path), target)
    if not path.exists():
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("There is no such file or folder.", where=str(path), hint=nearest_hint(path.name, names))
    ending = path.suffix.lower()
    if ending == ".zip":
        return _folder(ZipFiles(path), str(path), target)
    if ending in IMAGES:
        return ImageTable(str(path), FilePictures(FolderFiles(path.parent), (path.name,)), _named([path.name]))
    if ending == ".npy":
        return _arrays(_load(path), str(path))
    place = _place_named(images)
    return _table(path, target, place, _place_named(within), beside=beside, keep_missing=keep_missing)


def _place_named(word: str | Path | None) -> Path | None:
    return None if word is None else Path(word).expanduser()


def _named(names: Sequence[str]) -> pa.Table:
    return pa.table({FILE: pa.array(names, pa.string())})


def _arrays(arrays: Any, where: str) -> ImageTable:
    if isinstance(arrays, np.ndarray) and arrays.ndim not in (3, 4):
        raise DataError(
            f"Images in one array have the shape (images, height, width) or (images, height, width, channels), but got "
            f"{arrays.shape}.",
            where=where,
        )
    try:
        pictures = ArrayPictures(arrays if isinstance(arrays, np.ndarray) else list(arrays))
    except TypeError:
        raise DataError(
            f"A {type(arrays).__name__} holds no images.", hint="Give a folder, a table or arrays."
        ) from None
    if not len(pictures):
        raise DataError("There are no images.", where=where)
    return ImageTable(where, pictures, _named(pictures.names))


def _load(path: Path) -> NDArray[Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"This is no array that can be read ({error}).", where=str(path)) from error
    return np.asarray(loaded)


def _folder(files: Files, where: str, target: str | None) -> ImageTable:
    names = files.names()
    if not names:
        raise DataError(
            "There are no images here.", where=where, hint=f"Known endings are {', '.join(sorted(IMAGES))}."
        )
    table = _named(names)
    folders = [name.rpartition("/")[0] for name in names]
    common = _common(folders)
    labels = [folder[len(common) :].strip("/") for folder in folders]
    notices = []
    if any(labels):
        loose = [n for n, label in zip(names, labels, strict=True) if not label]
        if loose:
            notices.append(f"{len(loose):,} images stand in no class folder, the first is {loose[0]!r}.")
        table = table.append_column(target or LABEL, pa.array([label or None for label in labels], pa.string()))
    return ImageTable(where, FilePictures(files, tuple(names)), table, notices=notices, by_folder=any(labels))


def _common(folders: Sequence[str]) -> str:
    """The folder that all others lie in; an archive often has one around everything."""
    parts = [folder.split("/") for folder in folders]
    first, last = min(parts), max(parts)
    pairs = zip(first, last, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))
    return "/".join(first[:same])


def image_columns(raw: RawTable, without: Collection[str] = ()) -> list[str]:
    """Columns of a table that name image files, in its order.

    Examples
    --------
    >>> image_columns(RawTable(pa.table({"photo": ["a.png", None], "said": ["a.", "b"]}), "table"))
    ['photo']
    """
    return [n for n in raw.table.column_names if n not in without and names_images(_cells(raw, n))]


def files_of(
    source: Any,
    names: Sequence[str],
    images: str | Path | None = None,
    within: str | Path | None = None,
    *,
    beside: bool = False,
) -> Files:
    """Find where the files lie that a table names: as `read_images`; for a table in memory in the present folder.

    Raises
    ------
    DataError
        Where ``images`` is not there.
    """
    place, bound = _place_named(images), _place_named(within)
    if isinstance(source, (str, Path)) and Path(source).expanduser().is_file():
        return _where(Path(source).expanduser(), names, place, bound, beside=beside)
    return FolderFiles(Path(), bound) if place is None else _place(place, bound)


def _table(
    path: Path, target: str | None, images: Path | None, within: Path | None, *, beside: bool, keep_missing: bool
) -> ImageTable:
    raw = read(path)
    column = _file_column(raw, target)
    if target is not None and not _holds(raw, target):
        raise NotFoundError.of("column", target, raw.table.column_names)
    names = [file_name(cell) for cell in raw.table[column].to_pylist()]
    files = _where(path, names, images, within, beside=beside)
    kept = [i for i, name in enumerate(names) if files.has(name)]
    if not kept:
        raise DataError(
            f"None of the {len(names):,} files that the table names is there, the first is {names[0]!r}.",
            where=str(path),
            hint="File names are looked for beside the table; say --images FOLDER where they lie elsewhere.",
        )
    if keep_missing or len(kept) == len(names):
        return ImageTable(str(path), FilePictures(files, tuple(names)), raw.table, column, list(raw.notices))
    there = set(kept)
    lost = [name for i, name in enumerate(names) if i not in there]
    shown = ", ".join(map(repr, lost[:_NAMED])) + (", …" if len(lost) > _NAMED else "")
    told = f"{len(lost):,} of {len(names):,} rows name files that are not there; left out: {shown}."
    table = raw.table.take(pa.array(kept, pa.int64()))
    pictures = FilePictures(files, tuple(names[i] for i in kept))
    return ImageTable(str(path), pictures, table, column, [*raw.notices, told])


def _holds(raw: RawTable, target: str) -> bool:
    """Whether there is such a column, or where several are named with commas between them, all of these."""
    known = raw.table.column_names
    return target in known or ("," in target and all(name.strip() in known for name in target.split(",")))


def _file_column(raw: RawTable, target: str | None) -> str:
    found = file_column({name: _cells(raw, name) for name in image_columns(raw, () if target is None else (target,))})
    if found is not None:
        return found
    raise DataError("The table has no column with names of image files.", where=raw.source, hint="Add a column `file`.")


def _cells(raw: RawTable, name: str) -> list[Any]:
    """The first cells of a column of text; of another one none."""
    if not vector.is_text(vector.plain(raw.table[name]).type):
        return []
    cells: list[Any] = raw.table[name].slice(0, LOOKED_AT).to_pylist()
    return cells


def _where(
    path: Path, names: Sequence[str], images: Path | None, within: Path | None, *, beside: bool = False
) -> Files:
    """Find the place in which the first files lie."""
    if images is not None and not beside:
        return _place(images, within)
    stem = path.name.split(".")[0]
    stems = dict.fromkeys((stem, stem.removesuffix("_labels")))
    places = [path.parent, *(path.parent / s for s in stems), *(path.parent / f"{s}.zip" for s in stems)]
    found = [] if images is None else [_place(images, within)]
    found += [_place(p, within) for p in places if p.exists()]
    sample = names[:LOOKED_AT]
    return max(found, key=lambda files: sum(files.has(n) for n in sample))  # of equals the first


def _place(path: Path, within: Path | None) -> Files:
    if path.is_dir():
        return FolderFiles(path, within)
    if not path.exists():
        raise DataError("There is no such folder or archive.", where=str(path))
    return ZipFiles(path)
