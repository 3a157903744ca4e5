"""Builds a bundle with embedded columns: proves the graph, measures it, writes the folder with its readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tidemill.bundle import golden
from tidemill.bundle.evidence import Evidence
from tidemill.bundle.folder import atomic_folder, check_replaceable
from tidemill.bundle.fusion.assemble import embeddings_of, readers_of
from tidemill.bundle.fusion.parity import inputs_of, prove
from tidemill.bundle.fusion.parts import Rows
from tidemill.bundle.latency import profile
from tidemill.bundle.parity import Proof
from tidemill.bundle.parts import Recipe
from tidemill.bundle.reference import file as reference
from tidemill.bundle.reference.build import build
from tidemill.bundle.runner.fusion.rows import feed_of_rows
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo, BundleSpec
from tidemill.bundle.write import complete, describe, files_of, last_answers, write_files
from tidemill.core.errors import BundleError
from tidemill.core.schema import Columns, Schema, SemanticType

BATCHES = (1, 8, 32)
"""Batch sizes of the latency curve; more rows are never sent through the graph at a time."""
_GOLDEN_SIDE = 256
"""Golden images are kept in the bundle: larger ones are cut to so many pixels a side."""


def write_fused_bundle(
    out_dir: str | Path,
    recipe: Recipe,
    *,
    tables: Mapping[str, Rows],
    columns: Columns,
    info: BundleInfo | None = None,
    evidence: Sequence[Evidence] = (),
) -> Bundle:
    """Prove a recipe's graph on rows and write it as a bundle.

    Parameters
    ----------
    out_dir : path
        The folder. A new or empty one, or an older bundle, which is replaced in one step.
    recipe : Recipe
        What to ship; its encoder is a `tidemill.bundle.fusion.parts.FusedPart`.
    tables : mapping
        Rows by name: the graph must answer as encoders and models do on every one of them.
    columns : Columns
        Training rows without their images, for the reference that drift is measured by.
    info : BundleInfo, optional
        Name, objective, lineage, notes.
    evidence : sequence of Evidence
        Scores on rows that the models did not see, for metrics and pictures.

    Returns
    -------
    Bundle
        Open for predictions.

    Raises
    ------
    ParityError
        With the rows that differ; nothing is written.
    OptionError
        If something else than a bundle stands at ``out_dir``.
    BundleError
        If the folder can't be written, or there is no row.
    """
    out = Path(out_dir)
    check_replaceable(out)  # before the work, not after it
    edges = _golden(recipe.schema, tables)
    proof = prove(recipe, tables)
    embeddings = embeddings_of(recipe)
    readers = readers_of(embeddings)
    reads = {column: reader.read for column, reader in readers.items()}
    rows = len(next(iter(edges.values())))
    feed = feed_of_rows(inputs_of(recipe), reads, edges, range(rows))
    performance = profile(proof.model, feed, batches=BATCHES)
    described = describe(proof, complete(info or BundleInfo(), out), evidence, edges, performance=performance)
    files = files_of(proof, described, evidence, edges, out.name, tensors=feed)
    files |= {reader.file: reader.data for reader in readers.values()}
    files[reference.NAME] = _reference(proof, described, columns, evidence).render()
    with atomic_folder(out) as folder:
        write_files(folder, files)
    return Bundle.open(out)


def _reference(
    proof: Proof, described: BundleSpec, columns: Columns, evidence: Sequence[Evidence]
) -> reference.Reference:
    """How columns look in training, those of images apart, and answers on rows that the model did not see."""
    recipe = proof.recipe
    source, shown = last_answers(recipe, evidence) if evidence else next(iter(proof.answers.items()))
    plain = Schema(tuple(c for c in recipe.schema if c.type is not SemanticType.IMAGE))
    return build(plain, recipe.task, columns, shown, source=source, metrics=described.metrics)


def _golden(schema: Schema, tables: Mapping[str, Rows]) -> Columns:
    """Some rows spread over a table, and two that test the edges: all missing, and all unseen."""
    rows = next((rows for rows in tables.values() if len(rows)), None)
    if rows is None:
        raise BundleError("There is no row, so that the graph can't be proven.")
    images = [c.name for c in schema.features if c.type is SemanticType.IMAGE]
    plain = Schema(tuple(c for c in schema if c.name not in images))
    picked = rows.take(golden.spread(len(rows)))
    out = golden.choose_rows(picked.columns, plain) if plain.features else {}
    cells = picked.read()
    for name in images:
        # A graph takes images of one size at a time; the others of these rows are missing.
        found = [None if cell is None else cell[:_GOLDEN_SIDE, :_GOLDEN_SIDE] for cell in cells[name]]
        shape = next((cell.shape for cell in found if cell is not None), None)
        values = np.empty(len(found) + 2, dtype=object)
        for place, cell in enumerate(found):
            values[place] = cell if cell is not None and cell.shape == shape else None
        out[name] = values
    return out
