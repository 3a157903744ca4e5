"""Builds a bundle that reads lines of text: proves the graph, measures it, writes the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.images.parity import ImageProof
from tidemill.bundle.images.write import write_image_bundle
from tidemill.bundle.lines.parity import prove
from tidemill.bundle.lines.parts import the_parts
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runner.beams import NETS
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.core.errors import BundleError, OptionError
from tidemill.core.transcripts import BEAM, GREEDY
from tidemill.data.images.pictures import Pictures

WIDTH = 10
"""Prefixes that a search follows where nobody says otherwise."""
_MOST_WIDTH = 1000
_TABLES = {"out_of_fold": "validation", "test": "test"}
"""Images that are proven, by the source of the evidence on them."""


def beam_width(words: str) -> int:
    """Read how texts are to be searched for: ``greedy``, the best path, is 0; ``beam`` and ``beam:20`` have a width.

    Examples
    --------
    >>> beam_width("greedy"), beam_width("beam"), beam_width("beam:20")
    (0, 10, 20)
    """
    name, colon, number = words.partition(":")
    if name == GREEDY and not colon:
        return 0
    if name == BEAM and not colon:
        return WIDTH
    if name != BEAM or not (number.isascii() and number.isdigit() and 1 <= int(number) <= _MOST_WIDTH):
        raise OptionError(
            f"Texts are decoded by greedy, beam, or beam:WIDTH up to {_MOST_WIDTH:,}, but got {words!r}.",
            where="--decode",
        )
    return int(number)


def write_line_bundle(
    out_dir: str | Path,
    recipe: Recipe,
    *,
    tables: Mapping[str, Pictures],
    info: BundleInfo | None = None,
    evidence: Sequence[Evidence] = (),
    width: int = 0,
    lengths: Sequence[int] = (),
) -> Bundle:
    """Prove a recipe's graph on images of lines and write it as a bundle; as `write_image_bundle` does.

    Parameters
    ----------
    out_dir, tables, info, evidence
        As `tidemill.bundle.images.write.write_image_bundle` takes them.
    recipe : Recipe
        What to ship; its encoder is a `LineEncoder`, its parts read lines.
    width : int
        Prefixes that a search by beams follows behind the graph; 0 leaves it with the best path, which the graph holds.
        What is searched for is measured anew, on the images of the proof. Several nets are joined there, by what they
        think of whole texts, and the graph alone gives the text of the first.
    lengths : sequence of int
        Such a search looks for texts of so many characters only; empty allows all.

    Raises
    ------
    ParityError
        With the lines that are read otherwise; nothing is written.
    OptionError, BundleError
        As `tidemill.bundle.images.write.write_image_bundle`.
    """
    if width:
        nets = the_parts(recipe)
        known: dict[str, Any] = {"lengths": list(lengths)} if lengths else {}
        if len(nets) > 1:
            known[NETS] = len(nets)
        recipe = replace(recipe, decode={"alphabet": nets[0].alphabet, "width": width, **known})
    return write_image_bundle(
        out_dir, recipe, tables=tables, info=info, evidence=evidence, prove=prove, judge=_judged if width else None
    )


def _judged(proof: ImageProof, evidence: Sequence[Evidence]) -> Sequence[Evidence]:
    """Evidence with the texts that were searched for, in the place of those that the best path gave."""
    out = []
    for known in evidence:
        answers = proof.answers.get(_TABLES[known.source])
        if answers is None or len(answers.scores) != len(known.y):
            raise BundleError("Not all images on which the net was judged can be read again, so that it can't be "
                              "measured with another decoding.")  # fmt: skip
        out.append(replace(known, scores=answers.scores))
    return out
