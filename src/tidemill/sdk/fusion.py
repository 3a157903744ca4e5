"""From a table with columns of texts and images to what a search takes: the first part of a fit that embeds columns.

Such a column becomes numbers by an encoder that stays as it is, before anything else is done with the table; what
comes after (folds, families, ensembles) knows of numbers alone. Neither the encoder nor the projection behind it sees
the target, and the projection sees training rows alone, so that nothing of what is judged leaks into what is learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.bundle.fusion.embedding import Embedding, cost_of
from tidemill.bundle.fusion.parts import JoinedPictures
from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.objective import Objective, evaluate_costs, parse_objective
from tidemill.core.schema import Column, Columns, Schema, SemanticType, take_rows
from tidemill.data.checks import Finding
from tidemill.data.images.packs import PACK_LENGTH, PACK_OFFSET, PACKED, Place, pack_files
from tidemill.data.images.pictures import FilePictures, Pictures
from tidemill.data.images.source import image_columns
from tidemill.data.ingest import RawTable
from tidemill.data.versions.incoming import incoming
from tidemill.data.versions.manifest import BLOB
from tidemill.models.fusion.encoder import FusedEncoder
from tidemill.models.fusion.features import Cells, Features, TooSlowError, features_of, project, row_ms
from tidemill.models.fusion.folders import PATCHES, find_folder, is_image_encoder, is_own_net
from tidemill.models.text._base import TextProfile
from tidemill.models.text.extra import need_text
from tidemill.models.text.families.sentence import length_for
from tidemill.models.text.folders import find_encoder, pool_of
from tidemill.models.vision.features import FeatureCache
from tidemill.sdk.column_patches import drawn
from tidemill.sdk.column_pictures import PictureCells, pictures_of, pictures_there
from tidemill.sdk.encoder_weights import encoders_at_hand
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import OnTable, Prepared, prepare
from tidemill.sdk.sources import Named, keep_source, load_source
from tidemill.search.heldout.material import FEATURES
from tidemill.search.study import Study
from tidemill.store.artifacts import content_key
from tidemill.store.workspace import Workspace
from tidemill.train.extra import need_torch

MOST_NUMBERS = 64
"""So many numbers of an embedding are kept; with few rows fewer."""
_ROWS_A_NUMBER = 10
_LEAST_NUMBERS = 8
_SHARE = 0.4
"""Of the time of a fit may be spent on encoders before the search."""
_NAMED = 5
"""So many images that can't be read are named in a message."""


