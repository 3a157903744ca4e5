"""The proof that the graph answers as the trained models do, on every text that is at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.latency import session
from tidemill.bundle.netparity import Pair, prove_pairs
from tidemill.bundle.parity import CHUNK, Proof
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runner.texts.reading import answer_texts
from tidemill.bundle.texts.assemble import assemble_texts
from tidemill.bundle.texts.readers import readers_of

_SHOWN = 40
"""So many characters of a text stand in a message."""


def prove(recipe: Recipe, column: str, tables: Mapping[str, NDArray[Any]]) -> Proof:
    """Build the graph of a recipe and prove it on all texts of some tables.

    Parameters
    ----------
    recipe : Recipe
        What to ship; its parts are `tidemill.bundle.texts.readers.TextPart`.
    column : str
        Name of the column with the texts.
    tables : mapping
        Texts by a name for messages, ``{"validation": …, "test": …}``.

    Returns
    -------
    Proof
        With the answers of the models by table.

    Raises
    ------
    ParityError
        With the first texts that differ, and both answers.
    """
    readers = readers_of(recipe.members)
    chunks = [(name, start) for name, texts in tables.items() for start in range(0, len(texts), CHUNK)]
    wanted = [recipe.predict({column: tables[n][s : s + CHUNK]}).scores for n, s in chunks]  # no margin changes them
    names = {name: [f"{str(text)[:_SHOWN]!r}" for text in texts] for name, texts in tables.items()}

    def pairs_of(recipe: Recipe, model: bytes) -> list[Pair]:
        run = session(model)
        out = []
        for (name, start), scores in zip(chunks, wanted, strict=True):
            texts = [str(text) for text in tables[name][start : start + CHUNK]]
            got = answer_texts(run, [reader.read for reader in readers], texts)
            out.append(Pair(name, np.arange(start, start + len(texts)).tolist(), scores, got))
        return out

    return prove_pairs(recipe, assemble_texts, pairs_of, names, "text")
