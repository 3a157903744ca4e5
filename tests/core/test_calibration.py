"""One temperature is found where it is, and used only where it pays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.calibration import Calibration, crossfit_folds, fit_calibration, fit_temperature
from tidemill.core.errors import OptionError


def sample(n, k, temperature, seed=0):
    """Labels drawn from true probabilities, and probabilities that are off by a temperature."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.ones(k), n)
    y = (truth.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)
    return y, Calibration(1 / temperature).apply(truth)


def log_loss(y, p):
    return -np.log(np.clip(p[np.arange(len(y)), y], 1e-7, 1)).mean()


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("temperature", [0.5, 1.5, 3.0])
def test_the_temperature_is_recovered(k, temperature):
    y, p = sample(20_000, k, temperature)
    assert fit_temperature(y, p) == pytest.approx(temperature, rel=0.06)
    calibration = fit_calibration(y, p)
    assert log_loss(y, calibration.apply(p)) < log_loss(y, p)


@given(st.integers(2, 4), st.integers(5, 60), st.integers(0, 2**32 - 1), st.booleans())
def test_no_other_temperature_is_better(k, n, seed, weighted):
    y, p = sample(n, k, 2.0, seed)
    weight = np.random.default_rng(seed).random(n) + 0.1 if weighted else None
    logs = np.log(np.clip(p, 1e-7, 1))

    def loss(t):
        z = logs / t
        return np.average(np.log(np.exp(z).sum(axis=1)) - z[np.arange(n), y], weights=weight)

    got = fit_temperature(y, p, weight)
    assert 0.05 <= got <= 20
    assert all(loss(got) <= loss(t) + 1e-9 for t in np.geomspace(0.05, 20, 50))


@given(st.floats(0.05, 20), st.integers(2, 6), st.integers(0, 99))
def test_order_and_sum_are_kept(temperature, k, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(k), 20).astype(np.float32)
    got = Calibration(temperature).apply(p)
    assert got.sum(axis=1) == pytest.approx(1)
    assert np.isfinite(got).all()
    # Never turned round; near the ends the steepest temperature makes neighbours equal.
    assert (got[np.arange(20), p.argmax(axis=1)] == got.max(axis=1)).all()


def test_what_is_right_is_left_alone():
    y, p = sample(2_000, 3, 1.0)
    assert fit_calibration(y, p).is_identity
    assert Calibration().apply(p) is p


def test_few_rows_are_left_alone():
    y, p = sample(49, 2, 5.0)
    assert fit_calibration(y, p).is_identity


def test_noise_is_left_alone():
    """On 60 rows that are right already, the best temperature is noise; across seeds hardly any is used."""
    used = sum(not fit_calibration(*sample(60, 2, 1.0, seed)).is_identity for seed in range(40))
    assert used <= 16


def test_the_same_seed_gives_the_same():
    y, p = sample(500, 2, 2.0)
    assert fit_calibration(y, p, seed=3) == fit_calibration(y, p, seed=3)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 5))
def test_folds_share_every_class(codes, folds):
    y = np.array(codes)
    fold = crossfit_folds(y, folds, seed=0)
    assert set(fold) <= set(range(folds))
    for c in set(codes):
        counts = np.bincount(fold[y == c], minlength=folds)
        assert counts.max() - counts.min() <= 1


@given(st.floats(0.05, 20))
def test_json_and_back(temperature):
    calibration = Calibration(temperature)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf, np.nan])
def test_a_temperature_is_positive(wrong):
    with pytest.raises(OptionError, match="positive and finite"):
        Calibration(wrong)
