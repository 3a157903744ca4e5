"""Nets read together where that makes fewer errors and can be shipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.models.recognition.made import READ

from tidemill.core import transcripts
from tidemill.core.frames import Frames
from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.trial import Cost, Trial, TrialState
from tidemill.search.candidate import Candidate
from tidemill.search.combine import combine
from tidemill.search.ensembles.greedy import GreedyEnsembler
from tidemill.search.judge import Judge
from tidemill.search.lines.beams import BeamReader
from tidemill.search.lines.together import MOST, choose, choose_first, read_by

TEXTS = ["abba", "ab", "b", "aab", "ba", "bb"]
ALPHABET = "ab"
COST = Cost(params=10, flops=100, size_bytes=1_000, latency_ms=1.0, batch_us=10.0)


def said_of(text: str, wrong: Sequence[int], sure: float) -> NDArray[np.float64]:
    """Each character stands in one step, a blank behind it; those that are wrong are believed to be the other one."""
    rows = np.full((2 * len(text), 3), (1 - sure) / 2)
    for place, character in enumerate(text):
        right = 1 + ALPHABET.index(character)
        rows[2 * place, (3 - right) if place in wrong else right] = sure
        rows[2 * place + 1, 0] = sure
    return np.log(rows / rows.sum(axis=1, keepdims=True))


def net(mistakes: Mapping[int, Sequence[int]], doubt: float = 0.5) -> Frames:
    """What a net says that reads some characters of some lines wrongly, and those with doubt."""
    lines = []
    for number, text in enumerate(TEXTS):
        wrong = mistakes.get(number, ())
        said = said_of(text, wrong, 0.9)
        for place in wrong:
            said[2 * place] = said_of(text, wrong, doubt)[2 * place]
        lines.append(said)
    return Frames.of(lines, ALPHABET)


def study(
    frames: Mapping[int, Frames],
    words: str = "minimize cer",
    most_bytes: int = 10**9,
    beams: BeamReader | None = None,
) -> Candidate:
    trials = [
        Trial("s", n, {"family": "crnn"}, TrialState.COMPLETE, "crnn", "portfolio", seed=n, cost=COST) for n in frames
    ]
    objective = parse_objective(words).resolve(READ)
    judge = Judge(objective=objective, task=READ, y=transcripts.to_codes(TEXTS), columns={})
    predictions = {n: read_by({n: 1.0}, {n: said}) for n, said in frames.items()}
    return combine(
        trials,
        predictions,
        judge,
        GreedyEnsembler(5, seed=0),
        most_bytes,
        frames=lambda numbers: {n: frames[n] for n in numbers},
        beams=beams,
    )


BOTH = {0: net({0: [0], 3: [1]}), 1: net({1: [0], 5: [1], 2: [0]})}


def test_mistakes_of_one_are_made_good_by_the_other() -> None:
    chosen = study(BOTH)
    assert chosen.weights == {0: 0.5, 1: 0.5}
    assert chosen.value == 0.0
    assert chosen.cost.params == 20
    scores = chosen.scores({}, BOTH)
    assert transcripts.to_texts(transcripts.codes_of(scores)) == TEXTS
    assert get_metric("exact")(transcripts.to_codes(TEXTS), scores, task=READ) == 1.0


def test_who_adds_nothing_stays_out() -> None:
    assert study({0: net({0: [0]}), 1: net({0: [0], 1: [0]}, doubt=0.9)}).weights == {0: 1.0}
    assert study({0: net({})}).weights == {0: 1.0}


def test_of_a_net_of_which_nothing_is_kept_nothing_is_joined() -> None:
    trials = [Trial("s", 0, {"family": "crnn"}, TrialState.COMPLETE, "crnn", "portfolio", seed=0, cost=COST)]
    objective = parse_objective("minimize cer").resolve(READ)
    judge = Judge(objective=objective, task=READ, y=transcripts.to_codes(TEXTS), columns={})
    predictions = {0: read_by({0: 1.0}, BOTH)}
    assert combine(trials, predictions, judge, GreedyEnsembler(5, seed=0), 10**9).weights == {0: 1.0}


@pytest.mark.parametrize("words", ["minimize cer; latency_ms <= 1.5", "minimize cer; params <= 15"])
def test_bounds_on_costs_count_all_members(words: str) -> None:
    assert len(study(BOTH, words).weights) == 1
    assert len(study(BOTH, words.replace("1.5", "2.5").replace("15", "25")).weights) == 2


def test_so_does_the_bound_on_the_size_of_a_bundle() -> None:
    assert len(study(BOTH, most_bytes=1_500).weights) == 1


def test_nets_of_other_steps_are_left_alone() -> None:
    other = Frames.of([np.log(np.full((3, 3), 1 / 3)) for _ in TEXTS], ALPHABET)
    assert set(study({**BOTH, 2: other}).weights) == {0, 1}


def test_no_more_than_a_few_read_together() -> None:
    frames = {n: net({}) for n in range(MOST + 3)}
    losses = iter(np.linspace(1.0, 0.0, 1000))
    chosen = choose(frames, 0, lambda weights, scores: next(losses), lambda weights: True)
    assert len(chosen) == MOST
    assert sum(chosen.values()) == pytest.approx(1.0)


ALIKE = {n: net({}) for n in range(MOST + 3)}


def known(losses: Mapping[tuple[int, ...], float]) -> Callable[[Mapping[int, float], object], float]:
    """A loss by the numbers of the nets that read; 1 where none is told."""
    return lambda weights, scores: losses.get(tuple(sorted(weights)), 1.0)


def first_of(losses: Mapping[tuple[int, ...], float], most: int = 9, frames: Mapping[int, Frames] = ALIKE) -> list[int]:
    chosen = choose_first(frames, known(losses), lambda weights: len(weights) <= most, read_by)
    assert sum(chosen.values()) == pytest.approx(1.0)
    assert len(set(chosen.values())) == 1
    return list(chosen)


def test_as_many_of_the_first_read_together_as_read_best() -> None:
    alone = {(3,): 0.1, (1,): 0.2, (5,): 0.3, (0,): 0.4}
    assert first_of(alone) == [3]
    assert first_of({**alone, (1, 3): 0.08, (0, 3): 0.0}) == [3, 1], "no other two are tried"
    assert first_of({**alone, (1, 3): 0.15, (1, 3, 5): 0.05}) == [3, 1, 5], "two may be worse than one and than three"
    assert first_of({**alone, (1, 3): 0.1}) == [3], "who adds nothing stays out"


def test_what_cannot_be_shipped_or_joined_is_not_chosen() -> None:
    alone = {(0,): 0.1, (1,): 0.2, (2,): 0.3}
    assert first_of({**alone, (0, 1): 0.05, (0, 1, 2): 0.0}, most=2) == [0, 1]
    other = Frames.of([np.log(np.full((3, 3), 1 / 3)) for _ in TEXTS], ALPHABET)
    assert first_of({**alone, (0, 1): 0.0, (0, 2): 0.05}, frames={**ALIKE, 1: other}) == [0, 2]


def test_of_those_that_read_well_no_more_than_a_few_are_first() -> None:
    losses = {tuple(range(n + 1)): 1 / (n + 2) for n in range(MOST + 3)}
    assert first_of(losses) == list(range(MOST))


def test_of_nets_that_all_keep_no_bound_the_foremost_is_chosen() -> None:
    frames = {n: ALIKE[n] for n in (2, 0, 1)}
    assert list(choose_first(frames, lambda weights, scores: float("inf"), lambda weights: True, read_by)) == [2]
