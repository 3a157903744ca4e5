"""Comparable groups: hand-computed cases, laws, and an effect that is known."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.matching.conftest import people

from tidemill.core.errors import DataError, NotFoundError, OptionError, PredicateError
from tidemill.data.matching import compare
from tidemill.data.matching.balance import balance
from tidemill.data.matching.loveplot import love_plot
from tidemill.data.matching.pairing import pair
from tidemill.data.matching.propensity import log_odds
from tidemill.data.versions import load_version


def test_log_odds_are_those_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) * [1, 10, 0.1] + [0, 5, 1]
    treated = rng.random(500) < 1 / (1 + np.exp(-(x[:, 0] - 0.2 * x[:, 1] + 1)))
    z = (x - x.mean(0)) / x.std(0)
    wanted = linear.LogisticRegression(C=1 / (1e-4 * 500), tol=1e-10, max_iter=1000).fit(z, treated)
    assert log_odds(x, treated) == pytest.approx(wanted.decision_function(z), abs=1e-4)


def test_log_odds_of_one_column_with_two_values_are_those_of_the_table():
    x = np.repeat([0.0, 0.0, 1.0, 1.0], [30, 10, 20, 60])[:, None]
    treated = np.repeat([False, True, False, True], [30, 10, 20, 60])
    odds = log_odds(x, treated, ridge=0.0)
    assert odds[0] == pytest.approx(np.log(10 / 30), abs=1e-6)
    assert odds[-1] == pytest.approx(np.log(60 / 20), abs=1e-6)


def test_groups_that_can_be_told_apart_wholly_have_finite_odds():
    x = np.arange(20.0)[:, None]
    odds = log_odds(x, x[:, 0] > 9)
    assert np.isfinite(odds).all()
    assert (np.diff(odds) > 0).all()


def test_an_empty_group_is_told():
    with pytest.raises(DataError, match="one of them is empty"):
        log_odds(np.zeros((3, 1)), np.ones(3, dtype=bool))


def test_each_is_given_the_nearest_that_is_free():
    found = pair(np.array([[5.0], [6.0], [1.0]]), np.array([[5.9], [5.2], [0.0], [50.0]]))
    assert found.treated.tolist() == [0, 1, 2]
    assert found.control.tolist() == [1, 0, 2]
    assert found.distance == pytest.approx([0.2, 0.1, 1.0])


def test_who_comes_second_takes_what_is_left():
    found = pair(np.array([[1.0], [1.1]]), np.array([[1.05], [3.0]]))
    assert found.control.tolist() == [0, 1]
    again = pair(np.array([[1.0], [1.1]]), np.array([[1.05], [3.0]]), replace=True)
    assert again.control.tolist() == [0, 0]
    near = pair(np.array([[1.0], [1.1]]), np.array([[1.05], [3.0]]), caliper=0.5)
    assert near.treated.tolist() == [0]


def test_two_partners_each():
    found = pair(np.array([[0.0], [10.0]]), np.array([[1.0], [2.0], [9.0], [12.0]]), ratio=2)
    assert found.treated.tolist() == [0, 0, 1, 1]
    assert found.control.tolist() == [0, 1, 2, 3]


points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25).map(
    lambda p: np.array(p, dtype=float)
)


@given(points, points, st.integers(1, 3), st.booleans(), st.none() | st.floats(0.5, 5))
def test_laws_of_pairs(treated, controls, ratio, replace, caliper):
    found = pair(treated, controls, ratio=ratio, replace=replace, caliper=caliper)
    true = np.linalg.norm(treated[found.treated] - controls[found.control], axis=1)
    assert found.distance == pytest.approx(true)
    if caliper is not None:
        assert (found.distance <= caliper).all()
    if not replace:
        assert len(set(found.control.tolist())) == len(found.control)
        if caliper is None:
            assert len(found.treated) == min(ratio * len(treated), len(controls))
    elif caliper is None:
        best = np.linalg.norm(treated[:, None] - controls[None], axis=2).min(axis=1)
        shortest = [found.distance[found.treated == t].min() for t in range(len(treated))]
        assert shortest == pytest.approx(best)
    assert np.bincount(found.treated, minlength=1).max(initial=0) <= ratio


def test_balance_of_a_case_by_hand():
    x = np.array([1.0, 2.0, 3.0, 2.0, 4.0, 6.0])
    treated = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    weight = np.array([1, 1, 0, 2, 0, 0], dtype=float)
    (found,) = balance({"x": x}, treated, weight)
    # before: means 2 and 4, variances 1 and 4, pooled sqrt(2.5); after: means 1.5 and 2.
    assert found.difference_before == pytest.approx(-2 / np.sqrt(2.5))
    assert found.difference_after == pytest.approx(-0.5 / np.sqrt(2.5))
    assert found.ratio_before == pytest.approx(0.25)
    assert found.ratio_after is None


def _trial(rows=3000, effect=2.0, seed=1):
    """Who is older and lives in the north is treated more often and fares better anyway."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 70, rows)
    north = rng.random(rows) < 0.4
    dose = rng.normal(size=rows)
    p = 1 / (1 + np.exp(-(0.06 * (age - 50) + 1.0 * north - 0.5)))
    treated = rng.random(rows) < p * 0.6
    outcome = 0.1 * age + 3 * north + effect * treated + rng.normal(size=rows)
    return pa.table(
        {
            "age": pa.array(age, mask=rng.random(rows) < 0.01),
            "region": np.where(north, "north", "south"),
            "dose": dose,
            "treated": np.where(treated, "yes", "no"),
            "outcome": outcome,
        }
    )


