"""The contract of an encoder, and how a worker gets the one that a bundle needs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from tidemill.core.errors import BundleError, DataError, MissingExtraError
from tidemill.deploy.engine.layout import TensorSpec

IMAGES, TEXTS, COLUMNS = "images", "texts", "columns"
ENCODERS = {
    IMAGES: "tidemill.deploy.engine.encoders.images",
    TEXTS: "tidemill.deploy.engine.encoders.texts",
    COLUMNS: "tidemill.deploy.engine.encoders.columns",
}
"""Module by name; each has ``make(encoding, inputs, stated)`` and ``warm()``, which loads what it needs.

Those of `COLUMNS` make a `RowEncoder`, the others an `Encoder`.
"""
_NEEDS = {IMAGES: ("PIL", "pillow", "to serve images", "images")}


class UnreadableError(DataError):
    """A cell can't be encoded; the request that sent it is refused (400), its neighbours are answered.

    Parameters
    ----------
    place : int
        Of the cell among those of its batch.
    reason : str
        What is wrong, as the end of a sentence.
    """

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(f"Cell {place + 1} can't be read: {reason}.")
        self.place = place
        self.reason = reason


@dataclass(frozen=True)
class Encoding:
    """Which encoder the cells of a bundle go through; travels to the worker as JSON.

    Parameters
    ----------
    name : str
        One of `ENCODERS`.
    column : str
        Whose cells; empty where several columns are encoded.
    folder : str
        Of the bundle.
    files : tuple of str
        Files of the bundle that the encoder reads; their hashes are compared with the manifest before.
    options : mapping
        Bounds, as the encoder calls them.
    """

    name: str
    column: str
    folder: str
    files: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "files": list(self.files), "options": dict(self.options)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Encoding:
        """Rebuild from `to_json`.

        Examples
        --------
        >>> one = Encoding("images", "image", "/bundle", options={"most_pixels": 100})
        >>> Encoding.from_json(one.to_json()) == one
        True
        """
        return cls(**{**data, "files": tuple(data["files"])})


class Encoder(Protocol):
    """Turns cells into what a graph takes; lives in a worker, and is used from its one thread."""

    def feeds(self, cells: Sequence[bytes]) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Called for each batch: give the graph's inputs for all cells, in their order, some cells at a time.

        The graph runs between two of them, so that few decoded cells are in memory at once. Raise `UnreadableError` for
        a cell that can't be encoded: the batch is then run again, each of its requests alone.
        """


class RowEncoder(Protocol):
    """Answers rows of which some cells are encoded; lives in a worker, and is used from its one thread."""

    def shown(self, inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
        """Inputs of the graph as a caller sees them, a column each."""

    def answer(self, session: Any, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs of the graph, in its order, for rows as a caller sends them.

        Raise `UnreadableError` for a row that can't be encoded, as an `Encoder` does.
        """


def open_rows(encoding: Encoding, inputs: Sequence[str], stated: Mapping[str, str]) -> RowEncoder:
    """Make the encoder of rows for a graph; raises as `open_encoder`."""
    encoder: RowEncoder = _module(encoding.name).make(encoding, inputs, stated)
    return encoder


def open_encoder(encoding: Encoding, inputs: Sequence[str], stated: Mapping[str, str]) -> Encoder:
    """Make an encoder for a graph with such inputs and metadata.

    Raises
    ------
    BundleError
        For one that is not known here, or whose files are not those of the graph.
    MissingExtraError
        Where it needs a package that is absent.
    """
    encoder: Encoder = _module(encoding.name).make(encoding, inputs, stated)
    return encoder


def warm(name: str) -> None:
    """Load what an encoder needs; workers that are forked afterwards have it."""
    _module(name).warm()


def check_packages(name: str) -> None:
    """Raise `MissingExtraError` where a package that an encoder needs is absent; loads nothing."""
    if name not in _NEEDS:
        return
    module, package, why, extra = _NEEDS[name]
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError.of(package, why, extra=extra)


def _module(name: str) -> Any:
    if name not in ENCODERS:
        raise BundleError(f"There is no encoder {name!r}.", hint="Install a newer Tidemill.")
    return importlib.import_module(ENCODERS[name])
