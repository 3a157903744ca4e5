"""The proof that the graph reads as the trained net does, on every image that is at hand, from the file on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.assemble import CONFIDENCE, PREDICTION
from tidemill.bundle.images.encoder import IMAGE
from tidemill.bundle.images.parity import ImageProof
from tidemill.bundle.images.properties import joined, properties_of
from tidemill.bundle.latency import session
from tidemill.bundle.lines.assemble import assemble_lines
from tidemill.bundle.lines.encoder import Lines
from tidemill.bundle.lines.parts import the_part, the_parts
from tidemill.bundle.netparity import MAX_DP, NetParity
from tidemill.bundle.parity import SHOWN, TIE_MARGINS, Difference
from tidemill.bundle.parts import Answers, Recipe
from tidemill.bundle.runner.beams import NETS, decoding, read_beams
from tidemill.bundle.runner.stacks import stacks
from tidemill.core import transcripts
from tidemill.core.errors import ParityError
from tidemill.data.images.pictures import Pictures, Unreadable, look


def prove(recipe: Recipe, tables: Mapping[str, Pictures]) -> ImageProof:
    """Build the graph of a recipe and prove it on all images of some lists.

    Parameters
    ----------
    recipe : Recipe
        What to ship; its part is a `tidemill.bundle.lines.parts.LinePart`.
    tables : mapping
        Images by a name for messages, ``{"validation": …, "test": …}``. Such as can't be read are passed over.

    Returns
    -------
    ImageProof
        With the answers of the net by table, and the properties of the images.

    Raises
    ------
    ParityError
        With the first lines that are read otherwise, and both texts.
    """
    for margin in TIE_MARGINS:
        recipe = replace(recipe, tie_margin=margin)
        proof = _proven(recipe, tables)
        # Another margin helps where texts are all that differs, and nothing else.
        if proof.report.ok or proof.report.flips == 0 or proof.report.max_abs_dp > MAX_DP:
            break
    if not proof.report.rows:
        raise ParityError("There is no image to prove the graph on.")
    proof.report.require()
    return proof


def _proven(recipe: Recipe, tables: Mapping[str, Pictures]) -> ImageProof:
    model = assemble_lines(recipe).SerializeToString()
    run, part = session(model), the_part(recipe)
    searched = decoding(run) if recipe.decode else None
    outputs = [o.name for o in run.get_outputs()]
    tally = _Tally(recipe.tie_margin)
    seen, answers = [], {}
    for table, pictures in tables.items():
        names, scores = pictures.names, []
        readable = (None if isinstance(found, Unreadable) else found for found in look(pictures))
        for places, stack in stacks(readable):
            seen.append(properties_of(stack))
            lines, where = recipe.encoder.transform({IMAGE: stack}), [f"{table} ({names[place]})" for place in places]
            scores.append(part.predict(lines, recipe.tie_margin))
            got = dict(zip(outputs, run.run(None, {IMAGE: stack}), strict=True))
            tally.rows += len(places)
            tally.add(where, places, scores[-1], got)
            if searched is not None:
                scores[-1] = _searched_for(recipe, lines)
                tally.add(where, places, scores[-1], searched.decoded(got))
        if scores:
            answers[table] = Answers(transcripts.joined(scores))
    return ImageProof(model, recipe, tally.report(), answers, seen=joined(seen))


def _searched_for(recipe: Recipe, lines: Lines) -> NDArray[np.float32]:
    """Texts that a search finds in what the trained nets themselves say."""
    said = np.stack([part.frames(list(lines)) for part in the_parts(recipe)], axis=1)
    texts, sure = read_beams(said, **{name: value for name, value in recipe.decoding.items() if name != NETS})
    return transcripts.to_scores(sure, texts)


class _Tally:
    """Counts what differs."""

    def __init__(self, margin: float) -> None:
        self.margin = margin
        self.rows = self.differ = self.flips = 0
        self.worst = 0.0
        self.first: list[Difference] = []

    def add(
        self, where: list[str], places: list[int], scores: NDArray[np.float32], got: Mapping[str, NDArray[Any]]
    ) -> None:
        texts, sure = transcripts.to_texts(transcripts.codes_of(scores)), transcripts.confidence_of(scores)
        dp = np.abs(sure - got[CONFIDENCE])
        flipped = np.array(texts, dtype=object) != got[PREDICTION]
        bad = ~(dp <= MAX_DP) | flipped  # not `>`: NaN differs too
        self.differ += int(bad.sum())
        self.flips += int(flipped.sum())
        self.worst = max(self.worst, float(np.where(np.isnan(dp), np.inf, dp).max(initial=0.0)))
        for i in np.flatnonzero(bad)[: SHOWN - len(self.first)]:
            expected = f"{texts[i]!r} with {sure[i]:.7f}"
            self.first.append(
                Difference(where[i], places[i], expected, f"{got[PREDICTION][i]!r} with {got[CONFIDENCE][i]:.7f}")
            )

    def report(self) -> NetParity:
        return NetParity(
            self.rows, self.differ, max_abs_dp=self.worst, flips=self.flips, first=tuple(self.first),
            tie_margin=self.margin,
        )  # fmt: skip