@dataclass(frozen=True)
class PreparedFused(OnTable):
    """A table with embedded columns made ready for a search; a `tidemill.sdk.modality._base.Prepared`.

    Parameters
    ----------
    base : Prepared
        As in `OnTable`.
    schema : Schema
        The columns; those that are embedded say so.
    encoder : FusedEncoder
        Of the whole table.
    numbers : Columns
        What the embeddings made of their columns, float32 of shape (n, numbers); empty where nothing is trained.
    cell_s : float
        Seconds that the encoders need for a row.
    pictures : mapping of str to Pictures
        Images of all rows, by column; one without a name is missing.
    there : mapping of str to ndarray of bool
        Rows that have an image, by column.
    """

    schema: Schema
    encoder: FusedEncoder
    numbers: Columns = field(default_factory=dict)
    cell_s: float = 0.0
    pictures: Mapping[str, Pictures] = field(default_factory=dict)
    there: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def columns(self) -> Columns:
        """Physical columns of all rows; images are told by their names."""
        names = {name: np.array(list(each.names), dtype=object) for name, each in self.pictures.items()}
        return {**self.base.columns, **names}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the checks found."""
        return self.base.findings

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know about how the rows were read."""
        return self.base.notices

    def encoded(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The matrix of some rows."""
        return self.encoder.transform(take_rows({**self.columns, **self.numbers}, rows))


def prepare_fused(
    workspace: Workspace, source: Any, target: str | None, options: FitOptions, named: Named | None = None
) -> Prepared | PreparedFused:
    """Read, check, split, and embed what can be embedded.

    Parameters
    ----------
    workspace : Workspace
        Keeps what encoders said.
    source : path, table or SQL
        The data.
    target : str or None
        The column to predict; needed.
    options : FitOptions
        What a person said, with the weights.
    named : Named, optional
        The dataset version that the source names.

    Returns
    -------
    Prepared or PreparedFused
        The plain table where no column can be embedded; a notice says why.

    Raises
    ------
    InputError
        With what is wrong with the data or the options.
    MissingExtraError
        Where what opens encoders is not installed.
    """
    begun = options.clock()
    base = prepare(source if named is None else named.raw, target, options)
    tell = base.raw.notices.append
    time_s = options.budget().time_s
    until = float("inf") if time_s is None else begun + _SHARE * time_s
    cache = _cache_folder(workspace)
    places = encoders_at_hand(workspace, options.weights)
    of_texts, of_images = _folders(places, tell)
    own = set(places) - set(options.weights)
    images = _images(base, options, named)
    if options.weights:
        _tell_lacking(base.schema, images, of_texts, tell)
    if of_images is None:
        of_images, pictures = PATCHES, pictures_there(workspace, source, base, options, images, tell)
    else:
        pictures = pictures_of(workspace, source, base, options, images)
    wanted = [] if of_texts is None else [(name, of_texts) for name in _texts(base.schema, images)]
    wanted += [(name, of_images) for name in pictures]
    _need(folder for _, folder in wanted)
    bounds = _bounds(options)
    found: list[_Embedded] = []
    made: dict[tuple[str, int], Embedding] = {}
    for column, folder in wanted:
        cells: Cells = PictureCells(pictures[column]) if column in pictures else base.columns[column]
        try:
            embedding = _opened(column, folder, cells, base.train, until, made)
            _check_bounds(bounds, [*(e.embedding for e in found), embedding])  # before minutes go into its cells
            found.append(_embedded(embedding, cells, base.train, cache, until))
        except TooSlowError as error:
            why = f"its encoder would take {error.seconds:.0f} s" if error.seconds else "there is no time"
            tell(
                f"Column {column!r} stays as it was: {why}, and a fit of {time_s or 0.0:g} s has {_SHARE:.0%} for that."
            )
            continue
        _tell_read(found[-1].embedding, cells, tell, own=folder in own, drawn=folder == PATCHES)
    if found and bounds is not None:
        tell(_check_bounds(bounds, [e.embedding for e in found]))
    return _joined(base, found, pictures) if found else base


def keep_fused(workspace: Workspace, dataset: str, prepared: PreparedFused, named: Named | None) -> dict[str, Any]:
    """Write the dataset versions of a fit, with the images that its columns name.

    Returns
    -------
    dict
        As `tidemill.sdk.sources.keep_source` gives it.

    Raises
    ------
    DataError
        Where an image changes while it is read, or the version is blocked.
    """
    base = prepared.base
    if not prepared.pictures:
        return keep_source(workspace, dataset, base, named)
    places = {name: _places(prepared, name, content_key) for name in prepared.pictures}
    with incoming(workspace, sorted({p.key for found in places.values() for p in found if p is not None})):
        if any(_places(prepared, name, workspace.artifacts.put) != found for name, found in places.items()):
            raise DataError("An image changed while it was read.", where=base.raw.source, hint="Try again.")
        rows = base.raw.rows
        raw, schema = base.raw, base.schema
        test = base.test_raw
        for name, found in places.items():
            raw = _with_places(raw, name, found[:rows])
            test = None if test is None else _with_places(test, name, found[rows:])
            more = (Column(f"{name}{PACKED}", SemanticType.IGNORED, unit=f"{BLOB}pack"),
                    *(Column(f"{name}{end}", SemanticType.IGNORED) for end in (PACK_OFFSET, PACK_LENGTH)))  # fmt: skip
            schema = Schema((*(c for c in schema if c.name not in {m.name for m in more}), *more))
        return keep_source(workspace, dataset, replace(base, raw=raw, test_raw=test, schema=schema), named)


def load_fused(
    workspace: Workspace, study: str, options: FitOptions, *, training: bool = False
) -> tuple[PreparedFused, dict[str, Any]]:
    """Prepare the rows of a study again, exactly as they were; with its own encoders, wherever their weights are now.

    Raises
    ------
    WorkspaceError
        If the study was not made by a fit.
    DataError
        Where the version is blocked.
    """
    base, versions = load_source(workspace, study, options, training=training)
    search = Study.open(workspace, study)
    encoder = search.encoder
    assert isinstance(encoder, FusedEncoder)
    images = [e.column for e in encoder.embeddings if e.kind is SemanticType.IMAGE]
    pictures = pictures_of(workspace, None, base, options, images)
    numbers: Columns = {}
    there = {}
    for each in encoder.embeddings:
        cells: Cells = PictureCells(pictures[each.column]) if each.column in pictures else base.columns[each.column]
        features = features_of(each, cells, FeatureCache(_cache_folder(workspace), each.key))
        numbers[each.column] = each.project(features.values, features.empty)
        there[each.column] = ~features.empty
    return PreparedFused(base, search.schema, encoder, numbers, 0.0, pictures, there), versions


# ---------------------------------------------------------------------------------------------------------- inside


@dataclass(frozen=True)
class _Embedded:
    embedding: Embedding
    numbers: NDArray[np.float32]
    there: NDArray[np.bool_]
    cell_s: float


def _images(base: Prepared, options: FitOptions, named: Named | None) -> list[str]:
    """Columns that name images, and of which nobody said that they are something else."""
    roles = (SemanticType.TARGET, SemanticType.GROUP, SemanticType.TIME)
    apart = {c.name for c in base.schema if c.type in roles} | (set(options.types) if named is None else set())
    return image_columns(base.raw, apart)


def _texts(schema: Schema, images: Sequence[str]) -> list[str]:
    return [c.name for c in schema.features if c.type is SemanticType.TEXT and c.name not in images]


@dataclass(frozen=True)
class _RowFiles:
    """The bytes of images by row number."""

    pictures: Pictures

    def read(self, name: str) -> bytes:
        found, place = self.pictures, int(name)
        if isinstance(found, JoinedPictures):
            k, place = found.places[place]
            found = found.lists[k]
        assert isinstance(found, FilePictures)
        return found.files.read(found.names[place])

    def names(self) -> list[str]:
        return [str(i) for i in range(len(self.pictures))]

    def has(self, name: str) -> bool:
        return 0 <= int(name) < len(self.pictures)


def _places(prepared: PreparedFused, column: str, put: Callable[[bytes], str]) -> list[Place | None]:
    """Where the image of each row lies; None where there is none."""
    there = np.flatnonzero(prepared.there[column])
    try:
        found = pack_files(_RowFiles(prepared.pictures[column]), [str(i) for i in there.tolist()], put)
    except ValueError as error:  # it could be read a moment ago
        raise DataError(f"An image is gone: {error}.", where=prepared.base.raw.source, hint="Try again.") from error
    out: list[Place | None] = [None] * len(prepared.there[column])
    for row, place in zip(there.tolist(), found, strict=True):
        out[row] = place
    return out


def _with_places(raw: RawTable, column: str, places: Sequence[Place | None]) -> RawTable:
    table = raw.table
    for end, kind, values in (
        (PACKED, pa.string(), [None if p is None else p.key for p in places]),
        (PACK_OFFSET, pa.int64(), [None if p is None else p.offset for p in places]),
        (PACK_LENGTH, pa.int64(), [None if p is None else p.length for p in places]),
    ):
        name = f"{column}{end}"
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, pa.array(values, kind))
    return replace(raw, table=table)


def _tell_lacking(schema: Schema, images: Sequence[str], of_texts: str | None, tell: Callable[[str], None]) -> None:
    """Say which texts could be embedded, were there weights; and that weights are of no use, where nothing could."""
    texts = _texts(schema, images)
    if not texts and not images:
        tell("No column of the table holds texts or names images, so that weights of an encoder are of no use for it.")
    if texts and of_texts is None:
        shown = ", ".join(map(repr, texts))
        tell(f"There are no weights of an encoder of texts: {shown} is treated as it would be without.")


def _tell_read(embedding: Embedding, cells: Cells, tell: Callable[[str], None], *, own: bool, drawn: bool) -> None:
    """Say what reads a column, and what a person should know of it."""
    tell(embedding.in_words())
    if drawn:
        tell(
            f"There are no weights of an encoder of images: those of {embedding.column!r} are seen through patches "
            "drawn from training images. A backbone or a study of images sees more: --weights."
        )
    if own:
        tell(
            f"The encoder {embedding.encoder!r} was trained by a study of this workspace, with answers: where rows of "
            "this table were among what it learned from, figures on them are too good."
        )
    if isinstance(cells, PictureCells) and cells.unread:
        tell(cells.in_words(embedding.column))


def _need(folders: Iterable[str]) -> None:
    """Refuse encoders that what is installed can't open."""
    needed = set(folders)
    if needed:
        light = all(folder == PATCHES or is_own_net(folder) for folder in needed)
        (need_torch if light else need_text)("to embed columns")


def _folders(weights: Sequence[str], tell: Callable[[str], None]) -> tuple[str | None, str | None]:
    """The first encoder of texts, and the first of images."""
    of_texts: str | None = None
    of_images: str | None = None
    for place in weights:
        try:
            folder = find_folder(place)
            if is_image_encoder(folder):
                of_images = of_images or folder
            else:
                of_texts = of_texts or find_encoder(folder)
        except (NotFoundError, DataError) as error:
            tell(error.message)
    return of_texts, of_images


def _opened(
    column: str,
    folder: str,
    cells: Cells,
    train: NDArray[np.int64],
    until: float,
    made: dict[tuple[str, int], Embedding],
) -> Embedding:
    """Open an encoder for a column, and see what a usual cell costs.

    What was opened stands in ``made``, by folder and length: columns that are read alike share it.
    """
    if time.monotonic() > until:
        raise TooSlowError
    if isinstance(cells, PictureCells):
        if folder == PATCHES:  # of each column its own
            embedding = drawn(column, cells.pictures, train, until)
        else:
            if (folder, 0) not in made:
                made[folder, 0] = opened_images(column, folder)
            embedding = replace(made[folder, 0], column=column)
        assert embedding.pixels is not None
        grey = np.full((embedding.pixels.height, embedding.pixels.width, 3), 128, dtype=np.uint8)
        return replace(embedding, row_ms=row_ms(embedding, grey))
    texts = cells[train]
    profile = TextProfile.of(texts)
    length = length_for(profile)
    if (folder, length) not in made:
        made[folder, length] = opened(column, folder, length)
    embedding = made[folder, length]
    embedding = replace(embedding, column=column, tokens=min(profile.tokens, embedding.tokens or profile.tokens))
    usual = sorted(map(str, texts), key=len)[len(texts) // 2]
    return replace(embedding, row_ms=row_ms(embedding, usual))


def _embedded(embedding: Embedding, cells: Cells, train: NDArray[np.int64], cache: Path, until: float) -> _Embedded:
    """Ask the encoder of a column about all cells, and choose what is kept of its features."""
    features = features_of(embedding, cells, FeatureCache(cache, embedding.key), until)
    embedding = _reduced(embedding, features, train)
    return _Embedded(embedding, embedding.project(features.values, features.empty), ~features.empty, features.cell_s)


def _bounds(options: FitOptions) -> Objective | None:
    """The objective, where it bounds costs."""
    if not options.objective:
        return None
    found = parse_objective(options.objective, base_dir=Path.cwd())
    return found if found.cost_constraints else None


def _check_bounds(objective: Objective | None, embeddings: Sequence[Embedding]) -> str:
    """Say what encoders take of bounds on costs; where nothing is left for a model, no search could find one.

    Raises
    ------
    OptionError
        Where the encoders alone break a bound.
    """
    if objective is None:
        return ""
    results = evaluate_costs(objective, cost_of(embeddings))
    taken = "; ".join(f"{_number(r.value or 0.0)} of {r.constraint}" for r in results)
    who = ", ".join(f"{e.encoder!r} of column {e.column!r}" for e in embeddings)
    if any(not r.satisfied for r in results):
        raise OptionError(
            f"The encoders of columns alone break a bound: {who} take {taken}.",
            where="--objective",
            hint="Loosen the bound, name weights of a smaller encoder, or leave out --weights: texts are then counted "
            "by their words.",
        )
    return f"Bounds on costs count the encoders of columns, too: {who} take {taken}."


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def opened(column: str, folder: str, length: int) -> Embedding:
    """Open an encoder of texts; see `tidemill.models.fusion.texts.open_texts`."""
    from tidemill.models.fusion.texts import open_texts  # loads torch

    return open_texts(column, folder, length, pool_of(folder))


def opened_images(column: str, folder: str) -> Embedding:
    """Open an encoder of images; see `tidemill.models.fusion.images.open_images`."""
    from tidemill.models.fusion.images import open_images  # loads torch

    return open_images(column, folder)


def _joined(base: Prepared, found: Sequence[_Embedded], pictures: Mapping[str, Pictures]) -> PreparedFused:
    """The table with what was made of its columns; names of images are no column any more."""
    images = [e.embedding.column for e in found if e.embedding.kind is SemanticType.IMAGE]
    named = base.schema.with_types(dict.fromkeys(images, SemanticType.IGNORED), reason="names images")
    base = replace(base, schema=named, columns={n: v for n, v in base.columns.items() if n not in images})
    encoder = FusedEncoder.fit(base.columns_train, base.schema, tuple(e.embedding for e in found))
    return PreparedFused(
        base, encoder.marked(base.schema), encoder, {e.embedding.column: e.numbers for e in found},
        sum(e.cell_s for e in found), {name: pictures[name] for name in images},
        {e.embedding.column: e.there for e in found},
    )  # fmt: skip


def _reduced(embedding: Embedding, features: Features, train: NDArray[np.int64]) -> Embedding:
    """Keep the directions in which the training rows differ most, and say of a cell that it is empty where some are."""
    empty = features.empty[train]
    known = features.values[train][~empty]
    most = min(MOST_NUMBERS, max(_LEAST_NUMBERS, len(train) // _ROWS_A_NUMBER))
    found = project(known, most) if len(known) else None
    mean, axes = (None, None) if found is None else found
    return replace(embedding, mean=mean, axes=axes, flagged=bool(empty.any()) and not empty.all())


def _cache_folder(workspace: Workspace) -> Path:
    return workspace.path / "scratch" / FEATURES
