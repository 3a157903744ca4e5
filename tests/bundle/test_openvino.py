"""OpenVINO IR answers as the bundle does, or is not written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.bundle.small import KINDS, make

from tidemill.bundle.assemble import input_names
from tidemill.bundle.export import Exporter, export, get_exporter
from tidemill.bundle.exporters.openvino import LABEL_CODE, without_texts
from tidemill.bundle.graph import ML, GraphBuilder
from tidemill.bundle.latency import session
from tidemill.bundle.parity import feed_of
from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import BundleError, MissingExtraError, ParityError
from tidemill.testing.exporter import ExporterSuite
from tidemill.testing.parts import LinearPart, PlainEncoder, small_columns, small_schema

Written = Callable[[str], Path]


class TestOpenVino(ExporterSuite):
    @pytest.fixture
    def exporter(self) -> Exporter:
        pytest.importorskip("openvino")
        return get_exporter("openvino")

    @pytest.fixture
    def bundle(self, written: Written) -> Bundle:
        return Bundle.open(written("binary"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_without_texts_answers_the_same(written: Written, tmp_path: Path, kind: str) -> None:
    bundle = Bundle.open(written(kind))
    numeric = without_texts(onnx.load(str(bundle.model_path)))
    onnx.checker.check_model(numeric.model)
    assert all(node.domain != ML for node in numeric.model.graph.node)
    onnx.save(numeric.model, str(tmp_path / "m.onnx"))
    run = session(tmp_path / "m.onnx")
    columns = small_columns(200, seed=7)
    got = dict(
        zip(
            [o.name for o in run.get_outputs()],
            run.run(None, numeric.feed(feed_of(input_names(bundle.schema), columns))),
            strict=True,
        )
    )
    wanted = bundle.answer(columns)
    if kind == "regression":
        assert got["prediction"].tobytes() == wanted["prediction"].tobytes()
    else:
        assert got["probabilities"].tobytes() == wanted["probabilities"].tobytes()
        assert np.array(bundle.task.classes, dtype=object)[got[LABEL_CODE]].tolist() == wanted["label"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_written_files_answer_as_the_bundle(written: Written, tmp_path: Path, kind: str) -> None:
    openvino = pytest.importorskip("openvino")
    bundle = Bundle.open(written(kind))
    out = export(bundle, "openvino", tmp_path / "ir")
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "inputs.json", "model.bin", "model.xml"]
    about = json.loads((out / "inputs.json").read_text(encoding="utf-8"))
    model = openvino.Core().compile_model(str(out / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    columns = small_columns(100, seed=9)
    feed: dict[str, Any] = {}
    for one in about["inputs"]:
        values = columns[one["column"]]
        if "codes" in one:
            values = np.array([one["codes"].get(v, 0) for v in values])
        feed[one["input"]] = values.reshape(-1, 1)
    answers = model(feed)
    got = {name: np.asarray(answers[i]) for i, name in enumerate(about["outputs"])}
    wanted = bundle.answer(columns)
    if kind == "regression":
        np.testing.assert_allclose(got["prediction"], wanted["prediction"], rtol=4e-5, atol=1e-5)
    else:
        np.testing.assert_allclose(got["probabilities"], wanted["probabilities"], atol=4e-5)
        labels = np.array(about["classes"], dtype=object)[got["label_code"]]
        assert (labels == wanted["label"]).mean() > 0.98  # near ties may fall otherwise


class NetsPart(LinearPart):
    """Several nets side by side: one matrix for each, multiplied at once, as a network family writes them."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        both = graph.op("MatMul", x, graph.const(np.stack([self.weights, self.weights])))
        z = graph.op("ReduceMean", both, graph.const([0], np.int64), keepdims=0)
        return graph.op("Softmax", graph.op("Add", z, graph.const(self.bias)), axis=1)


def test_matrices_for_several_nets_at_once_can_be_written(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from tidemill.bundle.parts import Member

    rng = np.random.default_rng(0)
    part = NetsPart(rng.normal(size=(3, 2)), rng.normal(size=2), probabilities=True)
    bundle = make(tmp_path / "b", members=(Member(1.0, [part], "n"),))
    assert (export(bundle, "openvino", tmp_path / "ir") / "model.bin").is_file()


class TreePart(LinearPart):
    """A part with an operator that OpenVINO lacks."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        nothing = graph.op("Scaler", x, domain=ML, offset=[0.0] * 3, scale=[1.0] * 3)
        return super().emit(graph, nothing)


def test_an_operator_that_it_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from tidemill.bundle.parts import Member

    rng = np.random.default_rng(0)
    part = TreePart(rng.normal(size=(3, 2)), rng.normal(size=2), probabilities=True)
    bundle = make(tmp_path / "b", members=(Member(1.0, [part], "t"),))
    with pytest.raises(BundleError, match=r"no operator ai\.onnx\.ml\.Scaler \(1×\)"):
        export(bundle, "openvino", tmp_path / "ir")
    assert not (tmp_path / "ir").exists()


class SpellingEncoder(PlainEncoder):
    """Reads the length of no text, but through an operator for texts."""

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        flat = graph.op("Reshape", inputs["colour"], graph.const([-1], np.int64))
        lower = graph.op("StringNormalizer", flat, case_change_action="LOWER", is_case_sensitive=1, locale="C")
        column = graph.op("Unsqueeze", lower, graph.const([1], np.int64))
        return super().emit(graph, {**inputs, "colour": column})


def test_texts_that_are_not_looked_up_are_refused(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", encoder=SpellingEncoder(small_schema()))
    with pytest.raises(BundleError, match=r"no operator StringNormalizer, .*which the column 'colour' needs"):
        without_texts(onnx.load(str(bundle.model_path)))


def test_other_answers_are_not_written(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    from tidemill.bundle.exporters import openvino as module

    honest = module._run

    def skewed(*arguments: Any) -> dict[str, Any]:
        return {name: values + 1e-3 for name, values in honest(*arguments).items()}

    monkeypatch.setattr(module, "_run", skewed)
    with pytest.raises(ParityError, match="golden rows otherwise"):
        export(Bundle.open(written("regression")), "openvino", tmp_path / "ir")
    assert not (tmp_path / "ir").exists()


def test_an_absent_package_is_told(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"tidemill\[openvino\]"):
        export(Bundle.open(written("binary")), "openvino", tmp_path / "ir")
    assert not (tmp_path / "ir").exists()
