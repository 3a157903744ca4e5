"""OpenVINO IR: the graph for another runtime, with texts as codes, written only if it answers as the bundle does.

OpenVINO has no operators for texts. A category is looked up in a table, so its table is taken out of the graph: the
input becomes a number, and ``inputs.json`` says which. Labels are taken out in the same way. What can't be written so
(free text, trees) is refused, with the operator's name.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tidemill.bundle import golden
from tidemill.bundle.assemble import LABEL, PREDICTION, PROBABILITIES, input_names
from tidemill.bundle.folder import atomic_folder
from tidemill.bundle.graph import ML
from tidemill.bundle.parity import MAX_DP, RTOL
from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import BundleError, MissingExtraError, ParityError

LABEL_CODE = "label_code"
"""Output that stands for the label: its place among the classes."""
_SLACK = 4.0
"""Another runtime rounds otherwise: as in `tidemill.bundle.verify`, answers are held to this multiple of the bars."""
_SHOWN = 3
_FOR_TEXTS = ("StringNormalizer", "StringSplit", "StringConcat", "RegexFullMatch", "TfIdfVectorizer", "LabelEncoder")


@dataclass(frozen=True)
class OpenVinoIr:
    """Writes ``model.xml`` and ``model.bin``, and what a program must know to use them."""

    description: str = "OpenVINO IR, proven on the golden rows"

    def export(self, bundle: Bundle, out: Path) -> Path:
        """Write the folder.

        Raises
        ------
        MissingExtraError
            If the package is absent.
        BundleError
            If OpenVINO lacks an operator of the graph.
        ParityError
            If it answers otherwise than the bundle.
        """
        openvino = _package()
        with atomic_folder(out) as folder:
            numeric = without_texts(onnx.load_model(str(bundle.model_path), load_external_data=False))
            model = _convert(openvino, numeric.model, str(bundle.path))
            inputs, wanted = golden.parse((bundle.path / golden.NAME).read_bytes())
            answers = _run(openvino, model, numeric, inputs, str(bundle.path))
            _prove(answers, wanted, bundle)
            openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
            about = json.dumps(_about(bundle, numeric), indent=1, ensure_ascii=False)
            (folder / "inputs.json").write_text(about + "\n", encoding="utf-8")
            (folder / "README.md").write_text(_readme(bundle), encoding="utf-8")
        return out


@dataclass(frozen=True)
class Numeric:
    """A graph without texts.

    Parameters
    ----------
    model : onnx.ModelProto
        The graph.
    words : dict of str to list of str
        For each input that was a text: its values in the order of their codes, which begin with 1; 0 is any other.
    """

    model: onnx.ModelProto
    words: dict[str, list[str]] = field(default_factory=dict)

    def feed(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Turn inputs of the bundle's graph into those of this one."""
        out: dict[str, NDArray[Any]] = {}
        for name, values in inputs.items():
            if name in self.words:
                codes = {word: code for code, word in enumerate(self.words[name], start=1)}
                flat = [codes.get(str(v), 0) for v in values.ravel()]
                out[name] = np.array(flat, dtype=np.int64).reshape(values.shape)
            else:
                out[name] = np.asarray(values)
        return out


