"""A program that feeds the decoders with bytes, guided by coverage: ``python -m tests.deploy.faults.fuzz v2``.

The arguments after the target are libFuzzer's. What a decoder may do with bytes: give a query whose pieces fit its
shapes, or raise a `Refusal`. Everything else is found.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["tidemill.deploy.engine"]):
    from tidemill.deploy.engine import wire
    from tidemill.deploy.engine.layout import Layout, TensorSpec
    from tidemill.deploy.engine.limits import Limits
    from tidemill.deploy.engine.query import Query
    from tidemill.deploy.engine.records import RecordCodec
    from tidemill.deploy.engine.refusal import Refusal
    from tidemill.deploy.engine.v2 import Codec

import orjson

from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.testing.parts import small_task

_OUT = (TensorSpec("y", "FP32", (None,)),)


def _column(name: str, kind: str) -> TensorSpec:
    return TensorSpec(name, kind, (None, 1))


LAYOUTS = (
    Layout((TensorSpec("x", "FP32", (None, 3)),), _OUT, True, False),
    Layout((TensorSpec("x", "BYTES", (None, 2)), TensorSpec("y", "INT8", (None, 1, None))), _OUT, True, False),
    Layout((_column("a", "FP64"), _column("t", "BYTES")), _OUT, True, True, (("a",), ("t",))),
    Layout((_column("a", "FP64"), _column("b", "FP64")), _OUT, True, True, (("a", "b"),)),
)
LIMITS = Limits(rows=64, elements=4096)
CODECS = [Codec("m", "1", layout, LIMITS) for layout in LAYOUTS]


def check(layout: Layout, query: Query) -> None:
    """The pieces of a query must be what its rows and shapes say: the worker makes arrays of them."""
    assert 1 <= query.rows <= LIMITS.rows
    assert len(query.pieces) == len(query.shapes) == len(layout.wire_types)
    for kind, piece, shape in zip(layout.wire_types, query.pieces, query.shapes, strict=True):
        whole = (query.rows, *shape)
        assert math.prod(whole) <= LIMITS.elements * 2
        if kind == "BYTES":
            assert len(wire.split_texts(piece)) == math.prod(whole)
        else:
            assert memoryview(piece).nbytes == math.prod(whole) * wire.TYPES[kind].itemsize
        wire.Tensor(kind, whole, piece).array()


def _expect(error: Refusal, *statuses: int) -> None:
    assert error.status in statuses


def v2(data: bytes) -> None:
    """A document that has the form of a request, with what the bytes choose in each place, and the rest behind it."""
    given = atheris.FuzzedDataProvider(data)
    which = given.ConsumeIntInRange(0, len(CODECS) - 1)
    if given.ConsumeIntInRange(0, 7) == 0:
        body, json_bytes = given.ConsumeBytes(4096), None
    else:
        inputs = [_input(given) for _ in range(given.ConsumeIntInRange(0, 3))]
        head = orjson.dumps({"inputs": inputs, **({"id": "q"} if given.ConsumeBool() else {})})
        binary = given.ConsumeBool()
        json_bytes = len(head) + (given.ConsumeIntInRange(-3, 3) if given.ConsumeBool() else 0) if binary else None
        body = head + (given.ConsumeBytes(4096) if binary else b"")
    try:
        check(LAYOUTS[which], CODECS[which].decode(body, json_bytes))
    except Refusal as error:
        _expect(error, 400, 413)


def _input(given: atheris.FuzzedDataProvider) -> dict[str, object]:
    kind = given.PickValueInList([*wire.TYPES, "FP99"])
    shape = [given.ConsumeIntInRange(-1, 6) for _ in range(given.ConsumeIntInRange(0, 3))]
    if given.ConsumeIntInRange(0, 15) == 0:
        shape.append(2 ** given.ConsumeIntInRange(0, 62))
    out: dict[str, object] = {"name": given.PickValueInList(["x", "y", "a", "t", "b", "input"]), "datatype": kind}
    out["shape"] = shape
    size = max(0, math.prod(shape)) if math.prod(shape) < 100 else 3
    if given.ConsumeBool():
        width = 5 if kind not in wire.TYPES or kind == "BYTES" else wire.TYPES[kind].itemsize
        out["parameters"] = {"binary_data_size": size * width + given.ConsumeIntInRange(-1, 1)}
    else:
        values = [0, -1, 1.5, True, None, "a", 2**63 - 1, 300, [1], 1e300]
        out["data"] = [given.PickValueInList(values) for _ in range(size + given.ConsumeIntInRange(-1, 1))]
    return out


def frames(data: bytes) -> None:
    """A frame as a worker would write it, were it not ours: cut, lied, overlapping."""
    try:
        for tensor in wire.tensors_of(data, data[5] if len(data) > 5 else 1):
            tensor.array()
    except (ValueError, IndexError, struct.error, OverflowError):
        return


def _record_codec() -> RecordCodec:
    schema = Schema(
        (
            Column("a", SemanticType.NUMBER),
            Column("b", SemanticType.BOOLEAN),
            Column("t", SemanticType.CATEGORY),
            Column("d", SemanticType.DATETIME, unit="datetime:%Y-%m-%d"),
            Column("y", SemanticType.TARGET),
        )
    )
    names = ("a", "b", "d")
    inputs = tuple(_column(n, "BYTES" if n == "t" else "FP64") for n in ("a", "b", "t", "d"))
    layout = Layout(inputs, _OUT, True, True, (names, ("t",)))
    return RecordCodec(schema, small_task("binary"), layout, {n: n for n in ("a", "b", "t", "d")})


RECORDS = _record_codec()


def records(data: bytes) -> None:
    """JSON of people; a fuzzer hardly ever writes some, so a head is given."""
    for body in (data, b'{"records":[{"a":1,"b":true,"d":"2024-01-01","t":' + data + b"}]}"):
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            continue
        try:
            query = RECORDS.decode(document)
        except Refusal as error:
            _expect(error, 400)
        else:
            assert len(query.pieces) == 2


TARGETS: dict[str, Callable[[bytes], None]] = {"v2": v2, "frames": frames, "records": records}


def main() -> None:
    """Run a target until libFuzzer's arguments end it."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
