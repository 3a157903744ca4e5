"""What nets are trained by."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="losses are computed with torch")

from tidemill.models.training.losses import BinaryCrossEntropy, CrossEntropy, SquaredError


def test_the_loss_of_labels_is_that_of_each_alone() -> None:
    logits, truth = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    each = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0))]
    assert float(BinaryCrossEntropy()(logits, truth)[0]) == pytest.approx(sum(each) / np.sqrt(2), rel=1e-6)
    smooth = BinaryCrossEntropy(0.2)(logits, truth)
    assert float(smooth[0]) > float(BinaryCrossEntropy()(logits, truth)[0])
    assert CrossEntropy()(logits, torch.tensor([0])).shape == smooth.shape


def test_its_gradient_at_the_start_does_not_grow_with_the_number_of_labels() -> None:
    norms = []
    for labels in (2, 50):
        logits = torch.zeros(1, labels, requires_grad=True)
        BinaryCrossEntropy()(logits, torch.zeros(1, labels)).sum().backward()
        assert logits.grad is not None
        norms.append(float(logits.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5) == pytest.approx(0.5, rel=1e-5)


def test_a_squared_error_is_in_units_of_the_spread() -> None:
    found = SquaredError(2.0)(torch.tensor([[3.0], [1.0]]), torch.tensor([1.0, 1.0]))
    assert found.tolist() == [1.0, 0.0]
