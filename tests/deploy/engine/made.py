"""Models for the tests of the engine: small graphs that answer, fail, hang or die on demand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.spec import BundleInfo
from tidemill.bundle.write import write_bundle
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.testing.parts import small_columns, small_recipe


def bundle(out: Path, kind: str = "binary", *, rows: int = 200) -> Path:
    recipe = small_recipe(kind)
    test = small_columns(rows // 2, seed=1)
    answers = recipe.predict(test)
    y = answers.scores[:, 0] + 0.1 if answers.codes is None else answers.codes
    write_bundle(
        out, recipe, columns_train=small_columns(rows), columns_test=test, y_test=y, info=BundleInfo(name="small"),
        evidence=[Evidence("out_of_fold", y[::-1].copy(), answers.scores)],
    )  # fmt: skip
    return out


def _save(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def double(path: Path, *, width: int = 4) -> Path:
    """``y = 2 x`` on rows of ``width`` float32."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
    )  # fmt: skip
    return _save(graph, path)


def wide(path: Path) -> Path:
    """``y = 2 x`` on rows of 20,000 float32: more than goes through a socket at a time."""
    return double(path, width=20_000)


def by_index(path: Path) -> Path:
    """``y = table[x]`` with a table of 8 rows: another index is an error of the whole batch."""
    table = numpy_helper.from_array(np.arange(8, dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])], "by_index",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [table],
    )  # fmt: skip
    return _save(graph, path)


def turns(path: Path, *, width: int = 64) -> Path:
    """As many matrix products as ``x`` says: a caller may make it quick, slow, or hang for ever."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h_in", "weights"], ["m"]),
            helper.make_node("Tanh", ["m"], ["h_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h_in", TensorProto.FLOAT, [width, width]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h_out", TensorProto.FLOAT, [width, width]),
        ],
    )
    weights = np.random.default_rng(0).normal(size=(width, width)).astype(np.float32) / width
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Loop", ["most", "yes", "weights"], ["last"], body=body),
            helper.make_node("ReduceMean", ["last"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["f", "nothing"], ["y"]),
        ],
        "turns",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
        ],
    )
    return _save(graph, path)


def grows(path: Path) -> Path:
    """``x`` elements are made on the way: a caller may ask for more memory than there is."""
    one = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Unsqueeze", ["most", "axis"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["big"], value=one),
            helper.make_node("Exp", ["big"], ["e"]),
            helper.make_node("ReduceMean", ["e"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["f", "nothing"], ["y"]),
        ],
        "grows",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(np.array([0]), "axis"),
            numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
        ],
    )  # fmt: skip
    return _save(graph, path)


def mixed_schema() -> Schema:
    """Every semantic type that a model may see."""
    t = SemanticType
    return Schema(
        (
            Column("number", t.NUMBER),
            Column("count", t.INTEGER),
            Column("member", t.BOOLEAN),
            Column("city", t.CATEGORY),
            Column("joined", t.DATETIME, unit="datetime:%d/%m/%Y"),
            Column("note", t.TEXT),
            Column("comma", t.NUMBER, unit='decimal:,;missing=["n.a."]'),
            Column("y", t.TARGET),
        )
    )
