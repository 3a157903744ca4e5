"""A graph of another program inside one of ours."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tidemill.bundle.graph import OPSET, GraphBuilder
from tidemill.bundle.splice import bare, splice
from tidemill.core.errors import InternalError


def foreign(opset: int = OPSET) -> onnx.ModelProto:
    """``relu(x * w)``, with traces of where it was written."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["h"], name="n"), helper.make_node("Relu", ["h"], ["y"], name="n2")]
    nodes[0].doc_string = "somewhere/file.py"
    nodes[0].metadata_props.add(key="trace", value="somewhere/file.py")
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.float32([2, -1]), "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_the_same_graph_fits_in_twice_and_computes_what_it_did() -> None:
    graph = GraphBuilder()
    x = graph.input("x", np.float32, ["N", 2])
    once = splice(graph, foreign(), {"x": x})[0]
    graph.output(splice(graph, foreign(), {"x": once})[0], "out", np.float32, ["N", 2])
    model = graph.model()
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert run.run(None, {"x": np.float32([[1, 1], [3, -2]])})[0].tolist() == [[4, 0], [12, 0]]
    assert b"somewhere" not in model.SerializeToString()


def test_a_bare_model_computes_the_same_and_says_nothing_of_its_writer() -> None:
    data = bare(foreign())
    assert b"somewhere" not in data
    run = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [value.name for value in run.get_inputs()] == ["x"]
    assert run.run(None, {"x": np.float32([[1, 1], [3, -2]])})[0].tolist() == [[2, 0], [6, 2]]


def test_a_branch_keeps_the_values_around_it() -> None:
    inner = [helper.make_node("Add", ["x", "w"], ["t"])]
    branch = helper.make_graph(inner, "b", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", 2])])
    model = foreign()
    condition = numpy_helper.from_array(np.array(True), "c")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    model.graph.output[0].name = "z"
    graph = GraphBuilder()
    graph.output(splice(graph, model, {"x": graph.input("x", np.float32, ["N", 2])})[0], "o", np.float32, ["N", 2])
    run = onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    assert run.run(None, {"x": np.float32([[1, 1]])})[0].tolist() == [[3, 0]]


def test_what_a_bundle_can_t_hold_is_refused() -> None:
    graph = GraphBuilder()
    x = graph.input("x", np.float32, ["N", 2])
    with pytest.raises(InternalError, match="operator set 18"):
        splice(graph, foreign(18), {"x": x})
    with pytest.raises(InternalError, match=r"wants the inputs \['x'\]"):
        splice(graph, foreign(), {"wrong": x})
    strange = foreign()
    strange.graph.node[0].domain = "com.example"
    with pytest.raises(InternalError, match=r"com\.example"):
        splice(graph, strange, {"x": x})