def without_texts(model: onnx.ModelProto) -> Numeric:
    """Take the tables of categories and labels out of a graph, and level its matrix products.

    Raises
    ------
    BundleError
        Where texts do more than being looked up.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    words = {
        value.name: _codes_for(copy.graph, value)
        for value in copy.graph.input
        if value.type.tensor_type.elem_type == TensorProto.STRING
    }
    _label_as_code(copy.graph)
    _level(copy)
    if all(node.domain != ML for node in copy.graph.node):
        kept = [o for o in copy.opset_import if o.domain != ML]
        del copy.opset_import[:]
        copy.opset_import.extend(kept)
    return Numeric(copy, words)


def _codes_for(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> list[str]:
    """Let an input be a code, and its tables be tables of codes; gives the texts in the order of the codes."""
    users = [node for node in graph.node if value.name in node.input]
    if not all(_is_table(node) for node in users):
        raise BundleError(
            f"OpenVINO has no operator {_text_operators(graph, value.name)}, which the column {value.name!r} needs.",
            hint="Export with --to onnx, or train without free text.",
        )
    tables = [_table_of(node) for node in users]
    words = list(dict.fromkeys(word for table, _ in tables for word in table))
    for node, (table, other) in zip(users, tables, strict=True):
        values = np.array([other, *(table.get(word, other) for word in words)], dtype=np.float32)
        name = f"{node.output[0]}_by_code"
        graph.initializer.append(numpy_helper.from_array(values, name))
        node.CopyFrom(helper.make_node("Gather", [name, value.name], list(node.output), name=node.name, axis=0))
    value.type.tensor_type.elem_type = TensorProto.INT64
    return words


def _text_operators(graph: onnx.GraphProto, start: str) -> str:
    """Operators for texts that a value reaches, else those that take it."""
    reached = {start}
    found: list[str] = []
    direct: list[str] = []
    for node in graph.node:  # in the order of the graph, so one pass is enough
        if reached.isdisjoint(node.input):
            continue
        reached.update(node.output)
        if start in node.input:
            direct.append(_name_of(node))
        if node.op_type in _FOR_TEXTS:
            found.append(_name_of(node))
    return ", ".join(dict.fromkeys(found or direct))


def _is_table(node: onnx.NodeProto) -> bool:
    given = {a.name for a in node.attribute}
    return node.op_type == "LabelEncoder" and {"keys_strings", "values_floats"} <= given


def _table_of(node: onnx.NodeProto) -> tuple[dict[str, float], float]:
    """Values by text, and the value of any other text."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    keys = [key.decode("utf-8") for key in given["keys_strings"]]
    return dict(zip(keys, given["values_floats"], strict=True)), float(given.get("default_float", -0.0))


def _label_as_code(graph: onnx.GraphProto) -> None:
    """Give out the place of the label among the classes in place of its text."""
    if LABEL not in {o.name for o in graph.output}:
        return
    made_by = {name: node for node in graph.node for name in node.output}
    last = made_by[LABEL]
    lookup = made_by.get(last.input[0])
    texts = {t.name for t in graph.initializer if t.data_type == TensorProto.STRING}
    if last.op_type != "Identity" or lookup is None or lookup.op_type != "Gather" or lookup.input[0] not in texts:
        raise BundleError("The label is not looked up at the end of the graph, so OpenVINO can't give its place.")
    code = lookup.input[1]
    for node in (last, lookup):
        graph.node.remove(node)
    graph.node.append(helper.make_node("Identity", [code], [LABEL_CODE]))
    outputs = [
        helper.make_tensor_value_info(LABEL_CODE, TensorProto.INT64, ["N"]) if o.name == LABEL else o
        for o in graph.output
    ]
    del graph.output[:]
    graph.output.extend(outputs)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name in texts - used]:
        graph.initializer.remove(tensor)


