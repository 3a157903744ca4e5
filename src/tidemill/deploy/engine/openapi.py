"""OpenAPI 3.1 of what this front serves just now: each model with its own columns and types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidemill import __version__
from tidemill.core.schema import Column, SemanticType
from tidemill.core.task import JOINT, Task, TaskKind
from tidemill.deploy.engine.layout import TensorSpec
from tidemill.deploy.engine.model import Model
from tidemill.deploy.engine.served import Served
from tidemill.deploy.engine.told import MOST_LABELS, takes_lists
from tidemill.deploy.engine.v2 import INPUT
from tidemill.deploy.engine.wire import TYPES

_REFUSALS = {
    "400": "The request can't be read, or does not fit the model: column, row, and what is expected.",
    "404": "There is no such model or version.",
    "408": "The request did not come in time.",
    "413": "The body or its number of rows is too large.",
    "415": "The body is compressed.",
    "422": "The idempotency key came with another body before.",
    "429": "It can't be answered before its deadline; see Retry-After.",
    "431": "The head is too large.",
    "500": "The model failed on this request.",
    "503": "Unavailable at the moment; see Retry-After.",
    "504": "Its deadline passed.",
    "507": "The model does not fit into the memory that may be used.",
}
_KEY_REFUSALS = {"401": "No key, or one that is not known.", "403": "The key is not for this."}
_JSON_TYPES = {
    SemanticType.NUMBER: (["number", "string", "null"], 1.5),
    SemanticType.INTEGER: (["number", "string", "null"], 1),
    SemanticType.BOOLEAN: (["boolean", "number", "string", "null"], True),
    SemanticType.DATETIME: (["string", "null"], "2024-01-31"),
    SemanticType.CATEGORY: (["string", "number", "boolean", "null"], "a"),
    SemanticType.TEXT: (["string", "number", "boolean", "null"], "some words"),
}
_SMALLEST_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
_VISIBLE = "^[!-~]+$"
_HEADERS = (
    (
        "X-Request-Id",
        "Name of the request; feedback refers to it. One is made where it is absent.",
        {"type": "string", "minLength": 1, "maxLength": 128, "pattern": _VISIBLE},
    ),
    (
        "Idempotency-Key",
        "The same key with the same body gets the same answer.",
        {"type": "string", "maxLength": 255, "pattern": _VISIBLE},
    ),
    (
        "X-Deadline-Ms",
        "Milliseconds that the answer may take.",
        {"type": "number", "exclusiveMinimum": 0, "maximum": 600000},
    ),
    ("X-Sticky-Key", "Callers with the same key meet the same revision.", {"type": "string", "pattern": "^[!-~]*$"}),
)  # fmt: skip


def document(endpoints: Sequence[Served], *, secured: bool) -> dict[str, Any]:
    """Write the document.

    Parameters
    ----------
    endpoints : sequence of Served
        What there is.
    secured : bool
        True where requests need a key.
    """
    paths: dict[str, Any] = {
        "/v2": {
            "get": _get("About the server", _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}))
        },
        "/v2/health/live": {"get": _get("Whether the server runs", _object({"live": _BOOL}))},
        "/v2/health/ready": {"get": _get("Whether all models can answer", _object({"ready": _BOOL}), also=("503",))},
        "/v2/repository/index": {"post": {**_get("All models", _list({"type": "object"})), "operationId": "index"}},
    }
    for served in endpoints:
        paths |= _of_endpoint(served, secured)
    out: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemill",
            "version": __version__,
            "description": "Predictions; Open Inference Protocol v2.",
        },
        "paths": paths,
        "components": {"schemas": {"Refusal": _REFUSAL}},
    }
    if secured:
        out["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        out["security"] = [{"key": []}]
        for path in ("/v2/health/live", "/v2/health/ready"):
            paths[path]["get"]["security"] = []  # who watches over processes has no key
    return out


_TEXT: dict[str, Any] = {"type": "string"}
_BOOL: dict[str, Any] = {"type": "boolean"}
_REFUSAL: dict[str, Any] = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {"error": _TEXT, "code": _TEXT, "retry_after_s": {"type": "number"}},
}


def _object(properties: dict[str, Any], required: bool = True) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": list(properties)} if required else {})


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, schema: dict[str, Any], also: Sequence[str] = ()) -> dict[str, Any]:
    responses = {"200": _answer(summary, schema)}
    responses |= {status: {"description": _REFUSALS[status]} for status in also}
    return {"summary": summary, "responses": responses}


def _refusals(secured: bool) -> dict[str, Any]:
    stated = {**_REFUSALS, **(_KEY_REFUSALS if secured else {})}
    return {status: _answer(text, {"$ref": "#/components/schemas/Refusal"}) for status, text in stated.items()}


def _of_endpoint(served: Served, secured: bool) -> dict[str, Any]:
    name = served.name
    out: dict[str, Any] = {}
    model = served.routing[0][1] if served.routing else None
    base = f"/v2/models/{name}"
    metadata = _get(f"What {name} takes and gives", {"type": "object"}, also=("404",))
    out[base] = {"get": {**metadata, "operationId": f"metadata_{name}"}}
    ready = _get(f"Whether {name} can answer", _object({"name": _TEXT, "ready": _BOOL}), also=("503",))
    out[f"{base}/ready"] = {"get": {**ready, "operationId": f"ready_{name}"}}
    if model is not None and model.codec is not None:
        out[f"{base}/infer"] = {"post": _infer(served, model, secured)}
        if model.records is not None:
            out[f"/v1/predict/{name}"] = {"post": _predict(served, model, secured)}
        elif model.texts is not None:
            out[f"/v1/predict/{name}"] = {"post": _predict_texts(served, model, secured)}
        elif model.files is not None:
            out[f"/v1/predict/{name}"] = {"post": _predict_files(served, model, secured)}
    feedback = _feedback(served, secured)
    out[f"/v1/feedback/{name}"] = {"post": {**feedback, "operationId": f"feedback_{name}"}}
    return out


def _operation(name: str, summary: str, body: dict[str, Any], answer: dict[str, Any], secured: bool) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [
            {"name": n, "in": "header", "description": text, "required": False, "schema": schema}
            for n, text, schema in _HEADERS
        ],
        "requestBody": {"required": True, **body},
        "responses": {"200": answer, **_refusals(secured)},
    }


def _predict(served: Served, model: Model, secured: bool) -> dict[str, Any]:
    assert model.records is not None
    columns = model.records.schema.features
    held, keys = _from_groups(served)
    asked = [c for c in columns if c.name not in held]
    shown = {k: {"type": kind, "description": "entity key"} for k, (kind, _) in keys.items()}
    record = _object({**shown, **{c.name: _cell(c) for c in asked}})
    for column in (c for c in columns if c.name in held):
        cell = _cell(column)
        cell["description"] += f"; where it is left out, from the feature group {held[column.name]}"
        record["properties"][column.name] = cell
    example = {"records": [{**{k: value for k, (_, value) in keys.items()}, **{c.name: _example(c) for c in asked}}]}
    schema = {**_object({"records": {**_list(record), "minItems": 1}}), "example": example}
    body = {
        "content": {"application/json": {"schema": schema, "example": example}},
        "x-columns": [
            *({"name": k, "type": "integer" if t == "integer" else "text", "example": e} for k, (t, e) in keys.items()),
            *({"name": c.name, "type": c.type.value, "example": _example(c)} for c in asked),
        ],
    }
    return _operation(
        f"predict_{served.name}", f"Predict {model.records.task.target} from records", body,
        _predictions(model.records.task), secured,
    )  # fmt: skip


def _predict_texts(served: Served, model: Model, secured: bool) -> dict[str, Any]:
    assert model.texts is not None
    column, task = model.texts.column, model.texts.task
    record = _object({column: {"type": ["string", "number", "boolean", "null"], "description": "text"}})
    example = {"records": [{column: "some words"}]}
    schema = {**_object({"records": {**_list(record), "minItems": 1}}), "example": example}
    body = {
        "content": {
            "application/json": {"schema": schema, "example": example},
            "text/plain": {"schema": {"type": "string"}},
        },
        "x-columns": [{"name": column, "type": "text", "example": "some words"}],
    }
    summary = f"Predict {task.target} from texts"
    return _operation(f"predict_{served.name}", summary, body, _predictions(task), secured)


def _predict_files(served: Served, model: Model, secured: bool) -> dict[str, Any]:
    assert model.files is not None
    column, task = model.files.column, model.files.task
    record = _object({column: {"type": "string", "contentEncoding": "base64", "description": "file as Base64"}})
    example = {"records": [{column: _SMALLEST_PNG}]}
    file = {"type": "string", "format": "binary"}
    body = {
        "content": {
            "application/json": {
                "schema": {**_object({"records": {**_list(record), "minItems": 1}}), "example": example},
                "example": example,
            },
            "image/*": {"schema": file},
            "multipart/form-data": {"schema": {"type": "object", "additionalProperties": file}},
        }
    }
    summary = f"Predict {task.target} from files: one as it is, several as a form, or as Base64 in records"
    return _operation(f"predict_{served.name}", summary, body, _predictions(task), secured)


def _predictions(task: Task) -> dict[str, Any]:
    if task.kind is TaskKind.MULTILABEL:
        probabilities = _object({c: {"type": ["number", "null"]} for c in task.classes})
        labels = _list({"type": "string", "enum": list(task.classes)})
        prediction = _object({"labels": labels, "probabilities": probabilities})
    elif task.kind.is_classification:
        kinds = {"integer": "integer", "number": "number", "boolean": "boolean"}
        label = {"type": kinds.get(task.label_type, "string")}
        probabilities = _object({c: {"type": ["number", "null"]} for c in task.classes})
        prediction = _object({"label": label, "probabilities": probabilities})
    elif task.kind is TaskKind.RECOGNITION:
        prediction = _object({"text": _TEXT, "confidence": {"type": ["number", "null"]}})
    else:
        prediction = _object({"value": {"type": ["number", "null"]}})
    answer = _object({"model": _TEXT, "revision": _TEXT, "request_id": _TEXT, "predictions": _list(prediction)})
    return _answer("Predictions", answer)


def _from_groups(served: Served) -> tuple[dict[str, str], dict[str, tuple[str, Any]]]:
    """Group by column that may be left out, and type and example by entity key that then is needed."""
    if served.completion is None:
        return {}, {}
    kinds = {"int64": ("integer", 1), "string": ("string", "a")}
    return served.completion.held(), {k.name: kinds[k.type.value] for k in served.completion.entity_keys().values()}


def _cell(column: Column) -> dict[str, Any]:
    types, _ = _JSON_TYPES[column.type]
    cell: dict[str, Any] = {"type": types, "description": column.type.value}
    if column.unit and not column.unit.startswith(("datetime:", "decimal:", ";")):
        cell["description"] += f", {column.unit}"
    return cell


def _example(column: Column) -> Any:
    if column.type in (SemanticType.NUMBER, SemanticType.INTEGER) and column.low is not None:
        middle = (column.low + (column.high if column.high is not None else column.low)) / 2
        return round(middle) if column.type is SemanticType.INTEGER else round(middle, 4)
    return _JSON_TYPES[column.type][1]


def _infer(served: Served, model: Model, secured: bool) -> dict[str, Any]:
    assert model.codec is not None
    assert model.layout is not None
    layout = model.layout
    held, keys = _from_groups(served)
    names = [spec.name for spec in layout.inputs]
    left_out = {n for n in names if model.records is not None and model.records.column(n) in held}
    kinds = {"type": "string", "enum": list(TYPES)}
    tensor = _object({"name": _TEXT, "datatype": kinds, "shape": _list({"type": "integer", "minimum": 0})})
    if model.codec.takes_matrix and not held:
        width = len(names)
        inputs = [{"name": INPUT, "datatype": "FP64", "shape": [1, width], "data": [0.0] * width}]
    else:
        inputs = [_input_example(spec, layout.batches) for spec in layout.inputs if spec.name not in left_out]
        given = {i["name"] for i in inputs}
        inputs += [
            {"name": k, "datatype": "INT64" if kind == "integer" else "BYTES", "shape": [1, 1], "data": [value]}
            for k, (kind, value) in keys.items()
            if k not in given
        ]
    accepted = [*names, *keys, *[INPUT] * model.codec.takes_matrix]
    small = all(len(i["data"]) <= 64 for i in inputs)
    listed = {**tensor["properties"], "name": {"type": "string", "enum": list(dict.fromkeys(accepted))}}
    listed["data"] = {"type": "array"}
    item = {**tensor, "properties": listed}
    schema: dict[str, Any] = {
        **_object({"inputs": {**_list(item), "minItems": 1}}),
        "properties": {"id": _TEXT, "inputs": {**_list(item), "minItems": 1}},
    }
    content: dict[str, Any] = {"schema": schema}
    if small:
        content["example"] = {"inputs": inputs}
    answer = _object({"model_name": _TEXT, "model_version": _TEXT, "outputs": _list(tensor)})
    return _operation(
        f"infer_{served.name}", "Infer, by the Open Inference Protocol v2",
        {"content": {"application/json": content}}, _answer("Output tensors", answer), secured,
    )  # fmt: skip


def _input_example(spec: TensorSpec, batches: bool) -> dict[str, Any]:
    shape = [1 if d is None else d for d in spec.dims]
    if batches and shape:
        shape[0] = 1
    size = 1
    for axis in shape:
        size *= axis
    value: Any = "" if spec.type == "BYTES" else False if spec.type == "BOOL" else 0
    return {"name": spec.name, "datatype": spec.type, "shape": shape, "data": [value] * min(size, 65)}


def _feedback(served: Served, secured: bool) -> dict[str, Any]:
    name = served.name
    label: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
    if takes_lists(served):
        one = {"type": ["string", "number", "boolean"], "pattern": f"^[^{JOINT}]*[^{JOINT}\\s][^{JOINT}]*$"}
        every = {**_list(one), "maxItems": MOST_LABELS, "description": "all labels of the row, in any order"}
        label = {"anyOf": [label, every]}
    item = {
        "type": "object",
        "required": ["request_id", "label"],
        "properties": {
            "request_id": {"type": "string", "minLength": 1},
            "label": label,
            "row": {"type": "integer", "minimum": 0},
            "note": {"type": "string", "maxLength": 10_000},
            "at": {"type": "number"},
        },
    }
    body = {"content": {"application/json": {"schema": _object({"items": {**_list(item), "minItems": 1}})}}}
    kept = _object({"kept": {"type": "integer"}})
    kept["properties"]["notices"] = {**_list(_TEXT), "description": "what was told twice, where something was"}
    answer = _answer("How many were kept", kept)
    operation = _operation(f"feedback_{name}", "Say what was right", body, answer, secured)
    operation["parameters"] = []
    operation["responses"]["501"] = {"description": "This server keeps no feedback."}
    return operation
