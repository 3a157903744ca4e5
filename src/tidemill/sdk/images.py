"""From images and labels to what a search takes: the first part of a fit on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.bundle.images.encoder import IMAGE, ImageEncoder
from tidemill.bundle.images.properties import PROPERTIES
from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import Column, Columns, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.data.checks import Finding
from tidemill.data.coerce import encode_target, group_codes, known_rows, unknown_targets
from tidemill.data.images.files import BlobFiles, Files
from tidemill.data.images.packs import PackFiles, Place, content_places, pack_files
from tidemill.data.images.pictures import FilePictures, JoinedPictures, Pictures, Unreadable, look
from tidemill.data.images.source import FILE, KINDS, LABEL, ImageTable, read_images
from tidemill.data.ingest import RawTable
from tidemill.data.multilabel import unknown_labels, with_labels
from tidemill.data.problem import infer_task
from tidemill.data.versions import DatasetVersion, write_version
from tidemill.data.versions.incoming import incoming
from tidemill.data.versions.manifest import BLOB
from tidemill.models.fusion.folders import side_of_images
from tidemill.sdk.image_weights import weights_at_hand
from tidemill.sdk.looking import NAMED, decoded, in_both, marks_of
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import lock
from tidemill.sdk.sources import Kept, Named, admit, kept_as
from tidemill.store.workspace import Workspace

MOST_SIDE = 64
"""Images are resized to at most so many pixels a side where nobody says otherwise: a processor can learn from these."""
MOST_FOR_BACKBONE = 128
"""The same where there are weights of a backbone that was made for larger ones, which always works at its own size.
What is quick beside it takes, for an image of 64, 128 and 224 pixels a side, 96, 418 and 1,326 million operations
(``probe``, the first answer), and 218, 233 and 712 (``quicknet``)."""
_MOST_BYTES = 1 << 30
"""So much memory may larger images take together, which are held as models see them."""
_LEAST_SIDE = 8
_SAMPLE = 200
"""Images that tell size and colour of all."""
_UNITS = {"width": "px", "height": "px", "brightness": "of 1", "contrast": "of 1"}
_BLOB_UNIT, _PACK_UNIT = f"{BLOB}image", f"{BLOB}images"
"""Units of a column that names the bytes of one image, as `tidemill data add` keeps them, or a pack of many."""
CAPTURED = "capture."
"""How columns begin that an endpoint writes beside captured images: nothing to learn from, and nothing to tell of. As
`tidemill.deploy.watch.capture.META`, which needs the extra `serve`."""
OFFSET, LENGTH = "offset", "length"
"""Columns beside the name of a pack."""


class OfImages(Protocol):
    """What is kept and reported of rows that are images, whatever is learned from them."""

    @property
    def table(self) -> ImageTable:
        """Images that can be read and are labelled, in order."""

    @property
    def test_table(self) -> ImageTable | None:
        """The same of the locked ones, where they were given."""

    @property
    def schema(self) -> Schema:
        """The columns."""

    @property
    def columns(self) -> Columns:
        """Properties of all images."""


@dataclass(frozen=True)
class PreparedImages:
    """Images made ready for a search; an implementation of `tidemill.sdk.modality._base.Prepared`.

    Parameters
    ----------
    table : ImageTable
        Images that can be read and have a label, in order.
    test_table : ImageTable or None
        The same of the locked ones, where they were given.
    schema, task : Schema, Task
        The columns, and the question.
    columns : Columns
        Properties of all images, those of ``test_table`` behind the others.
    y : ndarray
        Encoded target of the same images.
    x : ndarray of uint8, shape (n, channels, height, width)
        What models see of them.
    encoder : ImageEncoder
        That made ``x``.
    train, test : ndarray of int64
        Numbers of images; ``test`` is empty where no slice is locked.
    groups : ndarray or None
        Group codes of the images of ``table``.
    findings, notices : tuple
        What the checks found, and how the images were read.
    weights : tuple of str
        Places of trained weights that may be used.
    """

    table: ImageTable
    test_table: ImageTable | None
    schema: Schema
    task: Task
    columns: Columns
    y: NDArray[Any]
    x: NDArray[np.uint8]
    encoder: ImageEncoder
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    findings: tuple[Finding, ...]
    notices: tuple[str, ...]
    weights: tuple[str, ...] = ()

    @property
    def pictures(self) -> JoinedPictures:
        """All images, to be read again from their files."""
        more = () if self.test_table is None else (self.test_table.pictures,)
        return JoinedPictures.of(self.table.pictures, *more)

    @property
    def mirrored(self) -> bool:
        """False for what is drawn or written: grey images, and classes that are called like characters."""
        written = bool(self.task.classes) and all(len(c) <= 1 for c in self.task.classes)
        return self.encoder.channels == 3 and not written


def prepare_images(
    source: Any, target: str | None, options: FitOptions, *, test: Any = None, encoder: ImageEncoder | None = None
) -> PreparedImages:
    """Read, decode, check and split.

    Images that can't be read are left out, counted and named.

    Parameters
    ----------
    source : path, table or arrays
        As `tidemill.data.images.source.read_images` takes it.
    target : str or None
        The column to predict; None takes the class folders.
    options : FitOptions
        What a person said.
    test : path or ImageTable, optional
        Locked images; default those of the options.
    encoder : ImageEncoder, optional
        Of the study that goes on; else one is chosen by the images.

    Raises
    ------
    InputError
        With what is wrong with the images or the options.
    """
    refuse_tables_options(options)
    target = target or LABEL
    found = read_images(source, target, images=options.images, within=options.within)
    table, separator = _labelled(found, target, options, options.separator)
    test = options.test if test is None else test
    test_table = (
        None if test is None else _labelled(locked_images(test, target, options), target, options, separator)[0]
    )
    notices: list[str] = []
    encoder = encoder or _encoder(table.pictures, options, notices)
    seen = _encode(encoder, table, notices)
    task = infer_task(RawTable(seen.table.table, table.source, notices), image_schema(seen.table, target, options),
                      kind=_kind(options, table), positive=options.positive)  # fmt: skip
    seen = _with_target(seen, task, notices)
    schema = image_schema(seen.table, target, options)
    groups = group_codes(seen.table.raw, schema)
    if test_table is None:
        y = seen.y
        train, locked = lock(task, y, options, groups, None)
        whole = seen
    else:
        more = _with_target(_encode(encoder, test_table, notices), task, notices)
        if task.kind is TaskKind.MULTILABEL and (strange := unknown_labels(more.table.raw, task)):
            notices.append(strange)
        train, locked = np.arange(len(seen.y)), np.arange(len(seen.y), len(seen.y) + len(more.y))
        whole, test_table = seen.joined(more), more.table
    notices += told_left_out(schema, options)
    notices = list(dict.fromkeys([*table.notices, *(test_table.notices if test_table else ()), *notices]))
    return PreparedImages(
        table=seen.table, test_table=test_table, schema=schema, task=task, columns=whole.columns, y=whole.y, x=whole.x,
        encoder=encoder, train=train, test=locked, groups=groups,
        findings=tuple(_findings(whole, task, train, locked)), notices=tuple(notices), weights=options.weights,
    )  # fmt: skip


def _encoder(pictures: Pictures, options: FitOptions, notices: list[str]) -> ImageEncoder:
    """Choose the size by the images, and by what a backbone among the weights was made for."""
    sides = [side for place in options.weights if (side := side_of_images(place)) is not None]
    fits = int((_MOST_BYTES / 3 / max(1, len(pictures))) ** 0.5)
    most = max(MOST_SIDE, min(max(sides, default=0), MOST_FOR_BACKBONE, fits))
    found = choose_encoder(pictures, options.image_size, most=most)
    if options.image_size is None and sides and max(sides) > most and max(found.height, found.width) == most:
        wish = max(sides)
        notices.append(
            f"Images are resized to {found.width} × {found.height} pixels, and the backbone was made for {wish}: "
            f"--image-size {wish} shows it more, in {(wish / most) ** 2:.1f} times the memory."
        )
    return found


def choose_encoder(pictures: Pictures, side: int | None = None, *, most: int = MOST_SIDE) -> ImageEncoder:
    """Choose the size that models see, and whether grey is enough, from some of the images.

    Small images of one size stay as they are; others become squares of ``side`` pixels, or by their own size of at most
    ``most``.

    Examples
    --------
    >>> from tidemill.data.images.pictures import ArrayPictures
    >>> choose_encoder(ArrayPictures(np.zeros((3, 28, 28))))
    ImageEncoder(height=28, width=28, channels=1)
    """
    places = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), _SAMPLE)).astype(np.int64))
    some = [p for p in look(pictures.take(places)) if not isinstance(p, Unreadable)]
    if not some:
        raise DataError("None of the images can be read.", hint="Are these images in a form that Pillow knows?")
    grey = all(bool((p[..., 0] == p[..., 1]).all() and (p[..., 1] == p[..., 2]).all()) for p in some)
    channels = 1 if grey else 3
    if side is not None:
        return ImageEncoder(side, side, channels)
    sizes = {p.shape[:2] for p in some}
    if len(sizes) == 1 and max(next(iter(sizes))) <= most:
        height, width = next(iter(sizes))
        return ImageEncoder(int(height), int(width), channels)
    middle = round(float(np.median([max(p.shape[:2]) for p in some])))
    side = min(most, max(_LEAST_SIDE, middle))
    return ImageEncoder(side, side, channels)


def locked_images(test: Any, target: str, options: FitOptions) -> ImageTable:
    """Read the locked images that a person named: in ``images`` of the options, or beside their table."""
    return read_images(test, target, images=options.images, within=options.within, beside=True)


def holds_images(schema: Schema) -> bool:
    """Say whether the rows of a dataset version are images."""
    return any(c.unit in (_BLOB_UNIT, _PACK_UNIT) for c in schema)


def image_table(workspace: Workspace, raw: RawTable, schema: Schema) -> ImageTable:
    """Images of a dataset version, read from the artifact store."""
    column, unit = next((c.name, c.unit) for c in schema if c.unit in (_BLOB_UNIT, _PACK_UNIT))
    keys = [str(k) for k in raw.table[column].to_pylist()]
    named = FILE if FILE in raw.table.column_names else column
    names = [str(n) for n in raw.table[named].to_pylist()]
    unique = names if len(set(names)) == len(names) else [f"{n}#{i}" for i, n in enumerate(names)]
    kept = [n for n in raw.table.column_names if n not in (column, "width", "height", OFFSET, LENGTH)]
    table = raw.table.select(kept)
    if named not in kept:
        table = table.append_column(FILE, pa.array(unique, pa.string()))
    files: Files = BlobFiles(workspace.artifacts, dict(zip(unique, keys, strict=True)))
    if unit == _PACK_UNIT:
        spans = zip(raw.table[OFFSET].to_pylist(), raw.table[LENGTH].to_pylist(), strict=True)
        where = [Place(k, int(o), int(n)) for k, (o, n) in zip(keys, spans, strict=True)]
        files = PackFiles(workspace.artifacts, dict(zip(unique, where, strict=True)))
    return ImageTable(raw.source, FilePictures(files, tuple(unique)), table, FILE, list(raw.notices))


def keep_images(workspace: Workspace, dataset: str, prepared: OfImages, named: Named | None) -> dict[str, Any]:
    """Write the images of a fit as dataset versions, each file once, however many versions name it.

    Returns
    -------
    dict
        ``dataset``, ``version`` and ``test_version`` (a hash, or None).
    """
    version = _keep(workspace, dataset, prepared.table, prepared, None if named is None else named.version)
    admit(workspace, version)
    locked = None
    if prepared.test_table is not None:
        locked = _keep(workspace, f"{dataset}.test", prepared.test_table, prepared, None)
    return kept_as(workspace, dataset, version, locked, named)


def load_images(
    workspace: Workspace, study: str, options: FitOptions, *, training: bool = False
) -> tuple[PreparedImages, dict[str, Any]]:
    """Prepare the images of a study again, exactly as they were.

    Raises
    ------
    WorkspaceError
        If the study was not made by a fit.
    DataError
        Where the version is blocked.
    """
    kept = Kept.of(workspace, study, "images", training=training)
    weights = weights_at_hand(workspace, kept.weights) if training else ()
    words = kept.options(options, weights=weights, kind=kept.kind, images=None)
    encoder = ImageEncoder.restore(kept.encoder_state())
    table, test = kept_images(kept)
    return prepare_images(table, kept.target, words, test=test, encoder=encoder), kept.versions


def kept_images(kept: Kept) -> tuple[ImageTable, ImageTable | None]:
    """The images of a study, and the locked ones, where they were given."""
    test = kept.test_rows()
    locked = None if test is None else image_table(kept.workspace, *test)
    return image_table(kept.workspace, *kept.rows()), locked


# ---------------------------------------------------------------------------------------------------------- inside


@dataclass(frozen=True)
class _Seen:
    """Images that can be read, as models see them."""

    table: ImageTable
    x: NDArray[np.uint8]
    columns: Columns
    y: NDArray[Any]

    def take(self, places: NDArray[np.int64], y: NDArray[Any]) -> _Seen:
        columns = {name: values[places] for name, values in self.columns.items()}
        return _Seen(self.table.take(places), self.x[places], columns, y[places])

    def joined(self, more: _Seen) -> _Seen:
        columns = {n: np.concatenate([v, more.columns[n]]) for n, v in self.columns.items()}
        return _Seen(self.table, np.concatenate([self.x, more.x]), columns, np.concatenate([self.y, more.y]))


def refuse_tables_options(options: FitOptions) -> None:
    """Refuse options that are for tables."""
    wrong = []
    if options.time_column is not None:
        wrong.append("--time-column")
    if options.schedule == "rows":
        wrong.append("--schedule")
    if options.types:
        wrong.append("--type")
    if wrong:
        raise OptionError(f"These options are for tables, not for images: {', '.join(wrong)}.")
    if options.separator is not None and not _several(options):
        raise OptionError(
            "A separator is for several labels an image.", where="--separator", hint="Say --kind image-multilabel."
        )


def _several(options: FitOptions) -> bool:
    return options.kind in (KINDS[2], TaskKind.MULTILABEL.value)


def _labelled(
    table: ImageTable, target: str, options: FitOptions, separator: str | None
) -> tuple[ImageTable, str | None]:
    """See that there are labels; several of an image are taken apart, at what was found where nobody says it."""
    if target in (IMAGE, FILE):
        raise DataError(f"The target can't be called {target!r}: that is the image itself.", hint="Rename the column.")
    if _several(options) and ("," in target or target in table.table.column_names):
        raw, separator = with_labels(table.raw, target, separator=separator)
        table = replace(table, table=raw.table)
    if target not in table.table.column_names:
        raise DataError(
            "The images have no labels.",
            where=table.source,
            hint="Put the images of each class into a folder of its own, or give a table with columns file and label.",
        )
    return table, separator


def _kind(options: FitOptions, table: ImageTable) -> str | None:
    if options.kind == KINDS[1]:
        return TaskKind.REGRESSION.value
    if options.kind == KINDS[2]:
        return TaskKind.MULTILABEL.value
    if options.kind == KINDS[0] or (options.kind is None and table.by_folder):
        return TaskKind.MULTICLASS.value  # two classes make it a binary task
    return options.kind


def _encode(encoder: ImageEncoder, table: ImageTable, notices: list[str]) -> _Seen:
    """Decode and resize all images, some at a time; only what models see stays in memory."""
    n = len(table.pictures)
    x = np.empty((n, *encoder.shape), dtype=np.uint8)
    columns: Columns = {name: np.full(n, np.nan) for name in PROPERTIES}

    def take(places: list[int], stack: Any) -> None:
        x[places] = encoder.encode(stack).astype(np.uint8)

    readable = decoded(table, columns, notices, take)
    for start in range(0, n, 1024):
        part = x[start : start + 1024].reshape(len(x[start : start + 1024]), -1) / np.float32(255)
        columns["brightness"][start : start + 1024] = part.mean(axis=1)
        columns["contrast"][start : start + 1024] = part.std(axis=1)
    if len(readable) == n:
        return _Seen(table, x, columns, np.zeros(n))
    return _Seen(table, x, columns, np.zeros(n)).take(readable, np.zeros(n))


def _with_target(seen: _Seen, task: Task, notices: list[str]) -> _Seen:
    y = encode_target(seen.table.raw, task)
    known = known_rows(task, y)
    if known.all():
        return replace(seen, y=y)
    if not known.any():
        raise DataError("No image has a label that can be used.", where=seen.table.source)
    gone = [str(seen.table.pictures.names[i]) for i in np.flatnonzero(~known)[:NAMED]]
    notices.append(
        f"{int((~known).sum()):,} of {len(y):,} images have {unknown_targets(seen.table.raw, task, known)}, and are "
        f"left out: {', '.join(map(repr, gone))}{', …' if (~known).sum() > NAMED else ''}."
    )
    return seen.take(np.flatnonzero(known), y)


def image_schema(table: ImageTable, target: str, options: FitOptions) -> Schema:
    """Columns of a table of images: the image, the target, the group; a model sees nothing of the others."""
    columns = [Column(IMAGE, SemanticType.IMAGE)]
    for name in table.table.column_names:
        if name == target:
            columns.append(Column(name, SemanticType.TARGET))
        elif name == options.group:
            columns.append(Column(name, SemanticType.GROUP))
        elif name == table.column:
            columns.append(Column(name, SemanticType.IDENTIFIER, reason="names the image"))
        elif name != IMAGE:
            columns.append(Column(name, SemanticType.IGNORED, reason="a model for images sees the image alone"))
    if options.group is not None and options.group not in table.table.column_names:
        from tidemill.core.errors import NotFoundError

        raise NotFoundError.of("column", options.group, table.table.column_names)
    return Schema(tuple(columns))


def told_left_out(schema: Schema, options: FitOptions) -> list[str]:
    """Say which columns a model for images doesn't see, and what would make use of them."""
    names = [c.name for c in schema if c.type is SemanticType.IGNORED and not c.name.startswith(CAPTURED)]
    if not names:
        return []
    shown = ", ".join(map(repr, names[:NAMED])) + (", …" if len(names) > NAMED else "")
    which = f"Column {shown} is" if len(names) == 1 else f"{len(names):,} columns are"
    listed = "" if len(names) == 1 else f": {shown}"
    if options.kind is not None:
        return [f"{which} left out, because a model for images sees the image alone{listed}."]
    return [
        f"{which} left out, because a model for images sees the image alone{listed}. To learn from all columns, say "
        "--kind table-classification or table-regression; best with encoders, --weights: a backbone, or a study of "
        "images, and one of texts."
    ]


