"""Nets are compared, and shipped, at their best temperature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.core.calibration import LEAST_ROWS
from tidemill.models.training.calibrate import LeastLogLoss, calibrate


class Rows:
    """Points of two classes that overlap."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(3)
        self.y = rng.integers(0, 2, count)
        self.x = (rng.normal(0, 1, (count, 2)) + self.y[:, None]).astype(np.float32)

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, indices: NDArray[np.int64], *, train: bool, rng: object) -> tuple[dict[str, Tensor], Tensor]:
        return {"input": torch.from_numpy(self.x[indices])}, torch.from_numpy(self.y[indices])


def net_of(loudness: float) -> nn.Linear:
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]) * loudness)
        net.bias.copy_(torch.tensor([1.0, -1.0]) * loudness)
    return net.eval()


def loss_of(net: nn.Linear, rows: Rows) -> float:
    logits = net(torch.from_numpy(rows.x)).detach()
    return float(nn.functional.cross_entropy(logits, torch.from_numpy(rows.y)))


@given(loudness=st.floats(0.1, 2.0))
def test_how_loudly_a_net_speaks_neither_changes_its_score_nor_what_it_says_in_the_end(loudness: float) -> None:
    rows = Rows(400)
    net, plain = net_of(loudness), net_of(0.5)
    said = (n(torch.from_numpy(rows.x)).detach().numpy() for n in (net, plain))
    one, other = (LeastLogLoss()(outputs, rows.y) for outputs in said)
    assert one == pytest.approx(other, abs=1e-4)
    before, order = loss_of(net, rows), net(torch.from_numpy(rows.x)).argmax(1)
    pays = calibrate(net, net, rows) != 1.0
    assert loss_of(net, rows) <= before + 1e-6
    # Where the best temperature is next to what is said already, none pays, and a little of the loss stays.
    assert loss_of(net, rows) == pytest.approx(-one, abs=2e-4 if pays else 3e-3)
    assert torch.equal(order, net(torch.from_numpy(rows.x)).argmax(1))


def test_few_rows_and_answers_that_are_no_numbers_change_nothing() -> None:
    net = net_of(5.0)
    assert calibrate(net, net, Rows(LEAST_ROWS - 1)) == 1.0
    wild = net_of(float("inf"))
    assert calibrate(wild, wild, Rows(100)) == 1.0
    assert LeastLogLoss()(np.array([[np.nan, 0.0]]), np.array([0])) == -np.inf
