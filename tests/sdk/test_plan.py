"""Planning a model that a function defines, and remembering what a short run showed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tidemill.core.errors import (
    InputError,
    MissingExtraError,
    NotFoundError,
    OptionError,
    TrialError,
    TrialMemoryError,
)
from tidemill.sdk import plan as plans
from tidemill.sdk.plan import check_training, load_definition, plan_training, refuse_training

DEFINITION = """
import torch
from torch import nn
from tidemill.train.types import Recipe


class Line:
    def __len__(self):
        return 64

    def batch(self, indices, *, train, rng):
        x = torch.linspace(-1, 1, 64)[torch.from_numpy(indices)][:, None]
        return {"input": x}, 2 * x[:, 0]


def loss(outputs, targets):
    return (outputs[:, 0] - targets) ** 2


def build():
    return nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 1)), loss, Line(), Recipe(batch=16, epochs=2)


class Unreadable(Line):
    def batch(self, indices, *, train, rng):
        raise KeyError("picture")


def measured():
    return (*build(), Line())


def unreadable():
    module, loss, _, recipe = build()
    return module, loss, Unreadable(), recipe


def shapeless():
    module, loss, _, recipe = build()
    return module, loss, [1, 2, 3], recipe


def ghost():
    module, *rest = build()
    return module.to("meta"), *rest


def no_module():
    return loss, build()[0], Line()


class Narrow(nn.Sequential):
    most = 5  # so many samples at a time, there is no room for more


    def forward(self, input):
        if type(input) is torch.Tensor and len(input) > self.most:  # the planner's ghosts need no room
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(input)


def narrow():
    module, *rest = build()
    return Narrow(*module), *rest


def too_narrow():
    found = narrow()
    found[0].most = 0
    return found


def wrong():
    return 7


def fails():
    raise ValueError("no such luck")
"""


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    # A name of its own for each test: modules are imported once.
    path = tmp_path / f"model_{abs(hash(request.node.name))}.py"
    path.write_text(DEFINITION)
    return f"{path}:build"


def test_a_probe_is_remembered_for_the_device(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.train.planner.hardware import preset

    monkeypatch.setattr("tidemill.train.planner.hardware.detect", lambda: preset("cpu"))
    place = tmp_path / "workspace"
    first = plan_training(source, workspace=place, probe=True)
    assert first["probe"]["step_s"] > 0
    assert first["correction"]["runs"] == 0
    second = plan_training(source, workspace=place)
    assert second["correction"] == first["probe"]["correction"]
    assert second["estimate"]["step_s"] == pytest.approx(first["probe"]["step_s"], rel=1e-6)
    assert plan_training(source, workspace=place, hardware="h100")["correction"]["runs"] == 0


def test_a_plan_is_taken_from_a_file(source: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    plan_training(source, workspace=tmp_path, hardware="8xh100", out=out)
    values = json.loads(out.read_text())
    values["placement"] |= {"replicas": 4, "micro_batch": 2}
    out.write_text(json.dumps(values))
    found = plan_training(source, workspace=tmp_path, hardware="8xh100", given=out)
    assert found["placement"]["replicas"] == 4
    assert "as given" in found["reason"]


def test_options_replace_the_function_s(source: str, tmp_path: Path) -> None:
    assert plan_training(source, workspace=tmp_path, hardware="h100")["batch"] == 16
    found = plan_training(source, workspace=tmp_path, hardware="h100", batch=8, precision="fp32", optimizer=None)
    assert (found["batch"], found["precision"]) == (8, "fp32")


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine, without measuring it."""
    from tidemill.train.planner.hardware import preset

    monkeypatch.setattr("tidemill.train.planner.hardware.detect", lambda: preset("cpu"))


def other(source: str, name: str) -> str:
    return f"{source.removesuffix(':build')}:{name}"


