"""A short run corrects the numbers of a plan."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import Cloud, Narrow, loss, net

from tidemill.core.errors import TrialMemoryError
from tidemill.train.planner.choose import plan
from tidemill.train.planner.hardware import preset
from tidemill.train.planner.probe import Probe, probe
from tidemill.train.types import Recipe


def test_a_corrected_plan_says_what_was_measured() -> None:
    module, cloud, recipe = net(width=64), Cloud(200), Recipe(batch=32)
    given = cloud.batch(torch.arange(2).numpy(), train=False, rng=None)
    first = plan(module, loss, given, recipe, preset("cpu"))
    before = [p.detach().clone() for p in module.parameters()]
    done = probe(first, module, loss, cloud, recipe)
    assert done.step_s > 0
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    known = Probe(memory_bytes=3 * first.estimate.memory_bytes, step_s=2 * first.estimate.step_s)
    second = plan(module, loss, given, recipe, preset("cpu"), correction=known.correction(first))
    assert second.estimate.step_s == pytest.approx(known.step_s)
    assert second.estimate.memory_bytes == pytest.approx(known.memory_bytes, rel=1e-3)
    third = known.correction(second)
    assert (third.runs, third.memory, third.time) == (2, pytest.approx(3.0, rel=1e-3), pytest.approx(2.0))


def test_a_plan_that_went_on_with_smaller_pieces_did_not_fit() -> None:
    module, cloud, recipe = Narrow(most=20), Cloud(200), Recipe(batch=32)
    given = cloud.batch(torch.arange(2).numpy(), train=False, rng=None)
    found = plan(module, loss, given, recipe, preset("cpu"))
    assert found.placement.micro_batch == 32
    with pytest.raises(TrialMemoryError, match="pieces of 16 samples in place of 32"):
        probe(found, module, loss, cloud, recipe)
