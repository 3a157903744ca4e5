"""A study of images gives its weights to the next fit, in this workspace or elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="a fit on images trains nets")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.sdk.test_images import digits

import tidemill as tm
from tidemill.bundle.verify import verify
from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.pack import unpack
from tidemill.models.vision.weights import origin_of, write_weights
from tidemill.sdk.image_weights import save_weights, weights_at_hand
from tidemill.store.workspace import Workspace

ONE: dict[str, Any] = {"trials": 2, "families": ("probe", "quicknet"), "cpus": 1, "in_process": True, "test_size": 0.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a study of digits, and its bundle."""
    root = tmp_path_factory.mktemp("weights")
    digits(root / "photos", 80)
    with tm.fit(root / "photos", workspace=root / "w", name="digits", **ONE) as study:
        study.best.export(root / "digits.tm")
        save_weights(study.search, root / "kept")
    return root


def test_its_best_net_is_found_by_name_by_bundle_and_by_file(place: Path) -> None:
    with Workspace.open(place / "w") as workspace:
        by_name, by_bundle, by_file = weights_at_hand(
            workspace, ["digits", str(place / "digits.tm"), str(place / "kept")]
        )
        assert by_name == by_bundle
        assert by_file == str(place / "kept")
        origins = [origin_of(p) for p in (by_name, by_file)]
        assert origins[0] == origins[1]
        assert origins[0] is not None
        assert origins[0].family == "quicknet", "a head alone is no beginning"
        assert weights_at_hand(workspace, ["nowhere"]) == ("nowhere",)


def test_a_fit_begins_from_it_and_goes_on_when_it_is_gone(place: Path) -> None:
    words = {**ONE, "trials": 1, "families": ("quicknet",), "weights": ("digits",)}
    with tm.fit(place / "photos", workspace=place / "w", name="next", **words) as study:
        trial = study.search.trials()[0]
        assert "scratch" in trial.config["quicknet.weights"]
        shutil.rmtree(place / "w" / "scratch" / "weights")
        study.best.export(place / "next.tm")
    with tm.fit(None, workspace=place / "w", resume="next", trials=2, cpus=1, in_process=True) as more:
        assert len(more.search.trials()) == 2


def test_no_weights_say_what_to_do(place: Path) -> None:
    words = {**ONE, "families": ("quicknet",)}
    with pytest.raises(NotFoundError, match=r"no weights at 'nowhere'.*or the name of a study of images"):
        tm.fit(place / "photos", workspace=place / "w", weights=("nowhere",), **words)


def test_a_bundle_of_another_workspace_is_told(place: Path, tmp_path: Path) -> None:
    with (
        Workspace.open(tmp_path / "w") as empty,
        pytest.raises(NotFoundError, match="made by the study 'digits', which is not in this workspace"),
    ):
        weights_at_hand(empty, [str(place / "digits.tm")])


def test_a_study_without_a_net_is_told(place: Path) -> None:
    words = {**ONE, "trials": 1, "families": ("probe",)}
    with (
        tm.fit(place / "photos", workspace=place / "w", name="heads", **words) as study,
        pytest.raises(DataError, match="'heads' has no net that another fit could begin from"),
    ):
        weights_at_hand(study.workspace, ["heads"])


def test_a_discriminant_sees_through_it_and_is_shipped_without_it(place: Path) -> None:
    words = {**ONE, "trials": 2, "families": ("discriminant", "quicknet"), "weights": ("digits",)}
    with tm.fit(place / "photos", workspace=place / "w", name="seen", **words) as study:
        trials = study.search.trials()
        assert [t.family for t in trials] == ["discriminant", "quicknet"], "what takes a second comes first"
        shutil.rmtree(place / "w" / "scratch" / "weights")
        study.best.export(place / "seen.tm")
        assert verify(place / "seen.tm") == []
        with pytest.raises(DataError, match="has no weights that another fit could begin from"):
            write_weights(unpack(study.workspace.artifacts.get(trials[0].artifacts["checkpoint"]))["models"][0], place)
        origin = origin_of(weights_at_hand(study.workspace, ["seen"])[0])
        assert origin is not None
        assert origin.family == "quicknet", "a view through another net is no beginning"


def test_a_backbone_that_was_tuned_is_a_beginning(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="backbones need the extra `text`")
    from tests.models.fusion.made import vit

    words = {**ONE, "trials": 1, "families": ("backbone",), "workspace": place / "w"}
    with tm.fit(place / "photos", weights=(vit(tmp_path / "vit"),), name="tuned", **words) as study:
        assert study.search.trials()[0].state.value == "complete"
    shutil.rmtree(tmp_path / "vit")
    with tm.fit(place / "photos", weights=("tuned",), name="on", **words) as study:
        (trial,) = study.search.trials()
        assert trial.state.value == "complete"
        folder = Path(str(trial.config["backbone.weights"]))
        assert (folder / "config.json").is_file()
        assert "scratch" in folder.parts
        study.best.export(place / "on.tm")
    assert verify(place / "on.tm") == []
