"""Counters: fronts add up in any order, numbers only grow, quantiles and burn rates are what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import DataError
from tidemill.deploy.labels import same_label
from tidemill.deploy.types import RequestEvent
from tidemill.deploy.watch.counting import count_batches, count_requests
from tidemill.deploy.watch.recent import Batch, Recent
from tidemill.deploy.watch.window import LATENCY_BOUNDS_MS, STAGES, Window, burn_rate, merge, quantile_ms

counts = st.integers(0, 2**40)
cells = st.lists(counts, min_size=len(LATENCY_BOUNDS_MS) + 1, max_size=len(LATENCY_BOUNDS_MS) + 1)
named = st.dictionaries(st.sampled_from(["yes", "no", "…"]), st.integers(1, 10**9)).map(Counter)
windows = st.builds(
    Window,
    requests=counts, errors=counts, rows=counts, feedback_right=counts, label_counts=named, confusion=named,
    latency_counts=st.fixed_dictionaries(dict.fromkeys(STAGES, cells)),
    latency_sums_us=st.fixed_dictionaries(dict.fromkeys(STAGES, counts)),
    score_counts=st.lists(counts, min_size=20, max_size=20),
    slo=st.dictionaries(st.sampled_from(["1", "2"]), st.lists(counts, min_size=2, max_size=2)),
)  # fmt: skip


@given(windows, windows, windows)
def test_fronts_add_up_in_any_order(a: Window, b: Window, c: Window) -> None:
    assert merge([merge([a, b]), c]).to_json() == merge([a, merge([c, b])]).to_json()


@given(windows)
def test_a_window_round_trips_and_reading_changes_nothing(a: Window) -> None:
    before = a.to_json()
    assert Window.from_json(before).to_json() == before
    merge([a, a])
    assert a.to_json() == before
    assert Window.from_json({**before, "of_a_newer_version": 1}).to_json() == before


@pytest.mark.parametrize(
    "data", [{"requests": 1, "latency_counts": {}}, {"status_counts": 3}, {"latency_counts": {s: [0] for s in STAGES}}]
)
def test_what_is_no_window_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(DataError):
        Window.from_json(data)


def test_quantiles_are_those_of_the_latencies_within_a_cell() -> None:
    times = np.random.default_rng(0).lognormal(1.0, 0.8, 20_000)
    window = Window()
    events = [RequestEvent("e", "r", "i", 200, 1, 0, 0, 0, 0, float(t)) for t in times]
    count_requests(window, events, target_ms=100.0, now=0.0)
    for share in (0.5, 0.9, 0.99):
        assert quantile_ms(window.latency_counts["total"], share) == pytest.approx(np.quantile(times, share), rel=0.1)
    assert window.latency_sums_us["total"] == pytest.approx(times.sum() * 1e3, rel=1e-3)
    assert quantile_ms([0] * 42, 0.5) is None
    assert quantile_ms([0] * 41 + [1], 0.5) == LATENCY_BOUNDS_MS[-1]


def test_a_burn_rate_looks_at_its_window_alone() -> None:
    slo = {"0": [1000, 1000], "71": [100, 1], "84": [100, 3]}
    now = 84 * 300 + 10.0
    assert burn_rate(slo, now, 3600.0, 0.99) == pytest.approx(
        3.0
    )  # the cell that ended ten seconds more than an hour ago is out
    assert burn_rate(slo, now, 2 * 3600.0, 0.99) == pytest.approx(2.0)
    assert burn_rate({}, now, 3600.0, 0.99) is None


def test_odd_times_do_no_harm() -> None:
    window = Window()
    event = RequestEvent("e", "r", "i", 200, 1, float("nan"), -1.0, float("inf"), 0.0, 1.0)
    count_requests(window, [event], target_ms=100.0, now=0.0)
    assert window.requests == sum(window.latency_counts["queue"]) == 1


def test_labels_beyond_the_bound_share_a_name() -> None:
    window = Window()
    labels = np.array([f"l{k}" for k in range(300)], dtype=object)
    count_batches(window, [Batch("a", {}, {"label": labels}, ["r"] * 300, 0.0)])
    assert len(window.label_counts) == 101
    assert sum(window.label_counts.values()) == 300


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.sampled_from("xyz"), min_size=1, max_size=5)), max_size=12)
)
def test_a_row_is_found_where_it_is_and_only_the_newest_are_kept(told: list[tuple[str, list[str]]]) -> None:
    recent = Recent(most_rows=10)
    batches = [Batch(revision, {}, {}, ids, 0.0) for revision, ids in told]
    for batch in batches:
        recent.add(batch)
    assert len(recent) <= 10
    kept: list[Batch] = []
    for batch in reversed(batches):
        if sum(b.rows for b in kept) + batch.rows > 10:
            break
        kept.insert(0, batch)
    for request_id in "xyz":
        for revision in "ab":
            rows = [
                (b, i) for b in kept if b.revision == revision for i, r in enumerate(b.request_ids) if r == request_id
            ]
            for row, (batch, index) in enumerate(rows):
                place = recent.find(request_id, row)[revision]
                assert (place.batch, place.index) == (batch, index)
                assert recent.row_of(batch, index) == row
            assert revision not in recent.find(request_id, len(rows))


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 4)), min_size=1, max_size=8), st.randoms())
def test_slices_are_found_by_their_numbers_in_whatever_order_they_came(
    asked: list[tuple[str, int]], rng: Random
) -> None:
    """Requests that an engine divided: each slice says which row of its request it begins with."""
    upto: dict[str, int] = {}
    slices: list[tuple[str, int, int]] = []
    for name, rows in asked:
        slices.append((name, upto.get(name, 0), rows))
        upto[name] = upto.get(name, 0) + rows
    rng.shuffle(slices)
    batches = []
    while slices:
        taken, slices = slices[:2], slices[2:]
        ids = [name for name, _, rows in taken for _ in range(rows)]
        parts = {0: taken[0][1]} | ({taken[0][2]: taken[1][1]} if len(taken) > 1 else {})
        labels = np.array([f"{name}{first + k}" for name, first, rows in taken for k in range(rows)], dtype=object)
        batches.append(Batch("a", Joinable({"x": labels}), {"label": labels}, ids, 0.0, parts))
    for held in (batches, [Batch.joined(batches)]):
        recent = Recent()
        for batch in held:
            recent.add(batch)
        for name, rows in upto.items():
            for row in range(rows):
                place = recent.find(name, row)["a"]
                assert place.batch.labels is not None
                assert place.batch.labels[place.index] == f"{name}{row}"
                assert recent.row_of(place.batch, place.index) == row


class Joinable(dict):  # type: ignore[type-arg]  # columns that know how to be joined
    """Columns by name."""

    @classmethod
    def joined(cls, parts: Sequence[Joinable]) -> Joinable:
        return cls({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def test_batches_that_do_not_follow_each_other_are_not_joined() -> None:
    label = {"label": np.array(["a"], dtype=object)}
    one = Batch("a", Joinable(), label, ["r"], 0.0, {})
    for other in (
        Batch("a", {}, label, ["r"], 0.0, {}),
        Batch("a", Joinable(), {}, ["r"], 0.0, {}),
        Batch("a", Joinable(), {"label": np.zeros((1, 2))}, ["r"], 0.0, {}),
        Batch("a", Joinable(), {"label": np.array(3)}, ["r"], 0.0, {}),
        Batch("a", Joinable(), {"label": np.zeros(2)}, ["r"], 0.0, {}),
    ):
        with pytest.raises(ValueError):
            Batch.joined([one, other])


def test_nobody_looks_into_batches_that_nobody_asks_about() -> None:
    recent = Recent(most_rows=4)
    for k in range(9):
        recent.add(Batch("a", {}, {}, [f"r{k}", f"r{k}"], 0.0))
    assert recent._runs == {}
    assert recent.find("r7", 1)["a"].index == 1
    assert recent.find("r3") == {}
    assert set(recent._runs) == {"r7", "r8"}


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("1", "1.0", True),
        ("0.5", "0.50", True),
        ("True", "true", True),
        ("a", "A", False),
        ("nan", "nan", True),
        ("nan", "1", False),
        ("", "0", False),
    ],
)
def test_labels_are_compared_as_people_mean_them(a: str, b: str, same: bool) -> None:
    assert same_label(a, b) is same
