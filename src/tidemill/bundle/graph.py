"""A thin builder for ONNX graphs: names, constants and nodes, and nothing else.

Families and treatments write their part of the shipped graph with it. Only operators of the standard ONNX
domains are used, so that plain onnxruntime is enough to run the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""Operator set of the default domain: the first with StringSplit."""
ML_OPSET = 5
"""Operator set of ``ai.onnx.ml``: the first with the compact TreeEnsemble."""
IR_VERSION = 10
"""Intermediate representation that onnxruntime reads since 1.18."""
ML = "ai.onnx.ml"
_MANY_COLUMNS = 16
"""From so many columns on, two transposes (2 µs for one row) pay."""


class GraphBuilder:
    """Collects the nodes of one graph.

    Values are spoken of by name: every method that adds something returns the name of its output.

    Examples
    --------
    >>> import numpy as np
    >>> g = GraphBuilder()
    >>> x = g.input("x", np.float32, ["N", 2])
    >>> g.output(g.op("Add", x, g.const(np.float32([1, 2]))), "y", np.float32, ["N", 2])
    >>> [n.op_type for n in g.model().graph.node]
    ['Add', 'Identity']
    """

    def __init__(self, name: str = "tidemill") -> None:
        self._name = name
        self._count = 0
        self._taken: set[str] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def fresh(self, stem: str) -> str:
        """Return a name that nothing has yet, not even an input: raw columns may be called ``add_1``."""
        while True:
            self._count += 1
            name = f"{stem}_{self._count}"
            if name not in self._taken:
                return name

    def input(self, name: str, dtype: Any, shape: Sequence[int | str]) -> str:
        """Declare a graph input; a string in ``shape`` is a symbolic size. ``dtype`` ``str`` is a string tensor.

        All inputs are declared before anything else is added, so that no name is taken already.
        """
        self._taken.add(name)
        self.inputs.append(helper.make_tensor_value_info(name, _onnx_type(dtype), list(shape)))
        return name

    def output(self, value: str, name: str, dtype: Any, shape: Sequence[int | str]) -> None:
        """Give ``value`` out under ``name``."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, _onnx_type(dtype), list(shape)))

    def const(self, value: Any, dtype: Any = None, *, name: str = "c") -> str:
        """Add a constant; equal constants are stored once. Arrays of ``str`` become string tensors."""
        array = np.asarray(value, dtype=dtype)
        if array.dtype.kind in "UO":
            raw = "\0".join(str(v) for v in array.ravel()).encode()
            key = ("str", array.shape, raw)
        else:
            array = np.ascontiguousarray(array).reshape(array.shape)
            key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            fresh = self.fresh(name)
            self._constants[key] = fresh
            if array.dtype.kind in "UO":
                flat = [str(v).encode() for v in array.ravel()]
                tensor = helper.make_tensor(fresh, TensorProto.STRING, array.shape, flat)  # type: ignore[arg-type]  # its types forget strings
            else:
                tensor = numpy_helper.from_array(array, fresh)
            self.initializers.append(tensor)
        return self._constants[key]

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of what `const` has added."""
        return tuple(self._constants.values())

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        names = [self.fresh(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names

    # The few compositions that every part needs.

    def columns(self, x: str, index: Sequence[int] | NDArray[np.int64]) -> str:
        """Pick columns of a 2-d value by position, in the order given.

        onnxruntime gathers along the second axis number by number, at some 10 ns each. Neighbouring columns are cut out
        with one ``Slice`` instead, and many others are gathered as rows of the transpose: up to fifty times as fast.
        """
        places = np.asarray(index, dtype=np.int64)
        if len(places) and np.all(np.diff(places) == 1) and places[0] >= 0:
            start, stop, axis = (self.const([v], np.int64) for v in (places[0], places[-1] + 1, 1))
            return self.op("Slice", x, start, stop, axis)
        if len(places) < _MANY_COLUMNS:
            return self.op("Gather", x, self.const(places), axis=1)
        rows = self.op("Gather", self.op("Transpose", x, perm=[1, 0]), self.const(places), axis=0)
        return self.op("Transpose", rows, perm=[1, 0])

    def concat(self, *values: str, axis: int = 1) -> str:
        """Join values side by side; a single value is returned as it is."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def cast(self, value: str, dtype: Any) -> str:
        """Convert the element type."""
        return self.op("Cast", value, to=_onnx_type(dtype))

    def model(self) -> onnx.ModelProto:
        """Assemble and check the model.

        Raises
        ------
        onnx.checker.ValidationError
            If the graph breaks the ONNX specification: a bug of ours.
        """
        graph = helper.make_graph(self.nodes, self._name, self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        if any(n.domain == ML for n in self.nodes):
            opsets.append(helper.make_opsetid(ML, ML_OPSET))
        model = helper.make_model(graph, opset_imports=opsets, producer_name="tidemill")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model


def _onnx_type(dtype: Any) -> int:
    if dtype is str:
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
