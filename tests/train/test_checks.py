"""Checks before a training find what is wrong, and let go through what is right."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import RECIPE, Cloud, loss, net
from torch import Tensor, nn

from tidemill.core.errors import NotFoundError, TrialError
from tidemill.train import device
from tidemill.train.checks import CHECKS, Finding, _Case, check, refuse
from tidemill.train.types import Limits, Placement

CPU = Placement(device="cpu")


def only(code: str, found: tuple[Finding, ...]) -> Finding:
    (one,) = [f for f in found if f.code == code]
    return one


def look(code: str, module: nn.Module | None = None, **how: object) -> Finding:
    """Run one check alone."""
    given: dict[str, object] = {"samples": Cloud(), "recipe": RECIPE, "loss": loss, "plan": CPU, **how}
    return only(code, check(module or net(), skip=set(CHECKS) - {code}, **given))  # type: ignore[arg-type]


def test_a_sound_training_passes_in_seconds(tmp_path: Path) -> None:
    began = time.process_time()
    found = check(net(), loss, Cloud(), RECIPE, validation=Cloud(20, seed=4), folder=tmp_path, plan=CPU,
                  limits=Limits(deadline=time.monotonic() + 1000))  # fmt: skip
    assert time.process_time() - began < 60
    assert [f.code for f in found] == [f"P{n}" for n in range(1, 11)]
    assert {f.code: f.message for f in found if f.state == "error"} == {}
    assert all(len(f.message) < 300 and f.message.endswith(".") for f in found)
    refuse(found)
    assert not list(tmp_path.iterdir())


def test_checks_can_be_skipped() -> None:
    assert check(net(), loss, Cloud(), RECIPE, plan=CPU, skip=CHECKS) == ()
    with pytest.raises(NotFoundError, match="Did you mean 'P10'"):
        check(net(), loss, Cloud(), RECIPE, plan=CPU, skip=["P0"])


def test_numbers_that_are_none_are_found() -> None:
    cloud = Cloud()
    cloud.x[7, 2] = float("nan")
    found = look("P1", samples=cloud)
    assert (found.state, "not finite" in found.message) == ("error", True)
    with pytest.raises(TrialError, match=r"P1 \(data\): 'x' has numbers"):
        refuse((found,))


def test_validation_inside_of_training_is_found() -> None:
    assert look("P1", validation=Cloud()).state == "warning"
    assert "in training, too" in look("P1", validation=Cloud()).message


def test_a_module_that_fails_is_told_not_thrown() -> None:
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:, :3])

    found = look("P2", Broken(5, 3))
    assert found.state == "error"
    assert "RuntimeError" in found.message


def test_parameters_without_gradient_are_named() -> None:
    found = look("P2", net(unused=True))
    assert found.state == "warning"
    assert "idle.weight" in found.message


def test_a_loss_that_can_t_fall_is_noticed() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 3) + 0 * self.weight

    assert look("P3").state == "ok"
    assert look("P3", Deaf()).state == "warning"


def test_memory_that_is_not_there_is_an_error() -> None:
    assert look("P4").state == "ok"
    found = look("P4", net(width=256), limits=Limits(memory_bytes=1))
    assert found.state == "error"


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    module = net(width=512)
    each = 1e9 * float(look("P4", module).message.split(" GB needed")[0])
    monkeypatch.setattr(device, "free_bytes", lambda _device, limit: int(3 * each) if limit is None else limit)
    assert look("P4", module).state == "ok"
    found = look("P4", module, plan=replace(CPU, replicas=4))
    assert found.state == "error"
    assert "4 replicas (DDP)" in found.message
    assert look("P4", module, limits=Limits(memory_bytes=int(each / 2))).state == "error"


def test_what_is_offloaded_counts_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda": 10**12, "cpu": 10**12}
    monkeypatch.setattr(device, "free_bytes", lambda where, _limit: free[where.type])

    def on_a_gpu(offload: bool) -> tuple[str, str]:
        # Of its device this check asks only for the kind and what is free.
        case = _Case(net(width=512), loss, Cloud(), RECIPE, None, None, replace(CPU, offload=offload), Limits(), 0)
        case.device = torch.device("cuda")
        return CHECKS["P4"][1](case)

    (_, whole), (state, message) = on_a_gpu(False), on_a_gpu(True)
    assert state == "ok"
    assert float(message.split(" GB needed")[0]) < float(whole.split(" GB needed")[0])
    assert "offloaded to the host" in message
    free["cpu"] = 10**5
    assert on_a_gpu(False)[0] == "ok"
    assert on_a_gpu(True)[0] == "error"


def test_a_module_that_is_not_the_same_twice_is_noticed() -> None:
    class Moody(nn.Linear):
        def __init__(self) -> None:
            super().__init__(5, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1.0 + next(calls))

    calls = itertools.count()
    assert look("P7").state == "ok"
    assert look("P7", Moody()).state == "warning"


def test_batches_and_processes() -> None:
    assert look("P8").state == "ok"
    assert look("P8", plan=replace(CPU, replicas=2)).state == "warning"
    assert look("P8", plan=replace(CPU, replicas=20)).state == "error"


def test_too_little_time_is_said_in_epochs() -> None:
    found = look("P9", limits=Limits(deadline=time.monotonic() + 0.001), recipe=replace(RECIPE, epochs=1000))
    assert found.state == "warning"
    assert "of 1000 epochs" in found.message


def test_a_slow_loader_is_noticed() -> None:
    class Slow(Cloud):
        def batch(self, indices, *, train, rng):  # type: ignore[no-untyped-def]
            time.sleep(0.1)
            return super().batch(indices, train=train, rng=rng)

    assert look("P10", samples=Slow()).state == "warning"
