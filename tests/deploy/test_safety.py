"""What a graph may not be is found before anything loads it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tidemill.core.errors import BundleError
from tidemill.deploy.safety import GraphLimits, check_graph, refuse_unsafe

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a graph of identities, changed by a function."""

    def write(change: Callable[[onnx.ModelProto], None] = lambda _: None, *, nodes: int = 1, domain: str = "") -> Path:
        names = [f"v{n}" for n in range(nodes + 1)]
        made = [helper.make_node("Identity", [a], [b], domain=domain) for a, b in pairwise(names)]
        shape = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N"]) for n in (names[0], names[-1])]
        weight = numpy_helper.from_array(np.ones(4, dtype=np.float32), "w")
        graph = helper.make_graph(made, "g", shape[:1], shape[1:], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        change(model)
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


def test_a_plain_graph_is_fine(save: Save) -> None:
    assert check_graph(save()) == []


def test_data_elsewhere_is_found(save: Save) -> None:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../../secret")

    assert "another file" in check_graph(save(change))[0]


def test_data_elsewhere_is_found_where_the_mark_is_missing_and_deep_inside(save: Save) -> None:
    def change(model: onnx.ModelProto) -> None:
        inner = helper.make_graph([], "inner", [], [], [model.graph.initializer[0]])
        inner.initializer[0].external_data.add(key="location", value="x")
        model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))

    assert "another file" in check_graph(save(change))[0]


def test_operators_that_want_a_library_are_found(save: Save) -> None:
    assert "'com.evil'" in check_graph(save(domain="com.evil"))[0]

    def change(model: onnx.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))

    assert "'ai.onnx.contrib'" in check_graph(save(change))[0]


def test_data_elsewhere_is_found_in_sparse_tensors_and_in_graphs_that_hold_nothing_else(save: Save) -> None:
    def sparse(dims: list[int]) -> onnx.SparseTensorProto:
        values = numpy_helper.from_array(np.ones(1, dtype=np.float32), "s")
        return helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros((1, 2), dtype=np.int64), "i"), dims)

    def external(model: onnx.ModelProto) -> None:
        inner = onnx.GraphProto(name="inner", sparse_initializer=[sparse([2, 2])])
        inner.sparse_initializer[0].values.external_data.add(key="location", value="x")
        model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner))

    def huge(model: onnx.ModelProto) -> None:
        model.graph.sparse_initializer.append(sparse([2**31, 2**31]))

    def constant(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Constant", [], ["k"], sparse_value=sparse([2**40, 2])))

    assert "another file" in check_graph(save(external))[0]
    assert "too large" in check_graph(save(huge))[0]
    assert "too large" in check_graph(save(constant))[0]


def test_too_many_nodes_and_bytes_are_found(save: Save) -> None:
    path = save(nodes=30)
    assert "30 nodes" in check_graph(path, GraphLimits(nodes=29))[0]
    assert check_graph(path, GraphLimits(nodes=30)) == []
    assert "bytes" in check_graph(path, GraphLimits(file_bytes=10))[0]


def test_graphs_in_graphs_end_somewhere(save: Save) -> None:
    def change(model: onnx.ModelProto) -> None:
        inner = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g0", [], [])
        for depth in range(20):
            node = helper.make_node("If", ["c"], ["d"], then_branch=inner)
            inner = helper.make_graph([node], f"g{depth + 1}", [], [])
        model.graph.node.extend(inner.node)

    assert "nested more than 8 deep" in " ".join(check_graph(save(change)))


@pytest.mark.parametrize("dims", [[2**31, 2**31], [-1], [2**62, 4]])
def test_shapes_that_promise_too_much_are_found(save: Save, dims: list[int]) -> None:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)

    assert "too large" in check_graph(save(change))[0]


def test_what_is_no_onnx_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(BundleError, match="can't be read"):
        check_graph(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="can't be read"):
        check_graph(tmp_path / "absent.onnx")


def test_everything_wrong_is_told_together(save: Save) -> None:
    with pytest.raises(BundleError, match=r"(?s)nodes.*com\.evil|com\.evil.*nodes"):
        refuse_unsafe(save(nodes=5, domain="com.evil"), GraphLimits(nodes=2))
