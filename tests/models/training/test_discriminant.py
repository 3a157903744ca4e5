"""A shrunk discriminant: it knows clouds of few rows, says how sure it is, and needs no rows to choose by."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a head is fitted with torch")

from torch.nn import functional as F

from tidemill.models.training import discriminant
from tidemill.models.training.discriminant import fit_discriminant
from tidemill.models.training.heads import Head, fit_head


def clouds(each: int, classes: int = 20, features: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows around the means of classes, all in one stretched shape, in an order that says nothing."""
    made = np.random.default_rng(7)
    means = made.normal(size=(classes, features))
    stretch = made.normal(size=(features, features)) * 0.5
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(each * classes) % classes)
    rows = means[codes] + rng.normal(size=(len(codes), features)) @ stretch
    return torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(codes)


def right_and_loss(head: Head, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    outputs = x @ head.weight.T + head.bias
    return float((outputs.argmax(dim=1) == y).float().mean()), float(F.cross_entropy(outputs, y))


def test_of_few_rows_a_class_it_learns_more_than_a_descent() -> None:
    x, y = clouds(6)
    checks, test = clouds(4, seed=1), clouds(50, seed=2)
    shrunk = right_and_loss(fit_discriminant(x, y, 20, *checks, math.inf), *test)
    descended = right_and_loss(fit_head(x, y, 20, *checks, math.inf), *test)
    assert shrunk[0] > descended[0] + 0.03
    assert shrunk[1] < descended[1]


def test_unshrunk_it_is_the_discriminant_of_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its probabilities are those of Bayes' rule, whatever the features' units."""
    monkeypatch.setattr(discriminant, "_SHRINKAGES", (0.0,))
    x, y = clouds(2_000, classes=3, features=4)
    units = torch.tensor([1.0, 100.0, 0.1, 1.0])
    checks, truth = clouds(3_000, classes=3, features=4, seed=1)
    head = fit_discriminant(x * units, y, 3, checks * units, truth, math.inf)
    centres = torch.stack([x[y == k].mean(dim=0) for k in range(3)])
    around = x - centres[y]
    inverse = torch.linalg.inv(around.T @ around / len(x))
    book = x @ inverse @ centres.T - 0.5 * ((centres @ inverse) * centres).sum(dim=1)
    got = torch.softmax((x * units) @ head.weight.T + head.bias, dim=1)
    assert float((got - torch.softmax(book, dim=1)).abs().max()) < 0.05


def test_rare_classes_are_said_to_be_rare() -> None:
    rng = np.random.default_rng(0)
    y = torch.from_numpy((rng.random(2_000) < 0.1).astype(np.int64))
    x = torch.from_numpy(rng.normal(size=(2_000, 3)).astype(np.float32)) + 0.1 * y[:, None]
    head = fit_discriminant(x[:1_000], y[:1_000], 2, x[1_000:], y[1_000:], math.inf)
    assert float(torch.softmax(x @ head.weight.T + head.bias, dim=1)[:, 1].mean()) == pytest.approx(0.1, abs=0.03)


def test_without_rows_to_choose_by_some_are_set_apart_and_then_learned_from() -> None:
    x, y = clouds(10)
    test = clouds(50, seed=2)
    alone = right_and_loss(fit_discriminant(x, y, 20, None, None, math.inf), *test)
    fewer = right_and_loss(fit_discriminant(x[40:], y[40:], 20, x[:40], y[:40], math.inf), *test)
    assert alone[0] > fewer[0]


def test_when_time_is_over_the_usual_shrinkage_is_taken() -> None:
    x, y = clouds(6)
    checks = clouds(4, seed=1)
    found = fit_discriminant(x, y, 20, *checks, -math.inf)
    assert found.loss >= fit_discriminant(x, y, 20, *checks, math.inf).loss
    assert discriminant._SHRINKAGES[0] == 0.5


def test_features_that_never_change_and_classes_that_are_not_there_do_no_harm() -> None:
    x, y = clouds(6)
    x = torch.cat([x, torch.full((len(x), 1), 3.0)], dim=1)
    checks, truth = clouds(4, seed=1)
    checks = torch.cat([checks, torch.full((len(checks), 1), 9.0)], dim=1)
    head = fit_discriminant(x, y, 21, checks, truth, math.inf)
    outputs = checks @ head.weight.T + head.bias
    assert torch.isfinite(outputs).all()
    assert (outputs.argmax(dim=1) != 20).all()
    assert not head.weight[:, -1].any()
