"""A training of a fit is planned: it stays whole where it fits, and is cut where it doesn't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="nets are traced with torch")

import numpy as np
import torch
from tests.train.small import Net, NormNet
from torch import Tensor, nn

from tidemill.core.errors import OptionError
from tidemill.models.training import placing
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.placing import in_words, settle
from tidemill.models.training.run import train
from tidemill.train.device import forget_peak, give_back, peak_bytes, resident_bytes
from tidemill.train.planner.hardware import Hardware, preset
from tidemill.train.types import Placement, Recipe

MB = 1_000_000
CPU = torch.device("cpu")
RECIPE = Recipe(batch=64, epochs=1)


class Rows:
    """Rows of five numbers, and one of three classes for each."""

    def __len__(self) -> int:
        return 200

    def batch(
        self, indices: np.ndarray[Any, Any], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        return {"x": torch.zeros(len(indices), 5)}, torch.zeros(len(indices), dtype=torch.long)


class Long(Rows):
    """Some rows are longer than others."""

    widths = np.array([3, 9, 4] * 40)

    def batch(
        self, indices: np.ndarray[Any, Any], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        self.shown = self.widths[indices]
        return super().batch(indices, train=train, rng=rng)


class Dropping(Net):
    """Draws by chance."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x))


class Fickle(nn.Module):
    """What it does depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if float(x.sum()) > 0 else self.inner(-x)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def with_free(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> TrainBudget:
    """A budget of a process that may hold so much more than it does."""
    monkeypatch.setattr(placing, "_held_bytes", lambda: 10 * MB)
    return TrainBudget(device="cpu", memory_bytes=10 * MB + free_bytes)


def settled(net: nn.Module, budget: TrainBudget, samples: Rows | None = None) -> Placement:
    return settle(net, loss, samples or Rows(), RECIPE, budget, validation=True)


def test_what_fits_is_trained_whole_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured() -> Hardware:
        raise AssertionError("rates don't matter where all fits")

    monkeypatch.setattr(placing, "detect", measured)
    budget = TrainBudget(device="cpu")
    assert settled(Net(width=64, blocks=4), budget) == Placement(device="cpu", micro_batch=64)
    assert budget.placement == Placement(device="cpu", micro_batch=64)
    assert budget.placed == "one process"


def test_less_memory_makes_smaller_pieces_or_recomputes(monkeypatch: pytest.MonkeyPatch) -> None:
    net, rows = Net(width=64, blocks=8), 64 * 64 * 4  # bytes of what a layer gives for a batch of 64 rows

    def placed(free: int) -> Placement:
        return settled(net, with_free(monkeypatch, 2 * MB + free))

    assert placed(200 * rows) == Placement(device="cpu", micro_batch=64)
    tight = placed(20 * rows)
    assert (tight.micro_batch or 0) < 64 or tight.recompute == "blocks"
    budget = with_free(monkeypatch, 1)  # not even the weights: the leanest is tried
    assert settled(net, budget) == Placement(device="cpu", micro_batch=1, recompute="blocks")
    assert budget.placed == "one process, recomputing blocks, pieces of 1"
    assert settled(NormNet(), with_free(monkeypatch, 1)).micro_batch == 2, "batch normalisation wants two"


def test_a_placement_that_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "trace", None)
    given = Placement(device="cpu", replicas=2, micro_batch=8)
    budget = TrainBudget(placement=given)
    assert settled(Net(), budget) is given
    assert budget.placed == "2 replicas (DDP), pieces of 8"


@pytest.mark.parametrize(("name", "wanted"), [("t4", "fp32"), ("h100", "bf16")])
def test_a_net_is_looked_at_in_the_precision_that_its_gpu_trains_in(
    monkeypatch: pytest.MonkeyPatch, name: str, wanted: str
) -> None:
    seen, whole = [], placing.trace

    def trace(*given: Any, precision: str, **how: Any) -> Any:
        seen.append(precision)
        return whole(*given, precision=precision, **how)

    monkeypatch.setattr(placing, "trace", trace)
    monkeypatch.setattr(placing, "_hardware", lambda budget: preset(name))
    assert settled(Net(), TrainBudget()).micro_batch == 64
    assert set(seen) == {wanted}


def test_pieces_of_a_net_whose_pass_depends_on_values_are_found_by_a_try() -> None:
    assert settled(Fickle(), TrainBudget(device="cpu")) == Placement(device="cpu", micro_batch=None)


def test_the_planner_is_shown_the_widest_rows() -> None:
    samples = Long()
    settled(Net(), TrainBudget(device="cpu"), samples)
    assert samples.shown.tolist() == [9, 9]


def test_a_look_changes_no_chance() -> None:
    net = Dropping()
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    settled(net, TrainBudget(device="cpu"))
    assert torch.equal(torch.rand(2), wanted)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(OptionError, match="A GPU was asked for"):
        settled(Net(), TrainBudget(device="cuda"))


def test_several_devices_are_weighed_by_the_planner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "find_device", lambda name: torch.device("cuda", 0))
    large = replace(preset("l4"), devices=4, memory_bytes=3_000 * MB)
    monkeypatch.setattr(placing, "detect", lambda: large)
    recipe = Recipe(batch=64, precision="fp32")

    def place(device: str, width: int) -> Placement:
        with torch.device("meta"):
            net = Net(width=width, blocks=4)
        return settle(net, loss, Rows(), recipe, TrainBudget(device=device), validation=False)

    assert place("auto", 32).world == 1, "simple wins where it is as quick"
    assert place("auto", 3_500).world > 1, "what doesn't fit one is spread over several"
    one = place("cuda:1", 3_500)
    assert one.world == 1, "a device that is named stays alone"
    assert one.device == "cuda:1"


def test_words_tell_of_pieces_where_there_are_some() -> None:
    assert in_words(Placement(micro_batch=None), 64) == "one process"
    assert in_words(Placement(shards=4, micro_batch=16), 64) == "4 shards (FSDP)"
    assert in_words(Placement(shards=4, micro_batch=4), 64) == "4 shards (FSDP), pieces of 4"


class Many(Rows):
    """So many rows that what a net keeps for its way back is most of what it takes."""

    def __len__(self) -> int:
        return 16_000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a while is told by Linux")
def test_a_training_keeps_to_the_memory_that_it_may_hold() -> None:
    recipe = Recipe(batch=16_000, epochs=1, precision="fp32")

    def taken_bytes(more: int | None) -> int:
        give_back(CPU)  # or what trainings before this one let go of is taken again, and counts as nothing
        limit = None if more is None else placing._held_bytes() + more
        forget_peak(CPU)
        before = resident_bytes()
        train(Net(width=128, blocks=4), loss, Many(), recipe, TrainBudget(device="cpu", memory_bytes=limit), 0)
        return peak_bytes(CPU) - before

    taken_bytes(None)  # what a first training loads
    free = 120 * MB
    most = free * 6 // 5  # what threads of the arithmetic keep for themselves is not planned
    assert taken_bytes(free) < most < taken_bytes(None)
