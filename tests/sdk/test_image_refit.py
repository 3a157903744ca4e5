"""The chosen nets are trained once more on all images, as long as before, and the bundle says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="a fit on images trains nets")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.sdk.test_images import digits

import tidemill as tm
from tidemill.bundle.verify import verify
from tidemill.core.errors import OptionError, TrialTimeoutError
from tidemill.core.trial import Trial, TrialState
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageProfile
from tidemill.sdk.image_refit import _passes, export_refitted, refit

ONE: dict[str, Any] = {"trials": 1, "families": ("quicknet",), "cpus": 1, "in_process": True, "test_size": 0.0}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("refit")
    digits(root / "photos", 100)
    with tm.fit(root / "photos", workspace=root / "w", name="digits", **ONE) as study:
        yield study


def test_the_bundle_holds_nets_that_saw_all_images_and_says_so(study: Any, tmp_path: Path) -> None:
    told: list[str] = []
    bundle = export_refitted(study, tmp_path / "all.tm", tell=told.append)
    assert verify(tmp_path / "all.tm") == []
    described = json.loads((tmp_path / "all.tm" / "bundle.json").read_text())
    kept = described["lineage"]["refit"]
    assert (kept["rows"], kept["rows_before"]) == (100, 80)
    assert list(kept["epochs"]) == told == list(described["lineage"]["trials"])
    assert kept["epochs"][told[0]] == pytest.approx(study.search.trials()[0].config["quicknet.epochs"], rel=0.05)
    assert any("trained anew on all 100 images" in note for note in described["notes"])
    assert described["parity"]["flips"] == 0
    plain = study.best.export(tmp_path / "some.tm")
    assert plain.model_path.read_bytes() != bundle.model_path.read_bytes()
    assert "refit" not in json.loads((tmp_path / "some.tm" / "bundle.json").read_text())["lineage"]
    locked = digits(tmp_path / "locked", 60, first=240)
    assert bundle.evaluate(locked)["accuracy"] >= 0.85


def test_without_time_nothing_is_trained(study: Any) -> None:
    with pytest.raises(TrialTimeoutError, match="To train the chosen nets on all images takes about"):
        refit(study, time_s=0.0)


def test_tables_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=60), "y": rng.integers(0, 2, 60)}
    words = {"trials": 1, "families": ("linear",), "cpus": 1, "in_process": True}
    with (
        tm.fit(data, "y", workspace=tmp_path / "w", **words) as study,
        pytest.raises(OptionError, match="Nets for images alone"),
    ):
        refit(study)


def test_passes_are_those_that_were_made_whatever_the_config_says() -> None:
    family = pool.families(["quicknet"])["quicknet"]
    profile = ImageProfile(8000, 32, 32, 3, (128.0,) * 3, (64.0,) * 3)
    config = {"quicknet.lr": 0.1, "quicknet.weight_decay": 1e-3, "quicknet.epochs": 40, "quicknet.coarse": 0.5}
    trial = Trial("s", 0, config, TrialState.COMPLETE, "quicknet", curve=((50, 1.0), (1000, 0.5)))
    # 1,000 steps of 64 images were the second half of the passes.
    assert _passes(family, trial, profile, 6400) == pytest.approx(20.0)
    probe = pool.families(["probe"])["probe"]
    assert _passes(probe, trial, profile, 6400) is None
