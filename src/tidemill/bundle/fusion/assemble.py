"""From a recipe with embedded columns to one ONNX model: cells in, labels and probabilities out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import onnx

from tidemill.bundle.assemble import declare, finish, input_names
from tidemill.bundle.fusion.embedding import Embedding
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.parts import Recipe
from tidemill.bundle.texts.readers import READERS, Reader
from tidemill.core.errors import InternalError

COLUMNS = "tidemill.columns"
"""Key of the graph's metadata: the key of the reader of every embedded column of texts, by column."""

_LARGE = 1 << 10
"""Bytes from which on it pays to look for an equal tensor."""


def embeddings_of(recipe: Recipe) -> tuple[Embedding, ...]:
    """The embedded columns of a recipe."""
    found: tuple[Embedding, ...] | None = getattr(recipe.encoder, "embeddings", None)
    if found is None:
        raise InternalError("A bundle with embedded columns is made of a recipe that has such.")
    return found


def readers_of(embeddings: Sequence[Embedding]) -> dict[str, Reader]:
    """Readers by column."""
    return {each.column: each.reader for each in embeddings if each.reader is not None}


def assemble_fused(recipe: Recipe) -> onnx.ModelProto:
    """Write the whole recipe as one graph.

    Inputs are the feature columns by name, as in `tidemill.bundle.assemble.assemble`, but for those that are embedded:
    tokens (int64, N × any, -1 behind the end of a text) as the column's reader gives them, or pixels (uint8, N × H × W
    × 3, RGB) of any size. The metadata name the files of the readers, and which column is read by which.
    """
    graph = GraphBuilder()
    names = input_names(recipe.schema)
    inputs = {c.name: declare(graph, names[c.name], c) for c in recipe.schema.features}
    readers = readers_of(embeddings_of(recipe))
    once = {reader.key: reader.entry for reader in readers.values()}
    stated = {
        READERS: json.dumps(list(once.values())),
        COLUMNS: json.dumps({column: reader.key for column, reader in readers.items()}),
    }
    x = recipe.encoder.emit(graph, inputs)
    _share(graph)
    return finish(graph, recipe, x, stated)


def _share(graph: GraphBuilder) -> None:
    """Keep equal weights once: two columns may be read by one encoder, which is most of the file.

    Constants that the builder knows itself are left alone: it may be asked for them again.
    """
    known = set(graph.constants)
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    kept = []
    for tensor in graph.initializers:
        data = tensor.raw_data
        if len(data) >= _LARGE and tensor.name not in known:
            key = (int(tensor.data_type), tuple(tensor.dims), sha256(data).digest())
            if key in first:
                same[tensor.name] = first[key]
                continue
            first[key] = tensor.name
        kept.append(tensor)
    if same:
        graph.initializers[:] = kept
        _rename(graph.nodes, same)


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = names[name]
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                _rename(inner.node, names)
