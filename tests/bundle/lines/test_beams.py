"""Prefix beam search finds what all ways to write a text together say, and bundles that search answer so."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tidemill.bundle.lines.decode import greedy
from tidemill.bundle.runner.beams import Ids, beams, likeliest, probabilities, read_beams

ALPHABET = "ab"


@st.composite
def frames(draw: st.DrawFn, most: int = 5) -> NDArray[Any]:
    logits = draw(arrays.arrays(np.float64, (draw(st.integers(1, most)), 3), elements=st.floats(-4, 4)))
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def best_of(given_frames: NDArray[Any], width: int, lengths: set[int] | None = None) -> tuple[Ids, float]:
    return beams(given_frames, width, lengths or ())[0]


def probability_of(given_frames: NDArray[Any], ids: Ids) -> float:
    return float(probabilities(given_frames, [ids])[0])


def written(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(o for i, o in enumerate(path) if o and (i == 0 or path[i - 1] != o))


def every(given_frames: NDArray[Any]) -> dict[tuple[int, ...], float]:
    """Probability of every text, by summing over all paths."""
    out: dict[tuple[int, ...], float] = {}
    for path in product(range(3), repeat=len(given_frames)):
        p = float(np.exp(sum(given_frames[t, o] for t, o in enumerate(path))))
        out[written(path)] = out.get(written(path), 0.0) + p
    return out


@given(frames())
def test_without_dropping_it_finds_the_most_probable_text(given_frames: NDArray[Any]) -> None:
    ids, log = best_of(given_frames, width=10_000)
    known = every(given_frames)
    assert np.isclose(known[ids], max(known.values()))
    assert np.isclose(np.exp(log), known[ids])


@given(frames(), st.sets(st.integers(0, 4), min_size=1, max_size=3))
def test_where_lengths_are_known_it_finds_the_most_probable_text_of_them(
    given_frames: NDArray[Any], lengths: set[int]
) -> None:
    ids, log = best_of(given_frames, 10_000, lengths)
    known = every(given_frames)
    fitting = {text: p for text, p in known.items() if len(text) in lengths}
    if fitting:
        assert np.isclose(known[ids], max(fitting.values()))
        assert np.isclose(np.exp(log), known[ids])
    else:
        assert np.isclose(known[ids], max(p for text, p in known.items() if len(text) <= max(lengths)))


@given(frames(most=8), st.integers(1, 6), st.sets(st.integers(0, 4), min_size=1))
def test_no_text_is_longer_than_the_known_lengths(given_frames: NDArray[Any], width: int, lengths: set[int]) -> None:
    assert len(best_of(given_frames, width, lengths)[0]) <= max(lengths)


@given(frames())
def test_all_ways_together_are_the_probability(given_frames: NDArray[Any]) -> None:
    for ids, p in every(given_frames).items():
        assert np.isclose(np.exp(probability_of(given_frames, ids)), p)


@given(frames(most=8), st.integers(1, 6))
def test_what_it_claims_is_never_more_than_the_text_has(given_frames: NDArray[Any], width: int) -> None:
    ids, log = best_of(given_frames, width)
    assert log <= probability_of(given_frames, ids) + 1e-9


@given(frames())
def test_a_wide_beam_is_at_least_as_probable_as_the_best_path(given_frames: NDArray[Any]) -> None:
    texts, confidence = greedy(given_frames[None], ALPHABET, 0.0)
    path = tuple(ALPHABET.index(c) + 1 for c in texts[0])
    ids, _ = best_of(given_frames, width=10_000)
    assert probability_of(given_frames, ids) >= probability_of(given_frames, path) - 1e-9
    assert np.log(confidence[0]) <= probability_of(given_frames, path) + 1e-5


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_where_every_step_is_sure_a_beam_of_one_is_the_best_path(path: list[int]) -> None:
    sure = np.full((len(path), 3), np.log(1e-6))
    sure[np.arange(len(path)), path] = np.log(1 - 2e-6)
    ids, _ = best_of(sure, width=1)
    assert ids == written(tuple(path))


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 6))
def test_a_search_follows_the_best_prefixes_of_every_step(seed: int, steps: int, width: int) -> None:
    """As the textbook has it: every prefix with what ends in a blank and what does not, kept in a dictionary."""
    p = np.random.default_rng(seed).dirichlet((0.7, 0.7, 0.7), steps) + 1e-9  # without ties, which either may break
    ids, log = best_of(np.log(p), width)
    known: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}
    for step in p:
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, last) in known.items():
            grown.setdefault(prefix, [0.0, 0.0])[0] += (blank + last) * step[0]
            for output in (1, 2):
                twice = bool(prefix) and prefix[-1] == output
                grown.setdefault((*prefix, output), [0.0, 0.0])[1] += (blank if twice else blank + last) * step[output]
                if twice:
                    grown.setdefault(prefix, [0.0, 0.0])[1] += last * step[output]
        ranked = sorted(grown.items(), key=lambda item: -sum(item[1]))
        known = {prefix: (ways[0], ways[1]) for prefix, ways in ranked[:width]}
    best = max(known, key=lambda prefix: sum(known[prefix]))
    assert ids == best
    assert np.isclose(np.exp(log), sum(known[best]))


@given(st.lists(frames(most=1).map(lambda f: f[0]), min_size=1, max_size=6), st.integers(2, 4))
def test_lines_are_read_one_by_one(steps: list[NDArray[Any]], count: int) -> None:
    line = np.stack(steps)
    texts, sure = read_beams(np.stack([line] * count), ALPHABET, 50, 0.0)
    ids, _ = best_of(line.astype(np.float32), 50)
    assert texts == ["".join(ALPHABET[i - 1] for i in ids)] * count
    np.testing.assert_allclose(sure, np.exp(probability_of(line, ids)), rtol=1e-4)


def test_a_near_tie_goes_to_the_character_that_comes_first() -> None:
    p = np.log([[[0.2, 0.4, 0.4 + 1e-8]]])
    assert read_beams(p, ALPHABET, 10, 1e-6)[0] == ["a"]


@given(frames(most=4), frames(most=4))
def test_several_nets_find_the_text_to_which_they_give_most_together(first: NDArray[Any], second: NDArray[Any]) -> None:
    steps = min(len(first), len(second))
    nets = np.stack([first[:steps], second[:steps]])
    known = [every(said) for said in nets]
    offered = {ids for said in nets for ids, _ in beams(said, 10_000)[:5]}
    together = {ids: known[0].get(ids, 0.0) * known[1].get(ids, 0.0) for ids in offered}
    found = likeliest(nets, 10_000)
    assert np.isclose(together[found], max(together.values()))
    texts, sure = read_beams(nets[None], ALPHABET, 10_000, 0.0)
    assert np.isclose(sure[0], np.sqrt(known[0][found] * known[1][found]), rtol=1e-4)
    assert texts == ["".join(ALPHABET[i - 1] for i in found)]


@given(frames(most=6), st.integers(1, 5))
def test_a_net_beside_itself_reads_as_it_does_alone(given_frames: NDArray[Any], width: int) -> None:
    alone = read_beams(given_frames[None], ALPHABET, width, 0.0)
    twice = read_beams(np.stack([given_frames] * 2)[None], ALPHABET, width, 0.0)
    assert twice[0] == alone[0]
    np.testing.assert_allclose(twice[1], alone[1], rtol=1e-6)


def test_of_several_nets_only_texts_of_known_lengths_are_weighed() -> None:
    sure = np.log([[[0.05, 0.9, 0.05]] * 2, [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05]]])
    assert likeliest(sure, 10, lengths=[2]) in {(1, 2), (2, 1)}
    alone = {beams(said, 10, [7])[0][0] for said in sure}
    assert likeliest(sure, 10, lengths=[7]) in alone, "where none is so long, it is one that is most probable for a net"
