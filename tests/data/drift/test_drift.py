"""Laws of drift: histograms hold every row, chance is not drift, and drift is found."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError
from tidemill.data.drift.compare import adjust, chance_level, drift, p_values, stability
from tidemill.data.drift.grid import MISSING, OTHER, Grid, axis_of
from tidemill.data.drift.kept import sketch_artifacts, table_drift, version_drift, version_sketch
from tidemill.data.drift.page import render_page
from tidemill.data.drift.sketch import Sketch, sketch_matrix, sketch_table
from tidemill.data.drift.skew import skew
from tidemill.data.matching._vectors import from_numpy

numbers = st.lists(
    st.floats(allow_nan=True, allow_infinity=True, width=32) | st.integers(-3, 3), min_size=1, max_size=80
)


def _by_hand(values, axis):
    """Histogram of numbers, cell by cell."""
    out = np.zeros(OTHER + 2, dtype=int)
    for v in values:
        place = MISSING if np.isnan(v) else next((i for i, e in enumerate(axis.edges) if v <= e), len(axis.edges))
        out[place] += 1
    return out.tolist()


@settings(max_examples=100)
@given(numbers, numbers, st.sampled_from([np.float32, np.float64]))
def test_every_value_is_in_the_bin_whose_bound_holds_it(learned, counted, kind):
    axis = axis_of(from_numpy(np.array(learned, dtype=kind), "x", float))
    values = np.array(counted, dtype=kind)
    assert axis.count(from_numpy(values, "x", float)).tolist() == _by_hand(values, axis)
    assert (np.diff(axis.edges) > 0).all()


@given(
    st.lists(st.none() | st.sampled_from("abcde"), max_size=40),
    st.lists(st.none() | st.sampled_from("abxyz"), max_size=40),
)
def test_words_are_counted_where_they_belong(learned, counted):
    a, b = (pa.table({"s": pa.array(v, pa.string())}) for v in (learned, counted))
    before = sketch_table(a)
    row = sketch_table(b, before.grid).counts[0]
    words = before.grid.axes["s"].words
    assert set(words) == {w for w in learned if w is not None}
    for i, word in enumerate(words):
        assert row[i] == counted.count(word)
    assert row[MISSING] == counted.count(None)
    assert row.sum() == len(counted)


def test_bins_of_a_smooth_column_hold_equally_many():
    found = sketch_matrix(np.random.default_rng(0).normal(size=(50_000, 1)), ["x"])
    shares = found.counts[0, : found.grid.axes["x"].bins] / 50_000
    assert len(shares) == 20
    assert np.abs(shares - 0.05).max() < 0.01


def test_few_different_values_have_a_bin_each():
    found = sketch_matrix(np.repeat([0.0, 1.0, 2.0], [10, 30, 60])[:, None], ["x"])
    counts = found.counts[0]
    assert sorted(counts[counts > 0].tolist()) == [10, 30, 60]


def test_times_truth_values_and_gaps_are_counted():
    table = pa.table(
        {
            "t": pa.array([dt.datetime(2026, 1, d, tzinfo=dt.timezone.utc) for d in range(1, 21)] + [None]),
            "b": pa.array([True, False, None] * 7),
        }
    )
    found = sketch_table(table)
    assert found.counts.sum(axis=1).tolist() == [21, 21]
    assert found.counts[:, MISSING].tolist() == [1, 7]


def test_indices_of_a_case_by_hand():
    a, b = np.zeros((1, OTHER + 2), dtype=np.int64), np.zeros((1, OTHER + 2), dtype=np.int64)
    a[0, :2], b[0, :2] = [50, 50], [25, 75]
    p, q = np.array([50.5, 50.5]) / 101, np.array([25.5, 75.5]) / 101
    assert stability(a, b)[0] == pytest.approx(((p - q) * np.log(p / q)).sum())
    # chi-squared of the 2 x 2 table (50, 50 / 25, 75): 13.333 with one degree of freedom
    assert p_values(a, b)[0] == pytest.approx(2.607e-4, rel=1e-3)


def test_measures_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    distance = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, 700).astype(float), rng.integers(1, 7, 900).astype(float)
    before = sketch_matrix(x[:, None], ["x"])
    after = sketch_matrix(y[:, None], ["x"], before.grid)
    (found,) = drift(before, after).columns
    table = np.array([before.counts[0], after.counts[0]])
    table = table[:, table.sum(axis=0) > 0]
    # Values above the last bound share a bin, so the two-sample distance is that of the bins.
    assert found.ks == pytest.approx(stats.ks_2samp(np.minimum(x, 5), np.minimum(y, 5)).statistic, abs=0.01)
    shares = table / table.sum(axis=1, keepdims=True)
    assert found.js == pytest.approx(distance.jensenshannon(shares[0], shares[1], base=2))
    dense = table[:, table.sum(axis=0) / table.sum() * 700 >= 5]
    assert dense.shape == table.shape or found.p < 1e-6
    if dense.shape == table.shape:
        assert found.p == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, rel=1e-6, abs=1e-300)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_adjusted_values_keep_the_order_and_only_grow(p):
    p = np.array(p)
    out = adjust(p)
    assert (out >= p - 1e-12).all()
    assert (out <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(out[order]) >= -1e-12).all()


def test_chance_is_not_drift_and_drift_is_found_among_many_columns():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, 300)).astype(np.float32)
    y = rng.normal(size=(1200, 300)).astype(np.float32)
    y[:, 7] += 0.6
    y[:, 11] *= 2.5
    y[:600, 13] = np.nan
    names = [f"c{i}" for i in range(300)]
    before = sketch_matrix(x, names)
    found = drift(before, sketch_matrix(y, names, before.grid))
    assert {c.column for c in found.drifted} == {"c7", "c11", "c13"}
    p = np.array([c.p for c in found.columns if c.column not in ("c7", "c11", "c13")])
    assert abs((p < 0.05).mean() - 0.05) < 0.04


def test_the_bar_rises_where_samples_are_small():
    rng = np.random.default_rng(2)
    levels = []
    for rows in (100, 10_000):
        before = sketch_matrix(rng.normal(size=(rows, 3)), ["a", "b", "c"])
        after = sketch_matrix(rng.normal(size=(rows, 3)), ["a", "b", "c"], before.grid)
        levels.append(float(chance_level(before.counts, after.counts).max()))
    assert levels[0] > 0.2 > 0.02 > levels[1]


def test_a_version_is_counted_once_and_its_sketch_is_kept(workspace, write):
    rng = np.random.default_rng(0)
    first = write(pa.table({"x": rng.normal(size=400), "s": rng.choice(["a", "b"], 400)}))
    one = version_sketch(workspace, first.ref)
    two = version_sketch(workspace, first.ref)
    assert np.array_equal(one.counts, two.counts)
    assert one.names == two.names == ("x", "s")
    assert all(workspace.artifacts.exists(k) for k in sketch_artifacts(workspace))
    again = Sketch.unpack(one.pack("g"), lambda _: one.grid)
    assert np.array_equal(again.counts, one.counts)
    assert Grid.unpack(one.grid.pack()).axes["s"].words == one.grid.axes["s"].words


def test_versions_of_one_dataset_share_their_bins_and_new_columns_get_theirs(workspace, write):
    rng = np.random.default_rng(0)
    first = write(pa.table({"x": rng.normal(size=500)}))
    second = write(pa.table({"x": rng.normal(1, 1, size=500), "new": rng.normal(size=500)}))
    found = version_drift(workspace, first.ref, second.ref)
    assert [c.column for c in found.drifted] == ["x"]
    assert found.added == ("new",)
    third = write(pa.table({"x": rng.normal(1, 1, size=500), "new": rng.normal(size=500)}))
    assert not version_drift(workspace, second.ref, third.ref).drifted


def test_a_column_that_changed_its_type_is_told(workspace, write):
    first = write(pa.table({"x": np.random.default_rng(0).normal(size=50)}))
    with pytest.raises(DataError, match="'x' is a text here, and was a number before"):
        table_drift(workspace, first.ref, pa.table({"x": ["a"] * 50}))


def test_histograms_with_other_bins_are_not_compared():
    a = sketch_matrix(np.random.default_rng(0).normal(size=(50, 1)), ["x"])
    b = sketch_matrix(np.random.default_rng(1).normal(size=(50, 1)), ["x"])
    with pytest.raises(DataError, match="different bins"):
        drift(a, b)


def test_skew_tells_what_requests_lack_and_what_has_moved(workspace, write):
    rng = np.random.default_rng(0)
    n = 600
    write(pa.table({"a": rng.normal(size=n), "b": rng.normal(size=n), "c": rng.normal(size=n),
                    "s": rng.choice(["u", "v"], n), "y": rng.choice(["p", "q"], n)}), "train", "y")  # fmt: skip
    served = pa.table({"a": rng.normal(2, 1, size=n), "b": ["1"] * n, "s": rng.choice(["u", "w"], n), "z": [1] * n})
    found = skew(workspace, "train", served)
    told = {(f.severity, f.code, f.column) for f in found.findings}
    assert told == {
        ("error", "column_absent", "c"), ("error", "type", "b"), ("warning", "skew", "a"), ("warning", "skew", "s"),
        ("info", "column_new", None),
    }  # fmt: skip
    assert any("never saw" in f.message for f in found.findings if f.column == "s")


def test_the_page_stands_alone_and_shows_what_was_found(workspace, write):
    rng = np.random.default_rng(0)
    first = write(pa.table({"x <b>": rng.normal(size=300), "s": rng.choice(["a", "b"], 300)}))
    served = pa.table({"x <b>": rng.normal(1, 1, size=300), "s": rng.choice(["a", "c"], 300)})
    found = skew(workspace, first.ref, served)
    page = render_page("people <1>", drift=found.drift, findings=found.findings, names=("training", "serving"))
    assert "people &lt;1&gt;" in page
    assert "x &lt;b&gt;" in page
    assert "x <b>" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<figure>") == 2
    assert "Nothing: all that was checked holds" in render_page("empty")
