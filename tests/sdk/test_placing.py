"""Where nets of a fit are trained can be said, and is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="nets are trained with torch")

import torch
from tests.sdk.test_engines import table
from tests.sdk.test_images import digits

import tidemill as tm
from tidemill.core.budget import Budget
from tidemill.core.errors import DataError, OptionError
from tidemill.core.trial import TrialState
from tidemill.sdk.options import FitOptions
from tidemill.sdk.placing import placed
from tidemill.sdk.studies import list_studies
from tidemill.search.images.executor import workers_for
from tidemill.search.lines.executor import workers_for as workers_for_lines
from tidemill.search.settings import SearchSettings


def written(path: Path, **entries: Any) -> Path:
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_nothing_said_is_nothing_changed() -> None:
    assert placed(Budget(), FitOptions(), "image") == Budget()


def test_a_device_and_a_plan_come_into_the_budget(tmp_path: Path) -> None:
    assert placed(Budget(), FitOptions(device="cpu"), "text").device == "cpu"
    plan = written(tmp_path / "plan.json", placement={"device": "cpu", "replicas": 2, "micro_batch": 8})
    found = placed(Budget(), FitOptions(plan=plan), "line")
    assert found.device == "cpu"
    assert found.placement == {
        "device": "cpu", "replicas": 2, "shards": 1, "micro_batch": 8, "recompute": "none", "offload": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"device": "tpu"}, "'tpu' is not a device"),
        ({"plan": {"replicas": 2, "device": "cpu"}, "engine": "ray"}, "--plan: A plan says where on one machine"),
        ({"plan": {"replica": 2}}, "entry of a placement"),
        ({"plan": {"replicas": 0}}, "at least 1"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_read(tmp_path: Path, words: dict[str, Any], text: str) -> None:
    if "plan" in words:
        words = {**words, "plan": written(tmp_path / "plan.json", **words["plan"])}
    with pytest.raises(Exception, match=text) as caught:
        tm.fit(digits(tmp_path / "photos", 40), workspace=tmp_path / "w", trials=1, **words)
    assert caught.type.__module__ == "tidemill.core.errors"
    assert list_studies(workspace=tmp_path / "w") == []


def test_a_gpu_that_is_not_there_is_told_before_anything_is_read(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(OptionError, match="A GPU was asked for"):
        tm.fit(digits(tmp_path / "photos", 40), workspace=tmp_path / "w", trials=1, device="cuda")
    with pytest.raises(DataError, match="The plan can't be read"):
        tm.fit(digits(tmp_path / "photos", 40), workspace=tmp_path / "w", trials=1, plan=tmp_path / "none.json")


@pytest.mark.parametrize("words", [{"device": "cpu"}, {"plan": "p.json"}])
def test_tables_are_not_placed(tmp_path: Path, words: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(words))}: Models of tables are trained on processors"):
        tm.fit(table(), "y", workspace=tmp_path, trials=1, **words)


def test_trials_tell_where_they_were_trained(tmp_path: Path) -> None:
    words: dict[str, Any] = {"trials": 1, "families": ("quicknet",), "device": "cpu", "time": "60s"}
    with tm.fit(digits(tmp_path / "photos", 80), workspace=tmp_path / "w", **words) as study:
        (trial,) = study.search.trials()
    assert trial.usage.placement == "one process"
    assert trial.usage.to_json()["placement"] == "one process"


def test_processors_that_are_asked_for_are_shared_as_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Here:
        def exists(self) -> bool:
            return True

    monkeypatch.setattr("tidemill.search.images.executor._GPU", Here())
    settings = SearchSettings()
    assert workers_for(Budget(cpus=2), settings) == 1
    assert workers_for(Budget(cpus=2, device="cpu"), settings) == 2
    assert workers_for_lines(Budget(cpus=2), settings, together=True) == 1
    assert workers_for_lines(Budget(cpus=2, device="cpu"), settings, together=True) == 2


@pytest.mark.slow
def test_two_processes_train_a_net_where_a_plan_says_so(tmp_path: Path) -> None:
    plan = written(tmp_path / "plan.json", device="cpu", replicas=2, micro_batch=4)
    words: dict[str, Any] = {"trials": 1, "families": ("quicknet",), "plan": plan, "time": "90s"}
    with tm.fit(digits(tmp_path / "photos", 120), workspace=tmp_path / "w", **words) as study:
        (trial,) = study.search.trials()
    assert trial.state is TrialState.COMPLETE, trial.error
    assert trial.usage.placement == "2 replicas (DDP), pieces of 4"
    assert trial.scores["accuracy"] > 0.5, "one in four by chance"
