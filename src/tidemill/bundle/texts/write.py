"""Builds a bundle whose input is a text: proves the graph, measures it, writes the folder with its readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.folder import atomic_folder, check_replaceable
from tidemill.bundle.latency import profile
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.bundle.texts.encoder import TextEncoder
from tidemill.bundle.texts.parity import prove
from tidemill.bundle.texts.readers import read_all, readers_of
from tidemill.bundle.write import complete, describe, files_of, write_files
from tidemill.core.errors import BundleError, InternalError

BATCHES = (1, 8, 32)
"""Batch sizes of the latency curve; more texts are never sent through the graph at a time."""
_GOLDEN = 12
_MOST_CHARACTERS = 500
"""Golden rows are kept in the bundle: longer texts are cut for it."""
_UNSEEN = "never seen in training"


def write_text_bundle(
    out_dir: str | Path,
    recipe: Recipe,
    *,
    tables: Mapping[str, NDArray[Any]],
    info: BundleInfo | None = None,
    evidence: Sequence[Evidence] = (),
) -> Bundle:
    """Prove a recipe's graph on texts and write it as a bundle.

    Parameters
    ----------
    out_dir : path
        The folder. A new or empty one, or an older bundle, which is replaced in one step.
    recipe : Recipe
        What to ship; its encoder is a `TextEncoder`.
    tables : mapping
        Texts by name, those that the models were not trained on: the graph must answer as the models do on every one.
    info : BundleInfo, optional
        Name, objective, lineage, notes.
    evidence : sequence of Evidence
        Scores on texts that the models did not see, for metrics and pictures.

    Returns
    -------
    Bundle
        Open for predictions.

    Raises
    ------
    ParityError
        With the texts that differ; nothing is written.
    OptionError
        If something else than a bundle stands at ``out_dir``.
    BundleError
        If the folder can't be written, or there is no text.
    """
    out = Path(out_dir)
    check_replaceable(out)  # before the work, not after it
    encoder = recipe.encoder
    if not isinstance(encoder, TextEncoder):
        raise InternalError("A bundle for texts is made of a recipe for texts.")
    golden = _choose(tables)
    proof = prove(recipe, encoder.column, tables)
    readers = readers_of(recipe.members)
    feed = read_all(readers, golden)
    rows = {encoder.column: np.array(golden, dtype=object)}
    performance = profile(proof.model, feed, batches=BATCHES)
    described = describe(proof, complete(info or BundleInfo(), out), evidence, rows, performance=performance)
    files = files_of(proof, described, evidence, rows, out.name, tensors=feed)
    files |= {reader.file: reader.data for reader in readers}
    with atomic_folder(out) as folder:
        write_files(folder, files)
    return Bundle.open(out)


def _choose(tables: Mapping[str, NDArray[Any]]) -> list[str]:
    """Some texts spread over a table, an empty one, and one of unknown words."""
    for texts in tables.values():
        if len(texts):
            picked = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _GOLDEN)).astype(np.int64))
            return [*(str(texts[i])[:_MOST_CHARACTERS] for i in picked), "", _UNSEEN]
    raise BundleError("There is no text, so that the graph can't be proven.")
