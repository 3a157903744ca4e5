"""Puts a graph that another program wrote into one of ours."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tidemill.bundle.graph import IR_VERSION, OPSET, GraphBuilder
from tidemill.core.errors import InternalError


def splice(graph: GraphBuilder, model: onnx.ModelProto, inputs: Mapping[str, str]) -> list[str]:
    """Add all of a model's nodes to a graph under names of their own, and return the names of its outputs.

    What its writer left beside the arithmetic (names of nodes, traces of source code, shapes of values in between) is
    not taken along.

    Parameters
    ----------
    graph : GraphBuilder
        Where to.
    model : onnx.ModelProto
        A model of standard operators; functions of its own are unfolded.
    inputs : mapping
        Value of ``graph`` for each input of the model.

    Returns
    -------
    list of str
        Values of ``graph``, in the order of the model's outputs.

    Raises
    ------
    InternalError
        Where the model wants inputs that are not given, keeps data in other files, or uses operators that plain
        onnxruntime lacks.
    """
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    _check(model, inputs)
    names = dict(inputs)
    for tensor in model.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = names[tensor.name] = graph.fresh("w")
        copy.doc_string = ""
        del copy.metadata_props[:]
        graph.initializers.append(copy)
    for node in model.graph.node:
        graph.nodes.append(_renamed(node, names, graph))
    return [names[value.name] for value in model.graph.output]


def bare(model: onnx.ModelProto) -> bytes:
    """Serialise a model without what its writer left beside the arithmetic: it is as large as what `splice` adds.

    The traces of source code in it name places on the machine that wrote it, and nobody needs them.
    """
    graph = GraphBuilder()
    names = {value.name: value.name for value in model.graph.input}
    outputs = splice(graph, model, names)
    made = onnx.ModelProto(ir_version=min(model.ir_version, IR_VERSION), opset_import=model.opset_import)
    made.graph.name = model.graph.name
    made.graph.input.extend(model.graph.input)
    made.graph.initializer.extend(graph.initializers)
    made.graph.node.extend(graph.nodes)
    for name, value in zip(outputs, model.graph.output, strict=True):
        value_info = onnx.ValueInfoProto()
        value_info.CopyFrom(value)
        value_info.name = name
        made.graph.output.append(value_info)
    return bytes(made.SerializeToString())


def _check(model: onnx.ModelProto, inputs: Mapping[str, str]) -> None:
    stored = {tensor.name for tensor in model.graph.initializer}
    wanted = {value.name for value in model.graph.input} - stored
    if wanted != set(inputs):
        raise InternalError(f"The model wants the inputs {sorted(wanted)}, but got {sorted(inputs)}.")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise InternalError("The model keeps data outside of its file.")
    strange = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if strange:
        raise InternalError(f"The model uses operators of the domains {sorted(strange)}, which onnxruntime lacks.")
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version != OPSET:
        raise InternalError(f"The model uses operator set {version}; a bundle uses {OPSET}.")


def _renamed(node: onnx.NodeProto, names: dict[str, str], graph: GraphBuilder) -> onnx.NodeProto:
    """Copy a node; an empty name stands for an input that is left out, and stays."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = copy.doc_string = ""
    del copy.metadata_props[:]
    for place, name in enumerate(node.input):
        copy.input[place] = names[name] if name else ""
    for place, name in enumerate(node.output):
        if name:
            names[name] = graph.fresh(node.op_type.lower())
        copy.output[place] = names[name] if name else ""
    for attribute in copy.attribute:
        if attribute.HasField("g"):
            _rename_inside(attribute.g, names, graph)
        for inner in attribute.graphs:
            _rename_inside(inner, names, graph)
    return copy


def _rename_inside(inner: onnx.GraphProto, outer: Mapping[str, str], graph: GraphBuilder) -> None:
    """Rename the values of a branch or a loop's body, which may use those around it."""
    names = dict(outer)
    for value in inner.input:
        names[value.name] = graph.fresh("v")
        value.name = names[value.name]
    for tensor in inner.initializer:
        names[tensor.name] = graph.fresh("w")
        tensor.name = names[tensor.name]
    nodes = [_renamed(node, names, graph) for node in inner.node]
    del inner.node[:]
    inner.node.extend(nodes)
    del inner.value_info[:]
    for value in inner.output:
        value.name = names[value.name]
