"""Texts to what their model's readers make of them: by the code that read them in training, and the bundle's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from tidemill.bundle.runner.texts.reading import MOST_BATCH, Read
from tidemill.deploy.engine.encoders.base import Encoding
from tidemill.deploy.engine.encoders.readers import open_readers, warm

__all__ = ["Texts", "make", "warm"]


class Texts:
    """The `Encoder` of bundles whose input is a text.

    Parameters
    ----------
    readers : sequence
        From texts to inputs of the graph.
    inputs : sequence of str
        Those that the graph takes.
    """

    def __init__(self, readers: Sequence[Read], inputs: Sequence[str]) -> None:
        self._readers = readers
        self._inputs = frozenset(inputs)

    def feeds(self, cells: Sequence[bytes]) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Read some texts at a time."""
        texts = [cell.decode("utf-8", "replace") for cell in cells]
        for start in range(0, len(texts), MOST_BATCH):
            some = texts[start : start + MOST_BATCH]
            read = (pair for reader in self._readers for pair in reader(some).items())
            yield {name: values for name, values in read if name in self._inputs}


def make(encoding: Encoding, inputs: Sequence[str], stated: Mapping[str, str]) -> Texts:
    """Make the encoder of a bundle.

    Raises
    ------
    BundleError
        Where a reader's file is not the one that the graph was proven with.
    MissingExtraError
        Where it reads tokens, and the package for that is absent.
    """
    return Texts(list(open_readers(encoding, stated).values()), inputs)
