"""The proof that the graph answers as the trained nets do, on every image that is at hand, from the file on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.assemble import assemble
from tidemill.bundle.images.encoder import IMAGE
from tidemill.bundle.images.properties import joined, properties_of
from tidemill.bundle.latency import session
from tidemill.bundle.netparity import MAX_DP, Pair, prove_pairs
from tidemill.bundle.parity import Proof
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runner.stacks import stacks
from tidemill.core.schema import Columns
from tidemill.data.images.pictures import Pictures, Unreadable, look

__all__ = ["MAX_DP", "ImageProof", "prove"]

Seen = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class ImageProof(Proof):
    """A graph that was proven on images.

    Parameters
    ----------
    model, recipe, report, answers
        As in `Proof`.
    seen : Columns
        Properties of all images, by name; see `tidemill.bundle.images.properties`.
    """

    seen: Columns = field(default_factory=dict)


def prove(recipe: Recipe, tables: Mapping[str, Pictures]) -> ImageProof:
    """Build the graph of a recipe and prove it on all images of some lists.

    Parameters
    ----------
    recipe : Recipe
        What to ship.
    tables : mapping
        Images by a name for messages, ``{"validation": …, "test": …}``. Such as can't be read are passed over.

    Returns
    -------
    ImageProof
        With the answers of the nets by table, and the properties of the images.

    Raises
    ------
    ParityError
        With the first images that differ, and both answers.
    """
    names = {table: pictures.names for table, pictures in tables.items()}

    seen: list[Seen] = []

    def pairs_of(recipe: Recipe, model: bytes) -> list[Pair]:
        seen.clear()
        return list(_pairs(recipe, model, tables, seen.append))

    proof = prove_pairs(recipe, assemble, pairs_of, names, "image")
    return ImageProof(proof.model, proof.recipe, proof.report, proof.answers, seen=joined(seen))


def _pairs(
    recipe: Recipe, model: bytes, tables: Mapping[str, Pictures], tell: Callable[[Seen], None]
) -> Iterator[Pair]:
    run = session(model)
    outputs = [o.name for o in run.get_outputs()]
    for table, pictures in tables.items():
        readable = (None if isinstance(found, Unreadable) else found for found in look(pictures))
        for places, stack in stacks(readable):
            tell(properties_of(stack))
            expected = recipe.predict({IMAGE: stack}).scores
            yield Pair(table, places, expected, dict(zip(outputs, run.run(None, {IMAGE: stack}), strict=True)))
