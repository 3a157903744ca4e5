"""Planning a model that a function defines, and remembering what a short run showed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tidemill.core.errors import MissingExtraError, NotFoundError, OptionError
from tidemill.sdk import plan as plans
from tidemill.sdk.plan import check_training, load_definition, plan_training

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


def test_checks_come_as_plain_values(source: str) -> None:
    found = check_training(source, skip=["P3", "P9", "P10"])
    assert json.loads(json.dumps(found)) == found
    assert "P3" not in {f["code"] for f in found}


def test_other_hardware_can_t_be_tried(source: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="can't be tried here"):
        plan_training(source, workspace=tmp_path, hardware="h100", probe=True)


def test_sources_that_can_t_be_used_are_said(source: str, tmp_path: Path) -> None:
    place = source.removesuffix(":build")
    for text, error, word in [
        ("build", OptionError, "names no function"),
        (f"{place}:biuld", NotFoundError, "Did you mean 'build'"),
        (f"{place}:wrong", OptionError, "returned int"),
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
