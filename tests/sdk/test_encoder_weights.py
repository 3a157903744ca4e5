"""A study of images or texts reads a column of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="a fit on images trains nets")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.sdk.test_images import digits

import tidemill as tm
from tidemill.bundle.verify import verify
from tidemill.core.errors import DataError, NotFoundError
from tidemill.sdk.encoder_weights import encoders_at_hand, names_encoder
from tidemill.sdk.studies import open_study
from tidemill.store.workspace import Workspace

ONE: dict[str, Any] = {"trials": 1, "families": ("quicknet",), "cpus": 1, "in_process": True, "test_size": 0.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a study of digits, and a table that names other digits beside a number."""
    root = tmp_path_factory.mktemp("encoders")
    digits(root / "photos", 80)
    tm.fit(root / "photos", workspace=root / "w", name="digits", **ONE).close()
    others = digits(root / "others", 80, first=80)
    rng = np.random.default_rng(0)
    lines = ["weight,photo,digit"]
    for file in sorted(others.glob("*/*.png")):
        lines.append(f"{rng.normal():.3f},{file.relative_to(others)},d{file.parent.name}")
    (others / "table.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.slow
def test_its_best_net_reads_the_images_of_a_table(place: Path) -> None:
    table = place / "others" / "table.csv"
    words = {**ONE, "families": ("linear",), "workspace": place / "w", "weights": ("digits",)}
    with tm.fit(table, "digit", **words) as study:
        assert study.modality.name == "fused"
        bundle = study.best.export(place / "out.tm")
    assert verify(bundle.path) == []
    assert any("Column 'photo' is read by the encoder 'digits'" in note for note in bundle.info.notes)
    assert any("was trained by a study of this workspace, with answers" in note for note in bundle.info.notes)
    assert bundle.evaluate(table)["accuracy"] > 0.7, "the number says nothing"


@pytest.mark.slow
def test_it_is_found_by_name_and_by_bundle(place: Path, tmp_path: Path) -> None:
    with open_study("digits", place / "w") as study:
        study.best.export(place / "digits.tm")
    with Workspace.open(place / "w") as workspace:
        by_name, by_bundle, other = encoders_at_hand(workspace, ["digits", str(place / "digits.tm"), "nowhere"])
        assert by_name == by_bundle
        assert Path(by_name).name == "digits"
        assert other == "nowhere"
        assert names_encoder(workspace, "digits")
        assert names_encoder(workspace, by_name)
        assert not names_encoder(workspace, "nowhere")
    with Workspace.open(tmp_path / "w") as empty, pytest.raises(NotFoundError, match="not in this workspace"):
        names_encoder(empty, str(place / "digits.tm"))


def test_a_study_that_reads_no_column_is_told(tmp_path: Path) -> None:
    digits(tmp_path / "photos", 60)
    words = {**ONE, "workspace": tmp_path / "w"}
    tm.fit(tmp_path / "photos", name="heads", **{**words, "families": ("probe",)}).close()
    columns = {"a": [1, 2, 3, 4] * 9, "y": ["p", "q"] * 18}
    tm.fit(columns, "y", name="numbers", **{**words, "families": ("linear",)}).close()
    with Workspace.open(tmp_path / "w") as workspace:
        with pytest.raises(DataError, match="'heads' has no net that could read a column"):
            encoders_at_hand(workspace, ["heads"])
        with pytest.raises(DataError, match="'numbers' is about neither images nor texts"):
            encoders_at_hand(workspace, ["numbers"])
        assert not names_encoder(workspace, "numbers")
