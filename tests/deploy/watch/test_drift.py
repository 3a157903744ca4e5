"""Drift: sketches add up exactly, small shifts are seen, chance is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.bundle.parts import Answers
from tidemill.bundle.reference.build import build
from tidemill.bundle.reference.file import Reference
from tidemill.bundle.reference.limits import LEAST_ROWS
from tidemill.core.errors import DataError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.deploy.watch.judge import judge
from tidemill.deploy.watch.periods import Period, Periods
from tidemill.deploy.watch.recent import Batch
from tidemill.deploy.watch.sketch import EXAMPLES, Sketch, Sketcher

NUMBERS = tuple(f"x{k}" for k in range(8))
SCHEMA = Schema(
    (
        *(Column(n, SemanticType.NUMBER) for n in NUMBERS),
        Column("colour", SemanticType.CATEGORY),
        Column("note", SemanticType.TEXT),
        Column("y", SemanticType.TARGET),
    )
)
TASK = Task(TaskKind.BINARY, "y", ("no", "yes"))


def rows(seed: int, n: int, *, shift: float = 0.0, colours: str = "abc") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {name: rng.normal(0, 1, n) for name in NUMBERS}
    out["x0"] = out["x0"] + shift
    out["colour"] = rng.choice(list(colours), n).astype(object)
    out["note"] = np.array(["word " * int(k) for k in rng.integers(1, 9, n)], dtype=object)
    return out


def answers(seed: int, n: int) -> np.ndarray:
    p = np.random.default_rng(seed).beta(2, 2, n)
    return np.stack([1 - p, p], axis=1)


@pytest.fixture(scope="module")
def reference() -> Reference:
    p = answers(0, 5000)
    return build(SCHEMA, TASK, rows(0, 20_000), Answers(p.astype(np.float32), p.argmax(axis=1)))


def sketch(reference: Reference, seed: int, n: int, **changes: object) -> Sketch:
    columns = rows(seed, n, **changes)  # type: ignore[arg-type]
    p = answers(seed, n)
    outputs = {"label": np.array(TASK.classes, dtype=object)[p.argmax(axis=1)], "probabilities": p}
    sketcher = Sketcher(reference, TASK.classes)
    sketcher.add(Batch("a1", {k: v[:, None] for k, v in columns.items()}, outputs, ["r"] * n, 0.0))
    sketcher.flush()
    return sketcher.take()


def test_a_shift_of_a_third_of_a_deviation_is_seen(reference: Reference) -> None:
    """PSI 0.094 and KS 0.12: below the 0.1 and 0.2 that are often used."""
    judged = judge(reference, sketch(reference, 1, 5000, shift=0.3))
    assert [j.name for j in judged if j.beyond] == ["x0"]
    assert 0.05 < judged[0].psi < 0.15
    assert 0.08 < judged[0].ks < 0.16


@pytest.mark.parametrize("n", [LEAST_ROWS, 1000, 20_000])
def test_chance_raises_no_alarm(reference: Reference, n: int) -> None:
    beyond = [j.name for seed in range(10, 40) for j in judge(reference, sketch(reference, seed, n)) if j.beyond]
    assert beyond == []  # 30 windows of 11 columns at one in a thousand for all columns together


def test_a_large_sample_of_a_tiny_shift_is_shown_without_alarm(reference: Reference) -> None:
    judged = {j.name: j for j in judge(reference, sketch(reference, 1, 100_000, shift=0.05))}
    assert judged["x0"].ks > judged["x0"].ks_limit
    assert not judged["x0"].beyond


def test_new_values_missing_values_and_wild_values_are_told_apart(reference: Reference) -> None:
    columns = rows(3, 1000)
    columns["x1"][:100] = np.nan
    columns["x2"][:50] = 1e9
    columns["x2"][50:60] = np.inf
    columns["colour"][:70] = "pink"
    columns["note"][:80] = ""
    sketcher = Sketcher(reference)
    sketcher.add(Batch("a1", columns, {}, [f"r{k}" for k in range(1000)], 0.0))
    sketcher.flush()
    found = sketcher.take()
    judged = {j.name: j for j in judge(reference, found)}
    assert judged["x1"].missing == 0.1
    assert judged["x2"].out_of_range == 0.06
    assert judged["colour"].new == 0.07
    assert judged["note"].missing == 0.08
    assert all(judged[n].beyond for n in ("x1", "x2", "colour", "note"))
    assert "was 0.00%" in judged["colour"].why
    assert found.examples == {"colour": {"pink"}}


def test_rows_that_training_never_saw_are_given_back(reference: Reference) -> None:
    columns = rows(3, 2000)
    columns["x1"][1500] = 99.0
    columns["colour"][3] = "pink"
    sketcher = Sketcher(reference, hidden=["colour"])
    first = Batch("a1", {k: v[:1000] for k, v in columns.items()}, {}, ["r"] * 1000, 0.0)
    second = Batch("a1", {k: v[1000:] for k, v in columns.items()}, {}, ["r"] * 1000, 0.0)
    assert sketcher.add(first) == []
    odd = {id(batch): found.tolist() for batch, found in sketcher.add(second)}
    assert 3 in odd[id(first)]
    assert 500 in odd[id(second)]
    assert sketcher.take().examples == {}  # a redacted column keeps no value


def test_an_absent_or_strange_column_is_counted_and_the_rest_goes_on(reference: Reference) -> None:
    columns: dict[str, np.ndarray] = rows(3, 10)
    del columns["x0"]
    columns["x1"] = np.array(["text"] * 10, dtype=object)
    sketcher = Sketcher(reference)
    sketcher.add(Batch("a1", columns, {}, ["r"] * 10, 0.0))
    sketcher.flush()
    found = sketcher.take()
    assert {"x0", "x1"} <= set(found.unreadable)
    assert found.counts["x2"].sum() == 10


def test_chunks_change_nothing(reference: Reference) -> None:
    columns = rows(5, 3000)
    whole = Sketcher(reference)
    whole.add(Batch("a1", columns, {}, ["r"] * 3000, 0.0))
    pieces = Sketcher(reference)
    for start in range(0, 3000, 17):
        part = {k: v[start : start + 17] for k, v in columns.items()}
        pieces.add(Batch("a1", part, {}, ["r"] * len(part["x0"]), 0.0))
    whole.flush()
    pieces.flush()
    assert whole.take() == pieces.take()


words = st.dictionaries(st.sampled_from("ab"), st.sets(st.text(max_size=3), max_size=2 * EXAMPLES), max_size=2)
counts = st.lists(st.integers(0, 2**40), min_size=4, max_size=4).map(lambda v: np.array(v, dtype=np.int64))
sketches = st.builds(
    lambda n, c, u, e: Sketch(n, c, u, {k: set(v) for k, v in e.items() if v}),
    st.integers(0, 2**40),
    st.dictionaries(st.sampled_from("abc"), counts, max_size=3),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 100), max_size=3),
    words,
)


@given(sketches, sketches, sketches)
def test_merging_is_associative_and_commutative(a: Sketch, b: Sketch, c: Sketch) -> None:
    assert a.merged(b).merged(c) == a.merged(b.merged(c))
    assert a.merged(b) == b.merged(a)
    assert Sketch.from_json(a.merged(b).to_json()) == a.merged(b)


def test_sketches_of_different_bundles_are_not_added() -> None:
    with pytest.raises(DataError, match="different bundles"):
        Sketch(1, {"a": np.zeros(2, dtype=np.int64)}).merged(Sketch(1, {"a": np.zeros(3, dtype=np.int64)}))


def test_an_alarm_needs_two_windows_in_a_row(reference: Reference) -> None:
    periods = Periods(reference)
    seen = []
    for k, shift in enumerate([0.3, 0.0, 0.3, 0.3, 0.0]):
        periods.add(sketch(reference, k, 2000, shift=shift), now=300.0 * k)
        periods.tick(300.0 * (k + 1))
        seen.append(periods.drift["alarms"])
    assert seen == [[], [], [], ["x0"], []]


def test_hours_and_days_are_the_sum_of_their_parts(reference: Reference) -> None:
    periods = Periods(reference)
    total = Sketch()
    ended: list[Period] = []
    for k in range(14):
        part = sketch(reference, k, 40)
        total = total.merged(part)
        ended += periods.tick(3600.0 * 2 * k)
        periods.add(part, now=3600.0 * 2 * k)
    ended += periods.tick(3 * 86_400.0)
    by_span = {s: [p for p in ended if p.span_s == s] for s in (300, 3600, 86_400)}
    assert [len(v) for v in by_span.values()] == [14, 14, 2]
    days = by_span[86_400]
    assert days[0].sketch.merged(days[1].sketch) == total


def test_a_clock_that_jumps_back_opens_nothing_twice(reference: Reference) -> None:
    periods = Periods(reference)
    periods.add(sketch(reference, 1, 10), now=900.0)
    assert periods.tick(100.0) == []
    periods.add(sketch(reference, 2, 10), now=100.0)
    assert [(p.number, p.sketch.rows) for p in periods.tick(1200.0) if p.span_s == 300] == [(3, 20)]


def test_lost_accuracy_is_estimated_and_raises_an_alarm(reference: Reference) -> None:
    known = Reference(reference.features, reference.predictions, "test", {"accuracy": 0.9}, 5000)
    periods = Periods(known)
    for k in range(2):
        periods.add(sketch(reference, k, 2000), now=300.0 * k)
        periods.tick(300.0 * (k + 1))
    assert periods.estimate["values"]["accuracy"] == pytest.approx(0.6875, abs=0.02)
    assert periods.estimate["alarm"]
    assert "was 0.900" in periods.estimate["why"]
