"""A linear head on features: as many rows as there is time for, of all classes alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a head is fitted with torch")

from tidemill.core.errors import TrialTimeoutError
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.heads import fit_head, head_in_time, look_at


@dataclass(frozen=True)
class Made:
    """Rows whose only feature is their target."""

    y: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def made(rows: int = 90) -> Made:
    return Made(np.sort(np.arange(rows) % 3), np.arange(rows))


def test_a_head_of_labels_is_as_many_heads_of_one() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(300, 4)).astype(np.float32))
    y = torch.stack([(x[:, 0] > 0).float(), (x[:, 1] + x[:, 2] > 0.5).float()], dim=1)
    both = fit_head(x, y, 2, None, None, float("inf"))
    for k in range(2):
        one = fit_head(x, y[:, k : k + 1], 1, None, None, float("inf"))
        assert torch.allclose(both.weight[k], one.weight[0], atol=0.05, rtol=0.05)


@pytest.mark.parametrize("chosen", [True, False], ids=["chosen", "usual"])
@pytest.mark.parametrize("rows", [300, 6000])
def test_of_few_rows_with_many_features_a_head_is_not_surer_than_it_may_be(rows: int, chosen: bool) -> None:
    rng = np.random.default_rng(0)
    way = rng.normal(size=(200,)) / 200**0.5

    def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = rng.normal(size=(count, 200))
        y = rng.random(count) < 1 / (1 + np.exp(-1.5 * x @ way))  # known as far as chance allows
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))

    x, y = drawn(rows)
    checks, truth = drawn(rows // 3)
    head = fit_head(x, y, 2, checks if chosen else None, truth if chosen else None, float("inf"))
    seen, true = drawn(4000)
    loss = float(torch.nn.functional.cross_entropy(seen @ head.weight.T + head.bias, true))
    known = 1.5 * seen @ torch.from_numpy(way).float()
    best = float(torch.nn.functional.binary_cross_entropy_with_logits(known, true.float()))
    assert loss < (0.69 if rows == 300 else best + 0.04), "as much as nothing known, or nearly all that can be"


def test_what_is_seen_in_time_is_of_all_classes_and_stands_beside_its_targets() -> None:
    data = made()
    asked: list[int] = []

    def features(rows: np.ndarray) -> Any:
        asked.append(len(rows))
        return torch.from_numpy(data.y[rows].astype(np.float32))[:, None]

    x, y = look_at(data, float("inf"), 40, features)
    assert asked == [40, 40, 10]
    assert torch.equal(x[:, 0], y.float())
    x, y = look_at(data, float("inf"), 40, features, units=(1.0, 2.0))
    assert torch.equal((x[:, 0] - 1.0) / 2.0, y), "values are in units of their spread"

    def slow(rows: np.ndarray) -> Any:
        time.sleep(0.2)
        return features(rows)

    x, y = look_at(data, time.monotonic() + 0.3, 30, slow)
    assert len(x) == len(y) == 30, "a second piece would not be done in time"
    assert set(y.tolist()) == {0, 1, 2}
    assert len(look_at(data, time.monotonic() - 1.0, 30, slow)[0]) == 0


def test_too_few_rows_in_time_are_told_and_what_is_known_is_saved_all_the_same() -> None:
    saved: list[bool] = []
    with pytest.raises(TrialTimeoutError, match=r"time to read 3 texts in .* not enough"):
        head_in_time(
            lambda data, until: (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)), made(), None, 3, TrainBudget(),
            "to read {:,} texts", lambda: saved.append(True),
        )  # fmt: skip
    assert saved == [True]


def test_without_time_for_rows_to_choose_by_the_penalty_is_the_usual_one() -> None:
    data = made()

    def look(rows: Made, until: float) -> tuple[Any, Any]:
        if len(rows) == 3:
            return torch.empty(0, 0), torch.empty(0)
        return torch.from_numpy(np.eye(3, dtype=np.float32)[rows.y]), torch.from_numpy(rows.y)

    few = Made(data.y, np.arange(3))
    found = [head_in_time(look, data, valid, 3, TrainBudget(), "") for valid in (few, None)]
    assert torch.equal(found[0].weight, found[1].weight)
