"""Estimated accuracy: as nannyml says, exactly additive, and right on average."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.deploy.watch.expected import Expected

FIXTURE = json.loads((Path(__file__).parent / "cbpe_nannyml.json").read_text(encoding="utf-8"))


def probabilities(kind: str, shift: float, *, seed: int = FIXTURE["seed"], rows: int = FIXTURE["rows"]) -> np.ndarray:
    classes = 2 if kind == "binary" else 3
    scores = np.random.default_rng(seed).normal(0.0, FIXTURE["spread"][kind], (rows, classes)) * (1 - shift)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def expected(p: np.ndarray) -> Expected:
    out = Expected.empty(p.shape[1])
    out.add(p, p.argmax(axis=1))
    return out


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{c['kind']}-{c['shift']}")
def test_estimates_are_those_of_nannyml(case: dict[str, Any]) -> None:
    found = expected(probabilities(case["kind"], case["shift"])).estimate()
    for metric, value in case["nannyml"].items():
        assert found[metric] == pytest.approx(value, abs=2e-4), metric


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_the_truth_lies_where_the_estimate_says(kind: str) -> None:
    inside = 0
    for seed in range(200):
        p = probabilities(kind, 0.0, seed=seed, rows=500)
        truth = (np.random.default_rng(seed + 1000).random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1)
        said = expected(p).estimate()
        inside += said["accuracy_low"] <= (truth == p.argmax(axis=1)).mean() <= said["accuracy_high"]
    assert inside >= 180  # 190 are to be expected


def test_expected_cost_is_that_of_the_matrix() -> None:
    p = np.array([[0.8, 0.2], [0.3, 0.7]])
    cost = np.array([[0.0, 1.0], [5.0, 0.0]])
    assert expected(p).estimate(cost)["cost"] == pytest.approx((0.2 * 5 + 0.3 * 1) / 2)
    assert "cost" not in expected(p).estimate()


@given(st.lists(st.integers(0, 2**31), min_size=3, max_size=3))
def test_parts_add_up_exactly_in_any_order(seeds: list[int]) -> None:
    a, b, c = (expected(probabilities("multiclass", 0.0, seed=s, rows=7)) for s in seeds)
    one, other = a.merged(b).merged(c), c.merged(a.merged(b))
    assert one.to_json() == other.to_json() == Expected.from_json(one.to_json()).to_json()
    assert one.total == 21


def test_many_classes_and_odd_numbers_are_no_trouble() -> None:
    p = np.full((5, 300), 1 / 300)
    assert expected(p).estimate() == {}
    assert expected(np.array([[np.nan, 1.0], [np.inf, 0.0]])).total == 2
