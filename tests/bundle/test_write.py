"""What stands in a bundle."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.bundle.small import KINDS, make

from tidemill.bundle import golden
from tidemill.bundle.spec import BundleSpec
from tidemill.bundle.verify import verify
from tidemill.core.errors import BundleError, OptionError, ParityError
from tidemill.testing.parts import small_columns, small_recipe

Written = Callable[[str], Path]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_is_whole(written: Written, kind: str) -> None:
    folder = written(kind)
    assert [str(f) for f in verify(folder)] == []
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {
        "1/model.onnx", "1/MLmodel", "config.pbtxt", "bundle.json", "tests/golden.npz", "README.md", "run.py",
        "requirements.txt", "manifest.json",
    } <= files  # fmt: skip
    assert not [f for f in files if f.endswith((".pkl", ".pickle", ".joblib"))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_round_trips(written: Written, kind: str) -> None:
    data = (written(kind) / "bundle.json").read_bytes()
    described = BundleSpec.from_json(json.loads(data))
    assert described.render() == data
    assert described.info.objective == "maximize roc_auc"
    assert described.schema["size"].unit == "cm"
    assert [m["parts"] for m in described.members] == [1, 2]
    assert described.parity["rows"] == 300 + 150 + 18
    assert [p["batch"] for p in described.performance["latency"]] == [1, 8, 64, 512, 4096]
    assert described.performance["best_batch"] in (1, 8, 64, 512, 4096)
    assert 20e6 < described.performance["peak_memory_bytes"] < 1e9
    assert described.info.cost["size_bytes"] == (written(kind) / "1" / "model.onnx").stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_lie_within_their_intervals(written: Written, kind: str) -> None:
    metrics = BundleSpec.from_json(json.loads((written(kind) / "bundle.json").read_bytes())).metrics
    assert {m.source for m in metrics} == {"out_of_fold", "test"}
    assert all(m.low <= m.value <= m.high for m in metrics)
    assert any(m.low < m.high for m in metrics)


@pytest.mark.parametrize("field", ["task", "schema", "metrics", "opset", "parity"])
def test_a_description_without_a_field_is_refused(written: Written, field: str) -> None:
    data = json.loads((written("binary") / "bundle.json").read_bytes())
    with pytest.raises(BundleError, match=f"'{field}' is missing"):
        BundleSpec.from_json({k: v for k, v in data.items() if k != field})
    with pytest.raises(BundleError, match="wrong type"):
        BundleSpec.from_json({**data, field: 3})
    with pytest.raises(BundleError, match="newer"):
        BundleSpec.from_json({**data, "format_version": 99})
    with pytest.raises(BundleError, match="'extra' is not known"):
        BundleSpec.from_json({**data, "extra": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_golden_rows_hold_no_objects_and_the_edges(written: Written, kind: str) -> None:
    with np.load(written(kind) / golden.NAME, allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind in "fU" for name in stored.files)
    inputs, outputs = golden.parse((written(kind) / golden.NAME).read_bytes())
    assert list(inputs) == ["size", "colour", "weight"]
    assert np.isnan(inputs["size"][-2, 0])
    assert inputs["colour"][-2, 0] == ""
    assert set(outputs) == ({"prediction"} if kind == "regression" else {"label", "probabilities"})


def test_long_text_is_cut_in_golden_rows() -> None:
    columns = small_columns(3)
    columns["colour"] = np.array(["x" * 1_000_000, "y\0", "a"], dtype=object)
    picked = golden.choose_rows(columns, small_recipe().schema)
    assert [len(v) for v in picked["colour"][:3]] == [200, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_has_words_and_pictures(written: Written, kind: str) -> None:
    card = (written(kind) / "README.md").read_text(encoding="utf-8")
    for words in ("## Use", "## Quality", "`size`", "cm", "differs in every row", "made by a test", "all 468 rows"):
        assert words in card
    shown = [line.split("(")[1].rstrip(")") for line in card.splitlines() if line.startswith("![")]
    assert len(shown) == 2
    for path in shown:
        assert ET.parse(written(kind) / path).getroot().tag.endswith("svg")


def test_nothing_is_written_without_parity(tmp_path: Path) -> None:
    with pytest.raises(ParityError):
        make(tmp_path / "out", skew=1e-3)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_used_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(OptionError):
        make(tmp_path, skew=1e-3)  # had the proof run first, it would have failed


def test_rows_alone_are_enough(tmp_path: Path) -> None:
    from tidemill.bundle.write import write_bundle

    bundle = write_bundle(tmp_path / "plain", small_recipe(), columns_train=small_columns(1))
    assert bundle.info.name == "plain"
    assert bundle.spec.metrics == ()
    assert verify(bundle.path) == []