def _level(model: onnx.ModelProto) -> None:
    """Let both sides of a matrix product have the same leading axes, as OpenVINO wants it; the product is the same."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.input)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        if node.op_type == "MatMul":
            sides = [shapes.get(name, []) for name in node.input]
            low = min((0, 1), key=lambda side: len(sides[side]))
            leading = sides[1 - low][:-2]
            if 2 <= len(sides[low]) < len(sides[1 - low]) and all(leading):
                stem = f"level_{number}"
                shape = np.array([*leading, 1, 1], dtype=np.int64)
                model.graph.initializer.append(numpy_helper.from_array(shape, f"{stem}_shape"))
                nodes.append(helper.make_node("Expand", [node.input[low], f"{stem}_shape"], [stem]))
                node.input[low] = stem
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


# ------------------------------------------------------------------------------------------------------ the runtime


def _package() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError.of("openvino", "to write OpenVINO IR", extra="openvino") from error
    return openvino


def _convert(openvino: Any, model: onnx.ModelProto, where: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(model, str(path))
        try:
            return openvino.Core().read_model(str(path))
        except RuntimeError as error:
            raise _not_converted(model, error, where) from error


def _run(
    openvino: Any, model: Any, numeric: Numeric, inputs: Mapping[str, NDArray[Any]], where: str
) -> dict[str, NDArray[Any]]:
    names = [output.name for output in numeric.model.graph.output]  # outputs of OpenVINO may have several names
    try:
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        answers = compiled(numeric.feed(inputs))
    except RuntimeError as error:
        raise BundleError(f"OpenVINO can't run it: {_first_line(error)}", where=where) from error
    return {name: np.asarray(answers[i]) for i, name in enumerate(names)}


def _not_converted(model: onnx.ModelProto, error: Exception, where: str) -> BundleError:
    """Name the operators that OpenVINO speaks of, with how often the graph has them."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[_name_of(node)] = counts.get(_name_of(node), 0) + 1
    told = set(str(error).replace(",", " ").replace("\n", " ").replace(";", " ").split())
    named = [f"{name} ({count}×)" for name, count in counts.items() if told & {name, name.rpartition(".")[2]}]
    if not named:
        return BundleError(f"OpenVINO can't read the graph: {_first_line(error)}", where=where)
    return BundleError(
        f"OpenVINO has no operator {', '.join(named)}.",
        where=where,
        hint="Linear models and networks of numbers can be written; for the others export with --to onnx.",
    )


def _name_of(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _prove(got: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]], bundle: Bundle) -> None:
    if PREDICTION in wanted:
        want = wanted[PREDICTION].astype(np.float64)
        scale = np.maximum(np.abs(want), 0.1 * np.ptp(want))
        wrong = ~(np.abs(got[PREDICTION].astype(np.float64).reshape(want.shape) - want) <= _SLACK * RTOL * scale)
    else:
        bar = float(bundle.spec.parity.get("bars", {}).get("max_abs_dp", MAX_DP))
        near = np.abs(got[PROBABILITIES] - wanted[PROBABILITIES]) <= _SLACK * bar
        labels = np.array(bundle.task.classes, dtype=object)[got[LABEL_CODE].astype(np.int64).ravel()]
        wrong = ~near.all(axis=1) | (labels != wanted[LABEL])
    if wrong.any():
        rows = np.flatnonzero(wrong)
        shown = ", ".join(str(r + 1) for r in rows[:_SHOWN])
        raise ParityError(
            f"OpenVINO answers {len(rows)} of {len(wrong)} golden rows otherwise than the bundle (rows {shown}).",
            where=str(bundle.path),
            hint="Use another form, such as --to onnx.",
        )


# ---------------------------------------------------------------------------------------------------- what is beside


def _about(bundle: Bundle, numeric: Numeric) -> dict[str, Any]:
    names = input_names(bundle.schema)
    inputs = []
    for column in bundle.schema.features:
        name = names[column.name]
        one: dict[str, Any] = {"column": column.name, "input": name, "type": column.type.value, "unit": column.unit}
        if name in numeric.words:
            one["codes"] = {word: code for code, word in enumerate(numeric.words[name], start=1)}
        inputs.append(one)
    outputs = [o.name for o in numeric.model.graph.output]
    return {"name": bundle.info.name, "inputs": inputs, "outputs": outputs, "classes": list(bundle.task.classes)}


def _readme(bundle: Bundle) -> str:
    if bundle.task.kind.is_classification:
        gives = f"`{LABEL_CODE}` (place of the label among `classes`) and `{PROBABILITIES}`"
    else:
        gives = f"`{PREDICTION}`"
    return f"""# {bundle.info.name} as OpenVINO IR

`model.xml` and `model.bin` answer the golden rows of the bundle as the bundle does. Every column is an input of shape
(N, 1): numbers as double (NaN for missing), a category as the whole number that `inputs.json` gives it in `codes`
(0 for one that is not there; the empty text stands for missing). Outputs: {gives}.

```python
import json, openvino
about = json.load(open("inputs.json"))
model = openvino.Core().compile_model("model.xml", "CPU")
```
"""


EXPORTER = OpenVinoIr()
