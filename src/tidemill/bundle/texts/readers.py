"""Readers: what turns texts into inputs of a graph, and travels with the bundle as a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.parts import Member
from tidemill.bundle.runner.texts.reading import Read, open_reader
from tidemill.core.errors import BundleError, InternalError, MissingExtraError

READERS = "tidemill.readers"
"""Key of the graph's metadata under which its readers stand."""
_TYPES: dict[str, dict[str, Any]] = {
    "tokens": {"tokens": np.int64},
    "grams": {"grams": np.int64, "counts": np.float32},
}
"""Inputs of each kind of reader, without the key."""


@dataclass(frozen=True)
class Reader:
    """One way to read texts.

    Two readers with the same key read alike, and share their inputs in the graph.

    Parameters
    ----------
    kind : {"tokens", "grams"}
        With a ``tokenizer.json``, or with a list of pieces of text and how they are cut.
    data : bytes
        Its file.
    length : int
        Tokens after which a text is cut; 0 for pieces of text.
    """

    kind: str
    data: bytes
    length: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _TYPES:
            raise InternalError(f"There is no kind of reader {self.kind!r}.")

    @classmethod
    def of_tokens(cls, tokenizer: str, length: int) -> Reader:
        """Read with the text of a ``tokenizer.json``, up to ``length`` tokens."""
        return cls("tokens", tokenizer.encode("utf-8"), length)

    @classmethod
    def of_grams(cls, kind: str, low: int, high: int, grams: Sequence[str]) -> Reader:
        """Read runs of ``low`` to ``high`` words or characters, those that are listed.

        Examples
        --------
        >>> reader = Reader.of_grams("words", 1, 1, ["good", "bad"])
        >>> [v.tolist() for v in reader.read(["Good, good."]).values()]
        [[[0]], [[2.0]]]
        """
        rules = {"kind": kind, "low": low, "high": high, "grams": list(grams)}
        return cls("grams", json.dumps(rules, ensure_ascii=False).encode("utf-8"))

    @cached_property
    def sha256(self) -> str:
        """Of its file."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def key(self) -> str:
        """Short name by content: of its file, and where it cuts."""
        return hashlib.sha256(f"{self.kind} {self.length} {self.sha256}".encode()).hexdigest()[:12]

    @property
    def file(self) -> str:
        """Place in a bundle."""
        return f"readers/{self.sha256[:16]}.json"

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs of the graph by name, with their types; each has the shape (N, any)."""
        return {f"{name}_{self.key}": dtype for name, dtype in _TYPES[self.kind].items()}

    @property
    def entry(self) -> dict[str, Any]:
        """What stands in the graph's metadata."""
        return {"kind": self.kind, "key": self.key, "length": self.length, "file": self.file, "sha256": self.sha256}

    @cached_property
    def _opened(self) -> Read:
        if self.kind == "tokens":
            need_tokenizers("to read texts as this model does")
        return open_reader(self.entry, self.data)

    def read(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Turn texts into inputs of the graph, a row for each.

        Raises
        ------
        MissingExtraError
            Where the package ``tokenizers`` is needed and absent.
        """
        return self._opened(texts)

    def declare(self, graph: GraphBuilder) -> None:
        """Add its inputs to a graph; before anything else is added."""
        for name, dtype in self.inputs.items():
            graph.input(name, dtype, ["N", f"L_{self.key}"])


class TextPart(Protocol):
    """A trained model for texts; `tidemill.bundle.parts.ModelPart` with the readers whose inputs it takes."""

    @property
    def readers(self) -> Sequence[Reader]:
        """What reads for it; its part of the graph begins at their inputs."""

    def predict(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Raw scores of shape (n, n_outputs) for texts of shape (n,)."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the model into ``graph``, whose inputs are those of the readers; ``x`` is of no account."""


def need_tokenizers(why: str) -> None:
    """Refuse to go on without the package ``tokenizers``."""
    from importlib.util import find_spec

    if find_spec("tokenizers") is None:
        raise MissingExtraError.of("tokenizers", why, extra="text")


def readers_of(members: Sequence[Member]) -> list[Reader]:
    """Readers of all parts, each once, in the order in which they are first wanted."""
    out: dict[str, Reader] = {}
    for member in members:
        for part in member.parts:
            for reader in part.readers:  # type: ignore[attr-defined]  # parts of a recipe for texts have it
                out.setdefault(reader.key, reader)
    return list(out.values())


def read_all(readers: Sequence[Reader], texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Inputs of all readers for texts."""
    return {name: values for reader in readers for name, values in reader.read(texts).items()}


def stored_readers(stated: Mapping[str, str], folder: Path) -> list[Reader]:
    """Open the readers of a bundle.

    Parameters
    ----------
    stated : mapping
        Metadata of its graph.
    folder : Path
        The bundle.

    Raises
    ------
    BundleError
        Where one is absent, or is not the one that the graph was proven with.
    """
    out = []
    try:
        for entry in json.loads(stated[READERS]):
            data = (folder / entry["file"]).read_bytes()
            reader = Reader(str(entry["kind"]), data, int(entry["length"]))
            if reader.entry != entry:
                raise BundleError(
                    "The file is not the one that the graph was proven with.", where=str(folder / entry["file"])
                )
            out.append(reader)
    except (OSError, ValueError, KeyError, TypeError, InternalError) as error:
        raise BundleError(f"The readers of the texts can't be opened ({error}).", where=str(folder)) from error
    return out