def _findings(seen: _Seen, task: Task, train: NDArray[np.int64], test: NDArray[np.int64]) -> list[Finding]:
    """Images that stand twice, and classes that are rare."""
    marks = marks_of(seen.x)
    found = in_both(marks, train, test, "images")
    order = np.argsort(marks, kind="stable")
    same = marks[order][1:] == marks[order][:-1]
    if task.kind.has_labels:
        several = task.kind is TaskKind.MULTILABEL
        differs = seen.y[order][1:] != seen.y[order][:-1]
        other = same & (differs.any(axis=1) if several else differs)
        if other.any():
            name = (
                str(seen.table.pictures.names[order[1:][other][0]]) if len(seen.y) == len(seen.table.pictures) else ""
            )
            found.append(Finding(
                "warning", "image_with_two_labels", task.target,
                f"{int(other.sum()):,} images look the same to the models and have different labels"
                f"{f', one is {name!r}' if name else ''}.", "Look at their labels.",
            ))  # fmt: skip
        counts = seen.y[train].sum(axis=0) if several else np.bincount(seen.y[train], minlength=task.n_classes)
        noun = "labels" if several else "classes"
        rare = [f"{c!r} ({k})" for c, k in zip(task.classes, counts.tolist(), strict=True) if k < 10]
        if rare:
            more = ", …" if len(rare) > NAMED else ""
            found.append(Finding(
                "warning", "few_images_of_a_class", task.target,
                f"{len(rare):,} {noun} have fewer than ten images: {', '.join(rare[:NAMED])}{more}.", "Add images.",
            ))  # fmt: skip
    if same.any():
        found.append(Finding(
            "info", "image_twice", None, f"{int(same.sum()):,} images look the same to the models as another one.",
            "Copies count twice in training.",
        ))  # fmt: skip
    return found


