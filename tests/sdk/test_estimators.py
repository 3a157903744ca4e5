"""The estimators keep scikit-learn's contract, and answer as the shipped graph does."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

from tidemill.bundle.runtime import Bundle
from tidemill.sdk.estimators import TidemillClassifier, TidemillRegressor

QUICK: dict[str, Any] = {"time": None, "trials": 1, "families": ("linear",), "cpus": 1}
EXPECTED: dict[str, str] = {}
"""Checks that are expected to fail, with the reason."""


@pytest.mark.slow
@parametrize_with_checks(
    [TidemillClassifier(**QUICK), TidemillRegressor(**QUICK)], expected_failed_checks=lambda estimator: EXPECTED
)
def test_scikit_learn_contract(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def iris_model() -> TidemillClassifier:
    X, y = load_iris(return_X_y=True, as_frame=True)
    return TidemillClassifier(**QUICK).fit(X, y.map({0: "setosa", 1: "versicolor", 2: "virginica"}))


def test_classifier_answers_with_its_labels(iris_model: TidemillClassifier) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    assert iris_model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert set(iris_model.predict(X)) <= set(iris_model.classes_)
    assert iris_model.score(X, y.map({0: "setosa", 1: "versicolor", 2: "virginica"})) > 0.93
    np.testing.assert_allclose(iris_model.predict_proba(X).sum(axis=1), 1)


def test_frames_with_numbered_columns_and_a_class_of_one_row() -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    X = X.set_axis(range(4), axis=1)
    y = y.to_numpy().copy()
    y[7] = 9
    model = TidemillClassifier(**QUICK).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2, 9]
    scores = model.predict_proba(X)
    assert scores.shape == (150, 4)
    assert (scores[:, 3] == 0).all()


def test_pickle_and_clone(iris_model: TidemillClassifier) -> None:
    X, _ = load_iris(return_X_y=True, as_frame=True)
    again = pickle.loads(pickle.dumps(iris_model))
    np.testing.assert_array_equal(again.predict_proba(X), iris_model.predict_proba(X))
    assert not hasattr(clone(iris_model), "classes_")


def test_export_is_a_bundle_that_verifies(iris_model: TidemillClassifier, tmp_path: Path) -> None:
    X, _ = load_iris(return_X_y=True, as_frame=True)
    bundle = Bundle.open(iris_model.export(tmp_path / "iris.tm"))
    scores = bundle.predict_proba(X)
    np.testing.assert_allclose(scores, iris_model.predict_proba(X), atol=1e-6)


def test_regressor_on_strings_and_missing_values() -> None:
    data = load_diabetes(as_frame=True)
    X: pd.DataFrame = data.data.copy()
    X["sex"] = np.where(X["sex"] > 0, "f", "m")
    X.loc[::7, "bmi"] = np.nan
    model = TidemillRegressor(**QUICK).fit(X, data.target)
    assert model.score(X, data.target) > 0.4
    assert model.predict(X.iloc[:3]).shape == (3,)
