"""The proof that the graph answers as encoders and models do, on rows of which some columns are embedded.

What an encoder says of a cell depends, in its last bits, on the cells that go through it at the same time, and a tree
that splits there may go another way. So the models are asked about the numbers that the encoders' own graphs give for
the very batches that the whole graph gets: what is left to differ is what stands behind them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.assemble import about, input_names
from tidemill.bundle.fusion.assemble import assemble_fused, embeddings_of, readers_of
from tidemill.bundle.fusion.embedding import Embedding
from tidemill.bundle.fusion.parts import Rows
from tidemill.bundle.latency import session
from tidemill.bundle.netparity import Pair, prove_pairs
from tidemill.bundle.parity import Proof
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runner.fusion.rows import answer_rows, row_batches, rows_at_a_time
from tidemill.bundle.runner.ordered import cores, in_order
from tidemill.core.schema import Columns


@dataclass(frozen=True)
class _Chunk:
    table: str
    start: int
    rows: Rows


def prove(recipe: Recipe, tables: Mapping[str, Rows]) -> Proof:
    """Build the graph of a recipe and prove it on all rows of some tables.

    Parameters
    ----------
    recipe : Recipe
        What to ship; its encoder is a `tidemill.bundle.fusion.parts.FusedPart`.
    tables : mapping
        Rows by a name for messages, ``{"validation": …, "test": …}``.

    Returns
    -------
    Proof
        With the answers of the models by table.

    Raises
    ------
    ParityError
        With the first rows that differ, and both answers.
    """
    embeddings, inputs = embeddings_of(recipe), inputs_of(recipe)
    size = rows_at_a_time(inputs)
    chunks = [
        _Chunk(name, start, rows.take(np.arange(start, min(start + size, len(rows)))))
        for name, rows in tables.items()
        for start in range(0, len(rows), size)
    ]
    readers = {column: reader.read for column, reader in readers_of(embeddings).items()}

    for each in embeddings:
        _ = each.whole  # made once, before several threads want it

    def embedded(chunk: _Chunk) -> Columns:
        return embed_rows(embeddings, inputs, chunk.rows.read())

    # Models answer many rows at a time: some take long to start.
    wanted = _answers(recipe, chunks, list(in_order(embedded, chunks, min(cores(), len(chunks) or 1))))
    names = {name: [f"row {i + 1:,}" for i in range(len(rows))] for name, rows in tables.items()}

    def pairs_of(recipe: Recipe, model: bytes) -> list[Pair]:
        run = session(model)

        def pair(at: int) -> Pair:
            chunk = chunks[at]
            got = answer_rows(run, inputs, readers, chunk.rows.read())
            places = np.arange(chunk.start, chunk.start + len(chunk.rows)).tolist()
            return Pair(chunk.table, places, wanted[at], got)

        return list(in_order(pair, range(len(chunks)), min(cores(), len(chunks) or 1)))

    return prove_pairs(recipe, assemble_fused, pairs_of, names, "row")


def inputs_of(recipe: Recipe) -> list[dict[str, str]]:
    """Inputs of the graph as its metadata describe them."""
    found: list[dict[str, str]] = json.loads(about(recipe.task, recipe.schema)["tidemill.inputs"])
    return found


def embed_rows(embeddings: tuple[Embedding, ...], inputs: list[dict[str, str]], columns: Columns) -> Columns:
    """Put the numbers of the embeddings in place of the cells, batch by batch as the whole graph gets them."""
    out = dict(columns)
    rows = len(columns[inputs[0]["column"]])
    for each in embeddings:
        out[each.column] = np.empty((rows, len(each.names)), dtype=np.float32)
    for places in row_batches(inputs, columns):
        for each in embeddings:
            out[each.column][places] = each.whole.run(None, each.feed(columns[each.column][places]))[0]
    return out


def _answers(recipe: Recipe, chunks: list[_Chunk], embedded: list[Columns]) -> list[NDArray[np.float32]]:
    if not chunks:
        return []
    names = list(input_names(recipe.schema))
    joined = {name: np.concatenate([columns[name] for columns in embedded]) for name in names}
    scores = recipe.predict(joined).scores
    ends = np.cumsum([len(chunk.rows) for chunk in chunks])
    return [scores[end - len(chunk.rows) : end] for chunk, end in zip(chunks, ends.tolist(), strict=True)]
