"""The values of one tensor of a request, from JSON or from binary data, checked against its type and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tidemill.deploy.engine.refusal import bad_request, invalid_input
from tidemill.deploy.engine.wire import TYPES, join_texts, split_cells, split_texts

_BOUNDS = {
    name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for name, dtype in TYPES.items() if dtype.kind in "iu"
}


def binary_size(item: Mapping[str, Any], name: str) -> int | None:
    """Bytes of a tensor behind the JSON; None where its values stand in it."""
    parameters = item.get("parameters")
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise bad_request(f'"parameters" of the tensor {name!r} must be an object.')
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise bad_request(f"binary_data_size of the tensor {name!r} must be a whole number of bytes.")
    if "data" in item:
        raise bad_request(f"The tensor {name!r} has data both in the JSON and behind it.")
    return size


def from_bytes(name: str, kind: str, shape: tuple[int, ...], raw: memoryview) -> Any:
    """Read binary values: an array of the shape, or a list of texts."""
    elements = math.prod(shape)
    if kind == "BYTES":
        try:
            texts = split_texts(raw)
        except ValueError as error:
            raise bad_request(f"The texts of the tensor {name!r} can't be read: {error}.") from error
        if len(texts) != elements:
            raise bad_request(f"The tensor {name!r} has {len(texts):,} texts, but its shape has room for {elements:,}.")
        return texts
    dtype = TYPES[kind]
    if len(raw) != elements * dtype.itemsize:
        raise bad_request(
            f"The tensor {name!r} has {len(raw):,} bytes, but {kind} of shape {list(shape)} takes "
            f"{elements * dtype.itemsize:,}."
        )
    if kind == "BOOL" and bytes(raw).strip(b"\0\1"):
        raise bad_request(f"The tensor {name!r} holds bytes that are neither 0 nor 1.")
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def cells_from_bytes(name: str, kind: str, shape: tuple[int, ...], raw: memoryview) -> list[bytes]:
    """Read binary cells, such as files, as they are."""
    try:
        cells = split_cells(raw)
    except ValueError as error:
        raise bad_request(f"The elements of the tensor {name!r} can't be read: {error}.") from error
    if len(cells) != math.prod(shape):
        raise bad_request(
            f"The tensor {name!r} has {len(cells):,} elements, but its shape has room for {math.prod(shape):,}."
        )
    return cells


def from_json(name: str, kind: str, shape: tuple[int, ...], data: Any) -> Any:
    """Read values of JSON, flat or nested: an array of the shape, or a list of texts."""
    if not isinstance(data, list):
        raise bad_request(f'The tensor {name!r} needs "data": a list.')
    flat = _flat(data, len(shape)) if data and isinstance(data[0], list) else data
    elements = math.prod(shape)
    if len(flat) != elements:
        raise invalid_input(
            f"The tensor {name!r} has {len(flat):,} values, but its shape {list(shape)} has room for {elements:,}."
        )
    if kind == "BYTES":
        return _texts(name, flat)
    return _numbers(name, kind, flat).reshape(shape)


def _flat(data: list[Any], depth: int) -> list[Any]:
    for _ in range(depth - 1):
        if not data or not isinstance(data[0], list):
            break
        if any(not isinstance(inner, list) or len(inner) != len(data[0]) for inner in data):
            raise bad_request("Nested data must have the same form everywhere.")
        data = [v for inner in data for v in inner]
    return data


def _texts(name: str, flat: list[Any]) -> list[str]:
    for at, value in enumerate(flat):
        if not isinstance(value, str):
            raise invalid_input(f"The tensor {name!r}, element {at + 1:,}: {_seen(value)} is not a text.")
    return flat


def _numbers(name: str, kind: str, flat: list[Any]) -> Any:
    dtype = TYPES[kind]
    found = set(map(type, flat))
    if dtype.kind == "f":
        _refuse(name, flat, found - {float, int, bool, type(None)}, (float, int, bool, type(None)), "a number")
        values = np.array([math.nan if v is None else v for v in flat], dtype=np.float64)
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    if dtype.kind == "b":
        _refuse(name, flat, found - {bool}, (bool,), "true or false")
        return np.array(flat, dtype=np.bool_)
    _refuse(name, flat, found - {int}, (int,), "a whole number")
    low, high = _BOUNDS[kind]
    for at, value in enumerate(flat):
        if not low <= value <= high:
            raise invalid_input(f"The tensor {name!r}, element {at + 1:,}: {value} does not fit into {kind}.")
    return np.array(flat, dtype=dtype)


def _refuse(name: str, flat: list[Any], wrong: set[type], right: tuple[type, ...], wanted: str) -> None:
    if wrong:
        at = next(i for i, v in enumerate(flat) if type(v) not in right)
        raise invalid_input(f"The tensor {name!r}, element {at + 1:,}: {_seen(flat[at])} is not {wanted}.")


def _seen(value: Any) -> str:
    return repr(value)[:60]


def raw_bytes(kind: str, values: Any) -> bytes:
    """Write values as binary data."""
    if kind == "BYTES":
        return join_texts(values if isinstance(values, list) else [str(v) for v in values.ravel().tolist()])
    return bytes(np.ascontiguousarray(values, dtype=TYPES[kind]).tobytes())
