"""Builds a bundle whose input is an image: proves the graph, measures it, writes the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.folder import atomic_folder, check_replaceable
from tidemill.bundle.images.encoder import IMAGE, ImageEncoder
from tidemill.bundle.images.parity import ImageProof, prove
from tidemill.bundle.images.properties import PROPERTIES
from tidemill.bundle.parts import Recipe
from tidemill.bundle.reference import file as reference
from tidemill.bundle.reference.build import build
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo, BundleSpec
from tidemill.bundle.write import complete, describe, files_of, last_answers, write_files
from tidemill.core.errors import BundleError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.images.pictures import Pictures, Unreadable, look

BATCHES = (1, 8, 64)
"""Batch sizes of the latency curve; a larger one would need gigabytes for large images."""
_GOLDEN = 6
_MOST_SIDE = 512
"""Golden images are kept in the bundle: larger ones are cut to so many pixels a side."""
Prove = Callable[[Recipe, Mapping[str, Pictures]], ImageProof]
"""Builds the graph of a recipe and proves it on images by table."""
Judge = Callable[[ImageProof, Sequence[Evidence]], Sequence[Evidence]]
"""Gives the evidence anew, where a bundle answers otherwise than those who gathered it knew."""


def write_image_bundle(
    out_dir: str | Path,
    recipe: Recipe,
    *,
    tables: Mapping[str, Pictures],
    info: BundleInfo | None = None,
    evidence: Sequence[Evidence] = (),
    prove: Prove = prove,
    judge: Judge | None = None,
) -> Bundle:
    """Prove a recipe's graph on images and write it as a bundle.

    Parameters
    ----------
    out_dir : path
        The folder. A new or empty one, or an older bundle, which is replaced in one step.
    recipe : Recipe
        What to ship; its encoder is an `ImageEncoder`.
    tables : mapping
        Images by name, those that the nets were not trained on: the graph must answer as the nets do on every one.
    info : BundleInfo, optional
        Name, objective, lineage, notes.
    evidence : sequence of Evidence
        Scores on images that the nets did not see, for metrics and pictures.
    prove : callable
        Builds the graph and holds it against the nets.
    judge : callable, optional
        Gives the evidence anew from the proof.

    Returns
    -------
    Bundle
        Open for predictions.

    Raises
    ------
    ParityError
        With the images that differ; nothing is written.
    OptionError
        If something else than a bundle stands at ``out_dir``.
    BundleError
        If the folder can't be written, or no image can be read.
    """
    out = Path(out_dir)
    check_replaceable(out)  # before the work, not after it
    golden = {IMAGE: _choose(recipe.encoder, tables)}
    proof = prove(recipe, tables)
    evidence = evidence if judge is None else judge(proof, evidence)
    described = describe(proof, complete(info or BundleInfo(), out), evidence, golden, batches=BATCHES)
    files = files_of(proof, described, evidence, golden, out.name)
    files[reference.NAME] = _reference(proof, described, evidence).render()
    with atomic_folder(out) as folder:
        write_files(folder, files)
    return Bundle.open(out)


def _reference(proof: ImageProof, described: BundleSpec, evidence: Sequence[Evidence]) -> reference.Reference:
    """How images look, by what can be said of them without a model, and what is answered; all of them held out."""
    task = proof.recipe.task
    schema = Schema(tuple(Column(name, SemanticType.NUMBER) for name in PROPERTIES))
    source, shown = last_answers(proof.recipe, evidence) if evidence else next(iter(proof.answers.items()))
    built = build(schema, task, proof.seen, shown, source=source, metrics=described.metrics)
    # No input carries a property: whoever watches has to look at the image.
    return replace(built, features=tuple(replace(column, input="") for column in built.features))


def _choose(encoder: object, tables: Mapping[str, Pictures]) -> NDArray[np.uint8]:
    """Some images spread over a list, all of the first one's size, and an empty and a full one."""
    for pictures in tables.values():
        picked = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), _GOLDEN)).astype(np.int64))
        found = [p[:_MOST_SIDE, :_MOST_SIDE] for p in look(pictures.take(picked)) if not isinstance(p, Unreadable)]
        if found:
            same = [p for p in found if p.shape == found[0].shape]
            edges = [np.zeros_like(found[0]), np.full_like(found[0], 255)]
            return np.stack([*same, *edges])
    size = f" of {encoder.height} × {encoder.width} pixels" if isinstance(encoder, ImageEncoder) else ""
    raise BundleError(f"None of the images can be read, so that the graph{size} can't be proven.")
