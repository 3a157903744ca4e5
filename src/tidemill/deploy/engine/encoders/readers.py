"""What reads texts in a worker: the files of a bundle, each of them the one that its graph was proven with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidemill.bundle.runner.texts.reading import Read, open_reader
from tidemill.core.errors import BundleError, MissingExtraError
from tidemill.deploy.engine.encoders.base import Encoding

_READERS = "tidemill.readers"
"""Key of the graph's metadata with its readers; as in `tidemill.bundle.texts.readers`, which loads onnx."""


def open_readers(encoding: Encoding, stated: Mapping[str, str]) -> dict[str, Read]:
    """Open all readers of a bundle, by the key that the graph knows each by, in its order.

    Raises
    ------
    BundleError
        Where a reader's file is not the one that the graph was proven with.
    MissingExtraError
        Where it reads tokens, and the package for that is absent.
    """
    # The worker has one thread, and is forked: threads of the tokenizer's own would neither be counted nor survive.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with explained(encoding):
        return {str(entry["key"]): _open(entry, encoding) for entry in json.loads(stated[_READERS])}


@contextmanager
def explained(encoding: Encoding) -> Iterator[None]:
    """Say in words why metadata or files of a bundle can't be read."""
    try:
        yield
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
    """Load the tokenizer, where there is one: workers that are forked afterwards have it."""
    import tokenizers  # noqa: F401  loaded for those that are forked
