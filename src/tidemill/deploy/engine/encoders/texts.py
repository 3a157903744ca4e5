"""Texts to what their model's readers make of them: by the code that read them in training, and the bundle's files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tidemill.bundle.runner.texts.reading import MOST_BATCH, Read, open_reader
from tidemill.core.errors import BundleError, MissingExtraError
from tidemill.deploy.engine.encoders.base import Encoding

_READERS = "tidemill.readers"
"""Key of the graph's metadata with its readers; as in `tidemill.bundle.texts.readers`, which loads onnx."""


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
    # The worker has one thread, and is forked: threads of the tokenizer's own would neither be counted nor survive.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return Texts([_open(entry, encoding) for entry in json.loads(stated[_READERS])], inputs)
    except ImportError as error:
        raise MissingExtraError.of(str(error.name), "to serve this model's texts", extra="text") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"The readers of the texts can't be opened ({error}).", where=encoding.folder) from error


def _open(entry: Mapping[str, Any], encoding: Encoding) -> Read:
    name = str(entry["file"])
    if name not in encoding.files:  # a graph may name any file
        raise BundleError(f"The graph names a reader that is no file of the bundle: {name!r}.", where=encoding.folder)
    data = (Path(encoding.folder) / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise BundleError("The file is not the one that the graph was proven with.", where=name)
    return open_reader(entry, data)


def warm() -> None:
    """Load the tokenizer, where there is one."""
    import tokenizers  # noqa: F401  workers that are forked afterwards have it
