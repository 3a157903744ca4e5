"""Nets that set their characters at other steps read together where texts are searched for."""

from __future__ import annotations

import numpy as np
import pytest
from tests.models.recognition.made import READ
from tests.search.lines.test_together import ALPHABET, BOTH, COST, TEXTS, net, said_of, study

from tidemill.bundle.runner.beams import read_beams
from tidemill.core import transcripts
from tidemill.core.frames import Frames
from tidemill.core.objective import parse_objective
from tidemill.core.trial import Trial, TrialState
from tidemill.search.combine import combine
from tidemill.search.ensembles.greedy import GreedyEnsembler
from tidemill.search.judge import Judge
from tidemill.search.lines.beams import BeamReader
from tidemill.search.lines.together import read_by


def later(frames: Frames) -> Frames:
    """The same net, which sets every character a step later."""
    blank = np.log(np.array([[0.9, 0.05, 0.05]]))
    return Frames.of([np.concatenate([blank, line[:-1]]) for line in frames.lines()], frames.alphabet)


APART = {0: BOTH[0], 1: later(BOTH[1])}


def test_whole_texts_are_joined_where_steps_are_not_the_same() -> None:
    best_path, searched = study(APART), study(APART, beams=BeamReader(10))
    assert len(best_path.weights) == 1, "the mean of such steps reads nothing"
    assert set(searched.weights) == {0, 1}
    assert searched.value == 0.0 < best_path.value
    assert searched.cost.params == 20


def test_it_reads_as_a_bundle_does() -> None:
    reader = BeamReader(10)
    scores = reader({0: 0.5, 1: 0.5}, APART)
    lines = [np.stack(both) for both in zip(APART[0].lines(), APART[1].lines(), strict=True)]
    for row, nets in enumerate(lines):
        texts, sure = read_beams(nets[None], ALPHABET, 10, 1e-6)
        assert transcripts.to_texts(transcripts.codes_of(scores))[row] == texts[0]
        assert transcripts.confidence_of(scores)[row] == pytest.approx(float(sure[0]), abs=1e-4)
    assert np.array_equal(reader({1: 0.5, 0: 0.5}, APART), scores)


def test_the_net_that_reads_best_alone_comes_first() -> None:
    frames = {0: net({0: [0], 3: [1], 4: [0]}), 1: later(net({1: [0], 5: [1]})), 2: later(net({0: [0]}))}
    chosen = study(frames, beams=BeamReader(10))
    assert next(iter(chosen.weights)) == 2
    assert sum(chosen.weights.values()) == pytest.approx(1.0)


def test_known_lengths_and_bounds_on_costs_are_kept() -> None:
    short = Frames.of([said_of(text, (), 0.6) for text in TEXTS], ALPHABET)
    read = transcripts.to_texts(transcripts.codes_of(BeamReader(20, (2,))({0: 1.0}, {0: short})))
    assert {len(text) for text, truth in zip(read, TEXTS, strict=True) if len(truth) > 1} == {2}
    assert len(study(APART, "minimize cer; params <= 15", beams=BeamReader(10)).weights) == 1


def test_a_net_of_which_nothing_is_kept_is_shipped_alone() -> None:
    assert study({0: BOTH[0]}, beams=BeamReader(10)).weights == {0: 1.0}
    trials = [Trial("s", 0, {"family": "crnn"}, TrialState.COMPLETE, "crnn", "portfolio", seed=0, cost=COST)]
    judge = Judge(objective=parse_objective("minimize cer").resolve(READ), task=READ, y=transcripts.to_codes(TEXTS),
                  columns={})  # fmt: skip
    alone = combine(trials, {0: read_by({0: 1.0}, BOTH)}, judge, GreedyEnsembler(5, seed=0), 10**9,
                    frames=lambda numbers: {}, beams=BeamReader(10))  # fmt: skip
    assert alone.weights == {0: 1.0}
