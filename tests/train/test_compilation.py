"""Compiled steps are the eager ones; they are kept where they pay, and given up where the compiler fails."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import RECIPE, Cloud, Net, NormNet, accuracy, loss, net
from torch import nn

from tidemill.core.errors import TrialError
from tidemill.train import compilation
from tidemill.train.compilation import Compilation, News
from tidemill.train.place import Group
from tidemill.train.runtime import train
from tidemill.train.types import Event, Limits, Placement, Trained

CPU = Placement(device="cpu", micro_batch=5)
ALWAYS = replace(RECIPE, compile="always", keep_best=False)
EAGER = replace(ALWAYS, compile="never")


class Forgetful(Net):
    """With dropout: a step is only the same where the same numbers are drawn."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.3, self.training))


class Spy:
    """A compiler that leaves graphs as they are, and fails from one of them on."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.graphs = 0
        self.fails_at = fails_at

    def __call__(self, graph: Any, _inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        if self.graphs >= self.fails_at:
            raise RuntimeError("no such instruction")
        found: Callable[..., Any] = graph.forward
        return found


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    one = Spy()
    monkeypatch.setattr(compilation, "BACKEND", one)
    return one


def run(module: nn.Module, recipe: Any, told: list[Event] | None = None, **how: Any) -> Trained:
    given = {"plan": CPU, "validation": Cloud(21, seed=3), "score": accuracy, **how}
    return train(module, loss, Cloud(), recipe, on_event=None if told is None else told.append, **given)


def normed() -> nn.Module:
    torch.manual_seed(1)
    module = NormNet()
    for block in module.body:
        block[0].bias = None  # before a normalisation its gradient is rounding alone
    return module


def forgetful() -> nn.Module:
    torch.manual_seed(1)
    return Forgetful()


def messages(told: list[Event], kind: str) -> list[str]:
    return [event.message for event in told if event.kind == kind]


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler for processors needs g++")
@pytest.mark.parametrize("make", [net, forgetful, normed])
def test_compiled_steps_are_the_eager_ones(make: Callable[[], nn.Module]) -> None:
    told, module, plain = list[Event](), make(), make()
    trained = run(module, ALWAYS, told)
    eager = run(plain, EAGER)
    assert len(messages(told, "compiled")) == 1
    assert messages(told, "warning") == []
    np.testing.assert_allclose(trained.losses, eager.losses, atol=1e-5)
    assert trained.curve[-1].loss == pytest.approx(eager.curve[-1].loss, abs=1e-5)
    assert list(module.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(module.state_dict(), plain.state_dict(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_its_passes_go_through_the_compiler_and_evaluations_don_t(spy: Spy, recompute: str) -> None:
    graphs: dict[str, int] = {}
    trained = train(
        net(), loss, Cloud(), ALWAYS, validation=Cloud(21, seed=3), score=accuracy,
        plan=replace(CPU, recompute=recompute), on_event=lambda event: graphs.update({event.kind: spy.graphs}),
    )  # fmt: skip
    assert 0 < graphs["compiled"] == graphs["ended"], "before the first step, for both sizes of pieces, and never again"
    np.testing.assert_allclose(trained.losses, run(net(), EAGER).losses, atol=1e-5)


def test_containers_of_pytorch_s_own_are_compiled_too(spy: Spy) -> None:
    class Rows(Cloud):
        def batch(self, indices: Any, *, train: bool, rng: Any) -> Any:
            inputs, targets = super().batch(indices, train=train, rng=rng)
            return {"input": inputs["x"]}, targets

    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    train(module, loss, Rows(), ALWAYS, plan=CPU)
    assert spy.graphs > 0


def test_the_module_is_plain_again_afterwards(spy: Spy) -> None:
    module = net()
    run(module, ALWAYS)
    before = spy.graphs
    module(torch.zeros(2, 5))
    assert spy.graphs == before > 0
    assert "forward" not in vars(module)


@pytest.mark.parametrize("first", [ALWAYS, EAGER])
def test_a_training_goes_on_compiled_or_not(spy: Spy, first: Any, tmp_path: Path) -> None:
    second = EAGER if first is ALWAYS else ALWAYS
    run(net(), first, folder=tmp_path, limits=Limits(epochs=1.9))
    ended = run(net(seed=9), second, folder=tmp_path)
    np.testing.assert_allclose(ended.losses, run(net(), EAGER).losses, atol=1e-5)
    assert spy.graphs > 0


def test_a_compiler_that_fails_leaves_the_training_eager_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", Spy(fails_at=1))
    told: list[Event] = []
    trained = run(net(), ALWAYS, told)
    (said,) = messages(told, "warning")
    assert said.startswith("The compiler failed, the training goes on eager:")
    assert "no such instruction" in said
    assert messages(told, "compiled") == []
    assert trained.losses == run(net(), EAGER).losses


def test_a_compiler_that_fails_later_does_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody(Net):
        mood = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.mood

    torch.manual_seed(1)
    module, spy, told = Moody(), Spy(), list[Event]()
    monkeypatch.setattr(compilation, "BACKEND", spy)

    def change(event: Event) -> None:
        told.append(event)
        if event.kind == "point":  # what was compiled is not for this module any more
            module.mood, spy.fails_at = 0.5, spy.graphs + 1

    trained = train(module, loss, Cloud(), ALWAYS, plan=CPU, on_event=change)
    assert trained.step == 15
    assert len(messages(told, "compiled")) == 1
    (said,) = messages(told, "warning")
    assert "no such instruction" in said


def test_a_module_that_fails_is_not_laid_to_the_compiler(spy: Spy) -> None:
    class Broken(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x[:, :3])

    with pytest.raises(TrialError, match="The module failed at step 1"):
        run(Broken(), ALWAYS)


def test_recomputed_statistics_are_not_compiled(spy: Spy) -> None:
    told: list[Event] = []
    run(NormNet(), ALWAYS, told, plan=replace(CPU, recompute="blocks"))
    assert spy.graphs == 0
    assert "keep statistics of batches" in messages(told, "warning")[0]


def test_by_itself_a_training_on_processors_is_eager(spy: Spy) -> None:
    run(net(), replace(EAGER, compile="auto", epochs=8))
    assert spy.graphs == 0


class Course:
    """Steps of a training on a GPU, as a `Compilation` is told of them."""

    def __init__(self, steps: int = 1000, left_s: float = math.inf) -> None:
        self.module = nn.Linear(1, 1)
        self.what = Compilation("auto", self.module, Group(torch.device("cuda"), Placement()), (RuntimeError,))
        self.steps, self.left_s = steps, left_s
        self.rehearsed = 0

    def rehearse(self) -> float:
        self.rehearsed += 1
        self.module(torch.zeros(1, 1))
        return 20.0

    def go(self, step_s: float, count: int) -> list[News]:
        news = [self.what.after(step_s, self.steps, self.left_s, self.rehearse) for _ in range(count)]
        return [one for one in news if one is not None]


def test_where_it_is_quicker_it_stays_compiled(spy: Spy) -> None:
    course = Course()
    assert [one.message for one in course.go(1.0, 8)] == ["Compiled in 20.0 s."]
    assert (spy.graphs, course.rehearsed) == (1, 1)
    assert [one.message for one in course.go(0.5, 8)] == [
        "A step takes 500.0 ms compiled against 1000.0 ms eager; the 20.0 s of the compiler are earned back in 41 "
        "of 1,000 steps."
    ]
    assert course.what.is_on
    assert course.go(2.0, 100) == []


def test_where_it_is_not_quicker_it_is_eager_again(spy: Spy) -> None:
    course = Course()
    course.go(1.0, 8)
    (news,) = course.go(0.96, 8)
    assert news.message == "A step takes 960.0 ms compiled against 1000.0 ms eager: it goes on eager."
    assert not course.what.is_on
    assert course.go(0.1, 100) == []
    course.module(torch.zeros(3, 1))
    assert spy.graphs == 1


@pytest.mark.parametrize("course", [Course(steps=299), Course(left_s=599.0)])
def test_what_is_over_soon_is_not_compiled(course: Course, spy: Spy) -> None:
    assert course.go(1.0, 50) == []
    assert course.rehearsed == 0


def test_the_first_steps_after_a_change_don_t_count(spy: Spy) -> None:
    course = Course()
    assert course.go(1000.0, 3) + course.go(1.0, 4) == []
    assert len(course.go(1.0, 1)) == 1
    course.go(1000.0, 3)
    assert "500.0 ms compiled against 1000.0 ms eager" in course.go(0.5, 5)[0].message


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler for processors needs g++")
@pytest.mark.parametrize("plan", [replace(CPU, replicas=2), replace(CPU, shards=2)], ids=lambda plan: plan.describe())
@pytest.mark.parametrize("broken", [False, True])
def test_processes_together_compile_or_are_eager_together(
    plan: Placement, broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    if broken:
        monkeypatch.setenv("CXX", "/bin/false")
    told: list[Event] = []
    trained = run(net(), ALWAYS, told, plan=plan)
    assert bool(messages(told, "warning")) == broken
    assert bool(messages(told, "compiled")) != broken
    np.testing.assert_allclose(trained.losses, run(net(), EAGER).losses, atol=1e-5)
