"""The stream of samples, and how a batch is cut."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.train.cursor import Cursor, cursor_of, generator, pieces, torch_seed


@given(samples=st.integers(1, 60), batch=st.integers(1, 80), seed=st.integers(0, 2**32))
def test_every_epoch_of_the_stream_has_every_sample_once(samples: int, batch: int, seed: int) -> None:
    cursor = Cursor(samples, batch, seed)
    steps = -(-3 * samples // batch)
    stream = np.concatenate([cursor.indices(step) for step in range(steps)])
    assert len(stream) == steps * batch
    for epoch in range(3):
        assert sorted(stream[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


@given(samples=st.integers(1, 60), batch=st.integers(1, 80), step=st.integers(0, 50))
def test_a_step_is_the_same_whoever_asks_and_when(samples: int, batch: int, step: int) -> None:
    walked = Cursor(samples, batch, seed=3)
    for before in range(step):
        walked.indices(before)
    assert np.array_equal(walked.indices(step), Cursor(samples, batch, seed=3).indices(step))


WIDTHS = st.lists(st.integers(1, 9), min_size=1, max_size=200)


@given(widths=WIDTHS, batch=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_where_widths_differ_every_epoch_still_has_every_sample_once(widths: list[int], batch: int, seed: int) -> None:
    cursor = Cursor(len(widths), batch, seed, np.array(widths))
    steps = -(-3 * len(widths) // batch)
    stream = np.concatenate([cursor.indices(step) for step in range(steps)])
    for epoch in range(3):
        part = stream[epoch * len(widths) : (epoch + 1) * len(widths)]
        assert sorted(part) == list(range(len(widths)))


def test_samples_of_about_one_length_stand_in_one_batch_in_every_epoch() -> None:
    widths = np.random.default_rng(0).integers(10, 1000, 1003)
    filled = {}
    for known in (None, widths):
        cursor = Cursor(len(widths), 8, 0, known)
        longest = [widths[cursor.indices(step)].max() for step in range(600)]
        filled[known is None] = np.mean(longest) / widths.mean()
    assert filled[True] > 1.6
    assert filled[False] < 1.15
    assert not np.array_equal(cursor.indices(0), cursor.indices(126)), "batches of another epoch are others"
    first = [int(widths[cursor.indices(step)].mean()) for step in range(16)]
    assert first != sorted(first), "long ones don't all come last"


def test_samples_of_one_length_are_left_to_chance() -> None:
    class Alike:
        widths = np.full(20, 7)

        def __len__(self) -> int:
            return 20

    stream = cursor_of(Alike(), 4, 3)  # type: ignore[arg-type]  # nobody asks it for a batch
    assert np.array_equal(stream.indices(2), Cursor(20, 4, 3).indices(2))


@given(batch=st.integers(1, 200), world=st.integers(1, 9), micro=st.integers(1, 70))
def test_pieces_of_all_processes_make_up_the_batch(batch: int, world: int, micro: int) -> None:
    cuts = [pieces(batch, rank, world, micro) for rank in range(world)]
    assert len({len(one) for one in cuts}) == 1, "sharded passes are made together"
    flat = [cut for one in cuts for cut in one]
    assert flat[0][0] == 0
    assert flat[-1][1] == batch
    assert all(a[1] == b[0] for a, b in itertools.pairwise(flat))
    sizes = [stop - start for start, stop in flat]
    assert max(sizes) <= micro
    for one in cuts:
        own = [stop - start for start, stop in one]
        assert max(own) - min(own) <= 1


def test_randomness_depends_on_seed_step_and_place() -> None:
    draws = {(s, k, p): generator(s, k, p).random() for s in (0, 1) for k in (0, 1) for p in (0, 8)}
    assert len(set(draws.values())) == len(draws)
    assert len({torch_seed(*key) for key in draws}) == len(draws)
    assert all(0 <= torch_seed(*key) < 2**63 for key in draws)
