"""From a table with columns of texts to what a search takes: the first part of a fit that embeds columns.

A column of texts becomes numbers by an encoder that stays as it is, before anything else is done with the table; what
comes after (folds, families, ensembles) knows of numbers alone. Neither the encoder nor the projection behind it sees
the target, and the projection sees training rows alone, so that nothing of what is judged leaks into what is learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.fusion.embedding import Embedding
from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.schema import Columns, Schema, SemanticType, take_rows
from tidemill.core.task import Task
from tidemill.data.checks import Finding
from tidemill.models.fusion.encoder import FusedEncoder
from tidemill.models.fusion.features import Features, TooSlowError, features_of, project
from tidemill.models.text._base import TextProfile
from tidemill.models.text.extra import need_text
from tidemill.models.text.families.sentence import length_for
from tidemill.models.text.folders import find_encoder
from tidemill.models.vision.features import FeatureCache
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import Prepared, prepare
from tidemill.sdk.sources import Named, load_source
from tidemill.search.heldout.material import FEATURES
from tidemill.search.study import Study
from tidemill.store.workspace import Workspace

MOST_NUMBERS = 64
"""So many numbers of an embedding are kept; with few rows fewer."""
_ROWS_A_NUMBER = 10
_LEAST_NUMBERS = 8
_SHARE = 0.4
"""Of the time of a fit may be spent on encoders before the search."""


@dataclass(frozen=True)
class PreparedFused:
    """A table with embedded columns made ready for a search; a `tidemill.sdk.modality._base.Prepared`.

    Parameters
    ----------
    base : Prepared
        The table, checked and split.
    schema : Schema
        The columns; those that are embedded say so.
    encoder : FusedEncoder
        Of the whole table.
    numbers : Columns
        What the embeddings made of their columns, float32 of shape (n, numbers); empty where nothing is trained.
    cell_s : float
        Seconds that the encoders need for a row.
    """

    base: Prepared
    schema: Schema
    encoder: FusedEncoder
    numbers: Columns = field(default_factory=dict)
    cell_s: float = 0.0

    @property
    def task(self) -> Task:
        """The question."""
        return self.base.task

    @property
    def columns(self) -> Columns:
        """Physical columns of all rows."""
        return self.base.columns

    @property
    def y(self) -> NDArray[Any]:
        """Encoded target of all rows."""
        return self.base.y

    @property
    def train(self) -> NDArray[np.int64]:
        """Numbers of the training rows."""
        return self.base.train

    @property
    def test(self) -> NDArray[np.int64]:
        """Numbers of the locked rows."""
        return self.base.test

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
    found: list[tuple[Embedding, NDArray[np.float32]]] = []
    spent = 0.0
    for column, folder in _wanted(base.schema, options.weights, tell):
        try:
            embedding, numbers, cell_s = _embedded(base, column, folder, _cache_folder(workspace), until)
        except TooSlowError as error:
            wanted = f"its encoder would take {error.seconds:.0f} s" if error.seconds else "there is no time"
            tell(f"Column {column!r} stays as it was: {wanted}, and a fit of {time_s:g} s has {_SHARE:.0%} for that.")
            continue
        found.append((embedding, numbers))
        spent += cell_s
        tell(embedding.in_words())
    if not found:
        return base
    encoder = FusedEncoder.fit(base.columns_train, base.schema, tuple(embedding for embedding, _ in found))
    numbers_of = {embedding.column: numbers for embedding, numbers in found}
    return PreparedFused(base, encoder.marked(base.schema), encoder, numbers_of, spent)


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
    numbers: Columns = {}
    if training:
        for each in encoder.embeddings:
            features = features_of(each, base.columns[each.column], _cache(workspace, each))
            numbers[each.column] = each.project(features.values, features.empty)
    return PreparedFused(base, search.schema, encoder, numbers), versions


# ---------------------------------------------------------------------------------------------------------- inside


def _wanted(schema: Schema, weights: Sequence[str], tell: Callable[[str], None]) -> list[tuple[str, str]]:
    """Columns to embed, with the folder of the encoder of each."""
    texts = [c.name for c in schema.features if c.type is SemanticType.TEXT]
    if not texts:
        tell("No column of the table holds texts, so that weights of an encoder are of no use for it.")
        return []
    for place in weights:
        try:
            folder = find_encoder(place)
        except (NotFoundError, DataError) as error:
            tell(f"{error.message} The columns of texts stay as they were.")
            continue
        need_text("to embed columns of texts")
        return [(column, folder) for column in texts]
    return []


def _embedded(
    base: Prepared, column: str, folder: str, cache: Path, until: float
) -> tuple[Embedding, NDArray[np.float32], float]:
    """Open an encoder for a column, ask it about all cells, and choose what is kept of its features."""
    cells = base.columns[column]
    length = length_for(TextProfile.of(cells[base.train]))
    if time.monotonic() > until:
        raise TooSlowError
    embedding = opened(column, folder, length)
    features = features_of(embedding, cells, FeatureCache(cache, embedding.key), until)
    embedding = _reduced(embedding, features, base.train)
    return embedding, embedding.project(features.values, features.empty), features.cell_s


def opened(column: str, folder: str, length: int) -> Embedding:
    """Open an encoder of texts; see `tidemill.models.fusion.texts.open_texts`."""
    from tidemill.models.fusion.texts import open_texts  # loads torch

    return open_texts(column, folder, length)


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


def _cache(workspace: Workspace, embedding: Embedding) -> FeatureCache:
    return FeatureCache(_cache_folder(workspace), embedding.key)
