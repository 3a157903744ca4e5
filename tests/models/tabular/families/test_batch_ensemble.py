"""Members that share their weights: slopes against differences, and each member against a network of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidemill.core.pack import pack, unpack
from tidemill.models.tabular._base import Feature, FeatureKind
from tidemill.models.tabular.families._batch_ensemble import BatchEnsemble, Numbers
from tidemill.models.tabular.families._embedding import (
    MOST_NUMBERS,
    WAVES,
    WIDTH,
    Embedding,
    bend,
    numbers_in,
    pieces_of,
)
from tidemill.models.tabular.families._net import Adam, Layer, run_layers
from tidemill.testing.graphs import compile_matrix

KINDS = ("periodic", "pieces", "none")
COLUMNS = np.array([0, 2], dtype=np.int64)


def rows(n: int = 40, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, 3), dtype=np.float32)


def network(kind: str = "periodic", activation: str = "silu", members: int = 2, outputs: int = 2) -> BatchEnsemble:
    rng = np.random.default_rng(1)
    numbers = None if kind == "none" else Numbers(kind, COLUMNS)
    made = BatchEnsemble(rows(), numbers, outputs, (5, 4), members, activation, rng)
    made.flat += 0.1 * rng.standard_normal(made.flat.shape, dtype=np.float32)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_are_those_of_differences(kind: str) -> None:
    net, rng = network(kind), np.random.default_rng(0)
    x = rows(7, seed=3)[None]
    push = rng.standard_normal((2, 7, 2), dtype=np.float32)

    def loss() -> float:
        return float((net.forward(x, 0.0, rng)[0].astype(np.float64) * push).sum())

    net.backward(push.copy(), net.forward(x, 0.0, rng)[1])
    found = net.grad.copy()
    step = np.float32(1e-2)
    wanted = np.empty_like(found)
    for i, kept in enumerate(net.flat.copy()):
        net.flat[i] = kept + step
        above = loss()
        net.flat[i] = kept - step
        wanted[i] = (above - loss()) / (2 * float(step))
        net.flat[i] = kept
    np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-2)
    assert np.abs(found).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_each_member_is_a_network_of_its_own(kind: str, activation: str) -> None:
    acting, x = network(kind, activation, members=3).acting(), rows(9, seed=4)
    inputs = x if acting.embedding is None else acting.embedding.run(x)
    layers = [Layer(la.r.transpose(0, 2, 1) * la.w[None], la.b) for la in acting.layers]
    np.testing.assert_allclose(
        acting.run(x), run_layers([*layers, acting.head], inputs, activation), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_acts_is_what_learns(kind: str) -> None:
    net, x = network(kind), rows(9, seed=4)
    learning, _ = net.forward(x[None], 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(net.acting().run(x), learning, rtol=1e-6, atol=1e-6)


def test_what_acts_does_not_learn_any_more() -> None:
    net, x = network(), rows(9, seed=4)
    acting = net.acting()
    before = acting.run(x)
    z, tape = net.forward(x[None], 0.0, np.random.default_rng(0))
    net.backward(np.ones_like(z), tape)
    Adam(net).step(0.1, 0.1)
    assert np.array_equal(acting.run(x), before)
    assert not np.array_equal(net.acting().run(x), before)


def test_what_one_member_learns_reaches_the_others_through_the_shared_weights_alone() -> None:
    net, x = network("none"), rows(9, seed=4)
    z, tape = net.forward(x[None], 0.0, np.random.default_rng(0))
    alone = np.zeros_like(z)
    alone[1] = 1.0
    net.backward(alone, tape)
    before = net.acting()
    Adam(net).step(0.05, 0.0)
    after = net.acting()
    for old, new in zip(before.layers, after.layers, strict=True):
        assert np.array_equal(old.r[0], new.r[0])
        assert np.array_equal(old.b[0], new.b[0])
        assert not np.array_equal(old.r[1], new.r[1])
        assert not np.array_equal(old.w, new.w)
    assert np.array_equal(before.head.w[0], after.head.w[0])
    assert not np.array_equal(before.head.w[1], after.head.w[1])


def test_members_differ_from_the_start_and_a_number_has_one_factor_for_all_that_it_becomes() -> None:
    net = BatchEnsemble(rows(), Numbers("periodic", COLUMNS), 1, (8,), 4, "relu", np.random.default_rng(0))
    z = net.acting().run(rows(5))
    assert (np.ptp(z, axis=0) > 1e-3).all()
    r = net.acting().layers[0].r[:, 0, :]
    for place, column in enumerate(COLUMNS):
        own = r[:, 3 + place * WIDTH : 3 + (place + 1) * WIDTH]
        assert np.array_equal(own, np.repeat(r[:, [column]], WIDTH, axis=1))


@given(st.permutations(range(12)), st.sampled_from(KINDS))
@settings(max_examples=30)
def test_a_row_is_answered_wherever_it_stands(order: list[int], kind: str) -> None:
    acting, x = network(kind).acting(), rows(12, seed=5)
    np.testing.assert_allclose(acting.run(x[order]), acting.run(x)[:, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["periodic", "pieces"])
def test_an_embedding_goes_into_a_graph_and_into_a_pack(kind: str) -> None:
    found = network(kind).acting().embedding
    assert found is not None
    x = 3 * rows(20, seed=6)
    run = compile_matrix(found.emit, 3, 3 + found.width)
    np.testing.assert_allclose(run(x), found.run(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(x[:1]), found.run(x[:1]), rtol=1e-5, atol=1e-6)
    assert np.array_equal(found.run(x)[:, :3], x)
    again = Embedding(**unpack(pack(found.state())))
    assert np.array_equal(again.run(x), found.run(x))


@given(st.integers(3, 200), st.integers(0, 100), st.booleans())
@settings(max_examples=40)
def test_pieces_fill_one_after_the_other(n: int, seed: int, rounded: bool) -> None:
    x = np.random.default_rng(seed).standard_normal((n, 1), dtype=np.float32)
    x = np.append(x.round() if rounded else x, np.float32([[-1], [0], [4]]), axis=0)
    slope, shift = pieces_of(x, np.array([0]))
    assert slope.shape == shift.shape == (1, 1, WAVES)
    grid = np.linspace(x.min() - 1, x.max() + 1, 60, dtype=np.float32)[:, None]
    share = bend(grid * slope[0] + shift[0], "pieces")
    used = slope[0, 0] > 0
    assert used.any()
    assert (share[0] == 0).all()
    np.testing.assert_allclose(share[-1, used], 1.0)
    assert (np.diff(share, axis=0) >= 0).all()
    # A piece is full before the next begins.
    assert (np.diff(share[:, used], axis=1) <= 1e-2).all()


def test_few_values_have_a_piece_each() -> None:
    x = np.repeat(np.float32([0, 1, 5]), [990, 5, 5])[:, None]
    slope, shift = pieces_of(x, np.array([0]))
    assert (slope > 0).sum() == 2
    np.testing.assert_allclose(bend(np.float32([[1.0]]) * slope[0] + shift[0], "pieces")[0, :2], [1.0, 0.0], atol=1e-6)


def test_neither_flags_nor_counts_of_words_are_embedded() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3), dtype=np.float32)
    x[:, 0] = x[:, 0] > 0
    kinds = (FeatureKind.NUMBER, FeatureKind.COUNT, FeatureKind.NUMBER)
    features = tuple(Feature(f"f{i}", f"f{i}", kind) for i, kind in enumerate(kinds))
    assert numbers_in(x, features).tolist() == [2]


def test_of_very_many_numbers_those_with_the_most_values_are_embedded() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(4, size=(80, MOST_NUMBERS + 6)).astype(np.float32)
    x[:, 3:-3] = rng.standard_normal((80, MOST_NUMBERS), dtype=np.float32)
    features = tuple(Feature(f"f{i}", f"f{i}", FeatureKind.NUMBER) for i in range(x.shape[1]))
    assert numbers_in(x, features).tolist() == list(range(3, MOST_NUMBERS + 3))