@pytest.mark.parametrize("method", ["propensity", "nearest"])
def test_a_known_effect_is_found_where_the_plain_difference_misleads(workspace, write, method):
    table = _trial()
    write(table, "trial", "outcome")
    found = compare(workspace, "trial", "treated = 'yes'", ["age", "region", "dose"], method=method)
    mean, error = found.effect("outcome")
    yes = np.array(table["treated"].to_pylist()) == "yes"
    y = table["outcome"].to_numpy()
    plain = y[yes].mean() - y[~yes].mean()
    assert abs(plain - 2.0) > 0.5
    assert abs(mean - 2.0) < 3 * error + 0.1
    by = {b.column: b for b in found.balance}
    assert abs(by["age"].difference_before) > 0.3
    assert all(abs(b.difference_after) < 0.1 for b in found.balance)
    assert json.dumps(found.to_json())


def test_pairs_agree_wholly_where_it_is_asked(workspace, write):
    write(_trial(), "trial", "outcome")
    found = compare(workspace, "trial", "treated = 'yes'", ["age"], exact=["region"], ratio=2, replace=True)
    region = np.array(found.resident.take(np.arange(3000), ["region"])["region"].to_pylist())
    assert (region[found.treated] == region[found.control]).all()
    assert found.question["exact"] == ["region"]


def test_who_has_no_partner_within_the_caliper_is_named(workspace, write):
    write(_trial(400), "trial", "outcome")
    found = compare(workspace, "trial", "treated = 'yes'", ["age", "region"], caliper=1e-4)
    treated = np.flatnonzero(np.array(_trial(400)["treated"].to_pylist()) == "yes")
    assert sorted({*found.treated.tolist(), *found.without.tolist()}) == treated.tolist()
    assert len(found.without) > 0


def test_the_groups_become_a_version(workspace, write):
    parent = write(_trial(400), "trial", "outcome")
    found = compare(workspace, "trial", "treated = 'yes'", ["age"], where="dose < 1")
    version = found.to_version(workspace, "pairs")
    table, _ = load_version(workspace, "pairs")
    assert version.parents == (parent.hash,)
    assert table.num_rows == len(found.rows) == 2 * len(found.treated)
    assert all(d < 1 for d in table["dose"].to_pylist())


def test_the_same_question_gives_the_same_pairs(workspace, write):
    write(_trial(400), "trial", "outcome")
    one, two = (compare(workspace, "trial", "treated = 'yes'", ["age"], seed=4) for _ in range(2))
    assert np.array_equal(one.control, two.control)
    assert one.plot() == two.plot()


def test_the_picture_is_an_svg_or_a_png(workspace, write):
    write(_trial(400), "trial", "outcome")
    found = compare(workspace, "trial", "treated = 'yes'", ["age", "region"])
    svg = found.plot().decode()
    assert svg.lstrip().startswith("<?xml")
    assert "region=" in svg
    assert love_plot(found.balance, form="png").startswith(b"\x89PNG")


def test_bad_questions_are_told(workspace, write):
    write(people(), "people")
    for options, error, message in [
        ({"treated": "agee > 3", "on": ["score"]}, PredicateError, "Did you mean 'age'"),
        ({"treated": "age > 999", "on": ["score"]}, DataError, "one of them is empty"),
        ({"treated": "age > 30", "on": []}, OptionError, "in which columns"),
        ({"treated": "age > 30", "on": ["scor"]}, NotFoundError, "score"),
        ({"treated": "age > 30", "on": ["score"], "caliper": 0}, OptionError, "caliper > 0"),
        ({"treated": "age > 30", "on": ["score"], "ratio": 0}, OptionError, "ratio >= 1"),
        ({"treated": "age > 30", "on": ["score"], "method": "best"}, OptionError, "'best'"),
    ]:
        with pytest.raises(error, match=message):
            compare(workspace, "people", **options)