def _keep(
    workspace: Workspace, name: str, table: ImageTable, prepared: OfImages, parent: DatasetVersion | None
) -> DatasetVersion:
    """Write a version; the bytes of every file go to the artifact store first."""
    if parent is not None and parent.rows == len(table.pictures):
        return parent
    if not isinstance(table.pictures, FilePictures):
        raise DataError("Arrays of pixels can't be kept as a dataset.", hint="Write them as image files.")
    pictures = table.pictures
    try:
        places = content_places(pictures.files, pictures.names)
    except ValueError as error:  # it could be read a moment ago
        raise DataError(f"An image is gone: {error}.", where=table.source, hint="Try again.") from error
    keys = [p.key for p in places]
    columns: dict[str, Any] = {
        FILE: pa.array(pictures.names, pa.string()),
        IMAGE: pa.array(keys, pa.string()),
        OFFSET: pa.array([p.offset for p in places], pa.int64()),
        LENGTH: pa.array([p.length for p in places], pa.int64()),
    }
    for column in table.table.column_names:
        if column not in (table.column, *columns):
            columns[column] = table.table[column]
    kinds = {c.name: c for c in prepared.schema}
    schema = Schema(tuple(
        Column(n, SemanticType.IDENTIFIER, reason="names the image") if n == FILE
        else Column(n, SemanticType.IGNORED, unit=_PACK_UNIT, reason="names a stored pack by its hash") if n == IMAGE
        else replace(kinds[n]) if n in kinds
        else Column(n, SemanticType.IGNORED)
        for n in columns
    ))  # fmt: skip
    parents: Sequence[str] = () if parent is None else (parent.hash,)
    with incoming(workspace, keys):
        if pack_files(pictures.files, pictures.names, workspace.artifacts.put) != places:
            raise DataError("An image changed while it was read.", where=table.source, hint="Try again.")
        raw = RawTable(pa.table(columns), table.source)
        return write_version(workspace, name, raw, schema, parents=parents, parameters={"images": len(pictures)})


def report_schema(prepared: OfImages) -> Schema:
    """The image, and its properties as columns by which slices can be cut."""
    columns = [c for c in prepared.schema if c.type is not SemanticType.IGNORED]
    for name in PROPERTIES:
        values = prepared.columns[name]
        columns.append(
            Column(name, SemanticType.NUMBER, unit=_UNITS[name], low=float(values.min()), high=float(values.max()))
        )
    return Schema(tuple(columns))