@pytest.mark.usefixtures("slow_machine")
def test_a_plan_that_runs_out_of_memory_gives_way_to_the_next_best(source: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    found = plan_training(other(source, "narrow"), workspace=tmp_path / "w", probe=True, out=out)
    dropped = found["probe"]["dropped"]
    assert [one["placement"]["micro_batch"] for one in dropped] == [16, 8]
    assert found["placement"]["micro_batch"] == 4
    assert "ran out of memory: it went on with pieces of 4 samples in place of 16" in dropped[0]["reason"]
    assert json.loads(out.read_text()) == json.loads(json.dumps(found))


@pytest.mark.usefixtures("slow_machine")
def test_it_does_not_try_for_ever(source: str, tmp_path: Path) -> None:
    with pytest.raises(TrialMemoryError, match=r"pieces of 16; .* pieces of 8; .* pieces of 4"):
        plan_training(other(source, "too_narrow"), workspace=tmp_path / "w", probe=True)


@pytest.mark.usefixtures("slow_machine")
def test_a_plan_that_was_given_is_the_only_one_that_is_tried(source: str, tmp_path: Path) -> None:
    given = tmp_path / "plan.json"
    given.write_text(json.dumps({"device": "cpu", "micro_batch": 8}))
    with pytest.raises(TrialMemoryError, match="What was tried ran out of memory: one process with pieces of 8"):
        plan_training(other(source, "narrow"), workspace=tmp_path / "w", probe=True, given=given)


def test_checks_come_as_plain_values(source: str) -> None:
    found = check_training(source, skip=["P3", "P9", "P10"])
    assert json.loads(json.dumps(found)) == found
    assert "P3" not in {f["code"] for f in found}


def states(found: list[dict[str, Any]]) -> dict[str, str]:
    return {one["code"]: one["state"] for one in found}


def test_checks_look_at_the_plan_its_folder_its_time_and_its_validation(source: str, tmp_path: Path) -> None:
    found = check_training(
        other(source, "measured"), skip=["P3"], folder=tmp_path, time="1h", placement={"device": "cpu", "replicas": 32}
    )
    said = {one["code"]: one["message"] for one in found}
    assert "validation samples looked at are in training, too" in said["P1"]
    assert states(found)["P5"] == "ok"
    assert states(found)["P8"] == "error"
    assert "s are left" in said["P9"]
    with pytest.raises(TrialError, match=r"P8 \(batch\): A batch of 16 is smaller than 32 processes"):
        refuse_training(found)


def test_a_plan_for_other_hardware_is_checked_without_this_machine(source: str) -> None:
    found = check_training(source, hardware="8xh100", placement={"device": "cuda", "replicas": 8}, skip=["P3", "P9"])
    assert [one["code"] for one in found] == ["P1", "P2", "P4", "P5", "P6", "P7", "P8", "P10"]
    skipped = [code for code, state in states(found).items() if state == "skipped"]
    assert skipped == ["P4", "P5", "P6", "P10"]
    assert states(found)["P8"] == "ok"
    refuse_training(found)


def test_a_module_without_weights_is_planned_but_not_checked(source: str, tmp_path: Path) -> None:
    assert plan_training(other(source, "ghost"), workspace=tmp_path, hardware="h100")["parameters"] == 193
    with pytest.raises(OptionError, match="can be planned, but not checked"):
        check_training(other(source, "ghost"))


def test_validation_samples_of_a_function_make_room_for_the_best_weights(source: str, tmp_path: Path) -> None:
    one = plan_training(source, workspace=tmp_path, hardware="h100")
    two = plan_training(other(source, "measured"), workspace=tmp_path, hardware="h100")
    assert (one["estimate"]["memory"]["kept"], two["estimate"]["memory"]["kept"] > 0) == (0, True)


def test_samples_that_can_t_be_read_are_the_function_s_fault(source: str, tmp_path: Path) -> None:
    for name, word in [("unreadable", "can't be read: KeyError: 'picture'"), ("shapeless", "third is list, not sam")]:
        with pytest.raises(InputError, match=word):
            plan_training(other(source, name), workspace=tmp_path, hardware="h100")


def test_other_hardware_can_t_be_tried(source: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="can't be tried here"):
        plan_training(source, workspace=tmp_path, hardware="h100", probe=True)


def test_sources_that_can_t_be_used_are_said(source: str, tmp_path: Path) -> None:
    place = source.removesuffix(":build")
    for text, error, word in [
        ("build", OptionError, "names no function"),
        (f"{place}:biuld", NotFoundError, "Did you mean 'build'"),
        (f"{place}:wrong", OptionError, "returned int"),
        (f"{place}:no_module", OptionError, "the first is function, not an nn.Module"),
        (f"{place}:fails", OptionError, "ValueError: no such luck"),
        (f"{tmp_path}/absent.py:build", NotFoundError, "There is no file"),
        ("no_such_package:build", OptionError, "can't be loaded"),
    ]:
        with pytest.raises(error, match=word):
            load_definition(text)


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr("tidemill.train.extra.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tidemill\[deep\]"):
        plans.plan_training(source)
