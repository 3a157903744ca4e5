"""What the operations share: from pieces of parents to a recorded version."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import Schema
from tidemill.data.versions.ledger import DatasetVersion, record_version
from tidemill.data.versions.locks import writing
from tidemill.data.versions.manifest import Field, Manifest, Part, code_hash, plain
from tidemill.data.versions.reading import Piece, parts_of
from tidemill.store.workspace import Workspace

Clock = Callable[[], float]


def derive(
    workspace: Workspace,
    name: str,
    pieces: Sequence[Piece | Part],
    fields: Sequence[Field],
    schema: Schema,
    *,
    parents: Sequence[str],
    operation: str,
    parameters: Mapping[str, Any],
    module: str,
    clock: Clock = time.time,
) -> DatasetVersion:
    """Record a version of rows that stand in the store already.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    name : str
        Name of the dataset.
    pieces : sequence of Piece or Part
        The rows; parts of a parent are taken over as they stand.
    fields, schema : sequence of Field, Schema
        The columns.
    parents, operation, parameters : sequence, str, mapping
        Lineage.
    module : str
        Name of the operation's module, whose source is hashed.
    clock : callable
        Gives the time.
    """
    if not any(p.count for p in pieces):
        raise DataError("No row is left.", hint="Choose other rows: a dataset version holds at least one.")
    with writing(workspace):
        manifest = Manifest(
            tuple(fields),
            parts_of(workspace.artifacts, pieces),
            tuple(parents),
            operation,
            plain(parameters),
            code_hash(module),
        )
        return record_version(workspace, name, manifest, schema, clock=clock)


def target_of(schema: Schema, given: str | None = None) -> str | None:
    """Name of the label column: the given one (checked), else the schema's target, else None."""
    from tidemill.core.schema import SemanticType

    if given is not None:
        return schema[given].name
    return next((c.name for c in schema if c.type is SemanticType.TARGET), None)


def generator(seed: int) -> np.random.Generator:
    """Give the source of chance of an operation.

    Raises
    ------
    OptionError
        For a negative seed.
    """
    if seed < 0:
        raise OptionError(f"`seed >= 0` must hold, but got {seed}.", where="--seed")
    return np.random.default_rng(seed)
