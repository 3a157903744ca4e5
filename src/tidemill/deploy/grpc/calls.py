"""Calls of gRPC as v2 requests with binary tensors, and answers back: the same bytes in other envelopes.

What is asked over gRPC goes through the door that HTTP goes through, so that keys, deadlines, checks, batches, shadow,
idempotency and the watch are the same. A raw tensor of gRPC has the form of a binary tensor of HTTP and is not touched.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from tidemill.deploy.asking import Reply
from tidemill.deploy.engine.refusal import Refusal, bad_request
from tidemill.deploy.engine.wire import TYPES, join_texts, split_texts

MOST_NAME = 2048
"""Characters of a model's name or version; longer ones are no name of ours."""

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def path_of(name: str, version: str = "", tail: str = "") -> bytes:
    """Path of a model in the v2 protocol.

    Examples
    --------
    >>> path_of("fraud", "a1", "infer"), path_of("a/b")
    (b'/v2/models/fraud/versions/a1/infer', b'/v2/models/a%2Fb')

    Raises
    ------
    Refusal
        404 where nothing can be called so.
    """
    return _path("/v2/models/", name) + (_path("/versions/", version) if version else b"") + _tail(tail)


def repository_path(request: Any, verb: str) -> bytes:
    """Path that loads or unloads the model of a request."""
    return _path("/v2/repository/models/", request.model_name or request.repository_name) + _tail(verb)


def _path(before: str, name: str) -> bytes:
    if not 0 < len(name) <= MOST_NAME:
        raise Refusal(404, "not_found", f"There is no model {name[:80]!r}.", hint="Give the name of a model.")
    return f"{before}{quote(name, safe='')}".encode("ascii")


def _tail(word: str) -> bytes:
    return f"/{word}".encode("ascii") if word else b""


# ------------------------------------------------------------------------------------------------------------ requests


def body_of(request: Any) -> tuple[bytes, int]:
    """Write a ``ModelInferRequest`` as the body of a v2 request.

    Returns
    -------
    body : bytes
        JSON, and the tensors behind it.
    json_bytes : int
        Length of the JSON.

    Raises
    ------
    Refusal
        400 where tensors are there twice, or in the field of another data type.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise bad_request(f"There are {len(request.inputs)} inputs, but {len(raw)} raw_input_contents.")
    if raw and any(t.HasField("contents") and t.contents.ByteSize() for t in request.inputs):
        raise bad_request("Values are either in raw_input_contents or in the inputs' contents, not in both.")
    blobs = list(raw) if raw else [packed(t) for t in request.inputs]
    document: dict[str, Any] = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(blob)},
            }
            for tensor, blob in zip(request.inputs, blobs, strict=True)
        ],
        "parameters": {"binary_data_output": True},
    }
    if request.id:
        document["id"] = request.id
    if request.outputs:
        document["outputs"] = [{"name": o.name} for o in request.outputs]
    head = orjson.dumps(document)
    return b"".join([head, *blobs]), len(head)


def packed(tensor: Any) -> bytes:
    """Raw form of a tensor whose values stand in the field of their data type.

    Raises
    ------
    Refusal
        400 where they stand in another one, or don't fit.
    """
    name, kind, contents = tensor.name, tensor.datatype, tensor.contents
    if kind not in TYPES:
        return b""  # refused with the names of all types where the JSON is read
    field = _CONTENTS.get(kind)
    if field is None:
        raise bad_request(f"The tensor {name!r} is {kind}, which has no contents: send raw_input_contents.")
    others = [f.name for f, _ in contents.ListFields() if f.name != field]
    if others:
        raise bad_request(f"The tensor {name!r} is {kind}: its values belong in {field}, not in {others[0]}.")
    values = getattr(contents, field)
    if kind == "BYTES":
        return join_texts(values)
    dtype = TYPES[kind]
    if dtype.kind in "iu" and values:
        bounds = np.iinfo(dtype)
        low, high = min(values), max(values)
        if low < bounds.min or high > bounds.max:
            wrong = low if low < bounds.min else high
            raise bad_request(f"The tensor {name!r} holds {wrong}, which does not fit into {kind}.")
    return np.fromiter(values, dtype, len(values)).tobytes()


# ------------------------------------------------------------------------------------------------------------- answers


def fill(response: Any, reply: Reply, *, raw: bool) -> Any:
    """Write an answer into a ``ModelInferResponse``; ``raw`` where the request was."""
    document = reply.document()
    response.model_name = document["model_name"]
    response.model_version = document["model_version"]
    response.id = document.get("id", "")
    outputs = document["outputs"]
    raw = raw or any(o["datatype"] not in _CONTENTS for o in outputs)
    tensors, at = reply.tensors(), 0
    for output in outputs:
        tensor = response.outputs.add()
        tensor.name, tensor.datatype = output["name"], output["datatype"]
        tensor.shape.extend(output["shape"])
        size = output["parameters"]["binary_data_size"]
        blob = tensors[at : at + size]
        at += size
        if raw:
            response.raw_output_contents.append(blob)
        else:
            unpack(tensor.contents, output["datatype"], blob)
    return response


def unpack(contents: Any, kind: str, blob: bytes) -> None:
    """Put the values of a raw tensor into the field of their data type."""
    values: Any
    if kind == "BYTES":
        values = [text.encode() for text in split_texts(blob)]
    else:
        values = np.frombuffer(blob, dtype=TYPES[kind]).tolist()
    getattr(contents, _CONTENTS[kind]).extend(values)


def fill_metadata(response: Any, document: dict[str, Any]) -> Any:
    """Write what a model takes and gives into a ``ModelMetadataResponse``."""
    response.name, response.platform = document["name"], document["platform"]
    response.versions.extend(document["versions"])
    for described, tensors in ((document["inputs"], response.inputs), (document["outputs"], response.outputs)):
        for one in described:
            tensor = tensors.add()
            tensor.name, tensor.datatype = one["name"], one["datatype"]
            tensor.shape.extend(one["shape"])
    return response


def fill_index(response: Any, rows: list[dict[str, Any]], *, ready: bool) -> Any:
    """Write names and states of models into a ``RepositoryIndexResponse``."""
    for row in rows:
        if ready and row["state"] != "READY":
            continue
        model = response.models.add()
        model.name, model.version = row["name"], row["version"]
        model.state, model.reason = row["state"], row["reason"]
    return response
