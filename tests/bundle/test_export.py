"""The forms in which a bundle leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.bundle.small import KINDS

from tidemill.bundle.assemble import input_names
from tidemill.bundle.export import Exporter, export, get_exporter, targets
from tidemill.bundle.latency import session
from tidemill.bundle.parity import feed_of
from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import NotFoundError, OptionError
from tidemill.testing.exporter import ExporterSuite
from tidemill.testing.parts import small_columns

Written = Callable[[str], Path]


@pytest.mark.parametrize("exporter", ["onnx", "mlflow", "triton"], indirect=True)
class TestExporters(ExporterSuite):
    @pytest.fixture
    def exporter(self, request: pytest.FixtureRequest) -> Exporter:
        return get_exporter(request.param)

    @pytest.fixture
    def bundle(self, written: Written) -> Bundle:
        return Bundle.open(written("binary"))


@pytest.mark.parametrize("target", ["onnx", "mlflow", "triton"])
def test_a_foreign_file_is_never_replaced(written: Written, tmp_path: Path, target: str) -> None:
    bundle = Bundle.open(written("binary"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(OptionError):
        export(bundle, target, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_unknown_targets_offer_the_nearest(written: Written, tmp_path: Path) -> None:
    assert set(targets()) >= {"onnx", "mlflow", "triton"}
    with pytest.raises(NotFoundError, match="Did you mean 'triton'"):
        export(Bundle.open(written("binary")), "tritn", tmp_path / "out")


def test_the_onnx_file_runs_alone(written: Written, tmp_path: Path) -> None:
    bundle = Bundle.open(written("binary"))
    (tmp_path / "folder").mkdir()
    for out, expected in ((tmp_path / "a.onnx", "a.onnx"), (tmp_path / "folder", "model.onnx")):
        path = export(bundle, "onnx", out)
        assert path.name == expected
        columns = small_columns(5)
        labels = session(path).run(["label"], feed_of(input_names(bundle.schema), columns))[0]
        assert (labels == bundle.predict_columns(columns)).all()


def test_a_triton_repository_has_the_layout(written: Written, tmp_path: Path) -> None:
    export(Bundle.open(written("multiclass")), "triton", tmp_path / "repo")
    files = sorted(p.relative_to(tmp_path / "repo").as_posix() for p in (tmp_path / "repo").rglob("*") if p.is_file())
    assert files == ["small/1/model.onnx", "small/config.pbtxt"]


@pytest.mark.parametrize("kind", KINDS)
def test_triton_is_told_the_graphs_inputs_and_outputs(written: Written, kind: str) -> None:
    text = (written(kind) / "config.pbtxt").read_text(encoding="utf-8")
    run = session(written(kind) / "1" / "model.onnx")
    for value in [*run.get_inputs(), *run.get_outputs()]:
        kinds = {"tensor(string)": "TYPE_STRING", "tensor(double)": "TYPE_FP64", "tensor(float)": "TYPE_FP32"}
        assert f'name: "{value.name}"\n    data_type: {kinds[value.type]}\n' in text
    assert text.count("{") == text.count("}")
    assert text.count("[") == text.count("]")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)  # MLflow's own
def test_mlflow_loads_the_folder(written: Written, tmp_path: Path, kind: str) -> None:
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    pd = pytest.importorskip("pandas")
    bundle = Bundle.open(written(kind))
    out = export(bundle, "mlflow", tmp_path / "exported")
    frame = pd.DataFrame(small_columns(30), index=range(100, 130)).drop(columns="size").assign(size=range(30))
    columns = small_columns(30)
    columns["size"] = np.arange(30.0)
    shutil.copytree(written(kind), tmp_path / "copy")  # Python leaves compiled code where it imports from
    for folder in (out, tmp_path / "copy" / "1"):
        answers = pyfunc.load_model(str(folder)).predict(frame)
        assert list(answers.index) == list(range(100, 130))
        assert next(iter(answers.columns)) == "prediction"
        assert (answers["prediction"].to_numpy() == bundle.predict_columns(columns)).all()
    with pytest.raises(ValueError, match="'colour'"):
        pyfunc.load_model(str(out)).predict(frame.drop(columns="colour"))


def test_mlflow_reads_dates_booleans_and_gaps_of_any_type() -> None:
    pd = pytest.importorskip("pandas")
    from tidemill.bundle.runner.tidemill_pyfunc import graph_input

    def read(values: list[object], kind: str, unit: str | None = None, **options: object) -> list[object]:
        return graph_input(pd.Series(values, **options), {"type": kind, "unit": unit})[:, 0].tolist()

    assert read([True, None, False], "boolean")[::2] == [1.0, 0.0]
    assert read(["yes", "no"], "boolean") == [1.0, 0.0]
    assert read([1, 2], "number", dtype="Int64") == [1.0, 2.0]
    assert read(["2024-01-01", "2024-01-02"], "datetime", dtype="datetime64[ns]") == [1704067200.0, 1704153600.0]
    assert read(["1/2/2024"], "datetime", "datetime:%d/%m/%Y") == [1706745600.0]
    assert read([1.0, None, "b"], "category", dtype=object) == ["1", "", "b"]
    assert read(["a", pd.NA], "text", dtype="string") == ["a", ""]
