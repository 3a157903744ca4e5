"""The decoder takes what the protocol allows, refuses everything else with a word, and never anything in between."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis.extra import numpy as hnp

from tidemill.deploy.engine import wire
from tidemill.deploy.engine.layout import Layout, TensorSpec
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.query import Outputs, Query, joined, row_texts
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.v2 import Codec
from tidemill.deploy.engine.wire import TYPES, Tensor, join_texts, split_texts, tensor_of, tensors_of

PLAIN = Layout((TensorSpec("x", "FP32", (None, 3)),), (TensorSpec("y", "FP32", (None, 2)),), True, False)
COLUMNS = Layout(
    (TensorSpec("a", "FP64", (None, 1)), TensorSpec("t", "BYTES", (None, 1)), TensorSpec("b", "FP64", (None, 1))),
    (TensorSpec("label", "BYTES", (None,)),),
    True,
    True,
    (("a", "b"), ("t",)),
)
NUMBERS = Layout(
    (TensorSpec("a", "FP64", (None, 1)), TensorSpec("b", "FP64", (None, 1))),
    (TensorSpec("prediction", "FP32", (None,)),),
    True,
    True,
    (("a", "b"),),
)
SMALL = Limits(elements=1000, rows=100)


def _codec(layout: Layout = PLAIN, **options: Any) -> Codec:
    return Codec("m", "1", layout, SMALL, **options)


def _tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]} | changes


def _body(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs)} | more).encode()


def test_a_row_reaches_the_worker_as_its_bytes() -> None:
    query = _codec().decode(_body(_tensor(data=[1, 2.5, -3])))
    assert (query.rows, query.shapes) == (1, ((3,),))
    assert np.frombuffer(query.pieces[0], np.float32).tolist() == [1, 2.5, -3]


def test_nested_data_and_null_are_taken() -> None:
    query = _codec().decode(_body(_tensor(shape=[2, 3], data=[[1, 2, 3], [4, None, 6]])))
    assert np.array_equal(np.frombuffer(query.pieces[0], np.float32), [1, 2, 3, 4, np.nan, 6], equal_nan=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [1]}',
        b'{"inputs": [[]]}',
        b"\xff",
        b'{"inputs": [{"name": "x", "shape": [1,3], "datatype": "FP32", "data": [NaN,1,2]}]}',
        _body(_tensor(), _tensor()),
        _body(_tensor(name=1)),
        _body(_tensor(name="z")),
        _body(_tensor(datatype="FP99")),
        _body(_tensor(datatype="INT32")),
        _body(_tensor(datatype=None)),
        _body(_tensor(shape=[3])),
        _body(_tensor(shape=[])),
        _body(_tensor(shape=[1, 4])),
        _body(_tensor(shape=[2, 3])),
        _body(_tensor(shape=[-1, 3])),
        _body(_tensor(shape=[0, 3])),
        _body(_tensor(shape=[1.0, 3])),
        _body(_tensor(shape=[True, 3])),
        _body(_tensor(shape=[2**63, 2**63])),
        _body(_tensor(shape=[101, 3])),
        _body(_tensor(shape=[1, 3, 1])),
        _body(_tensor(shape="1,3")),
        _body(_tensor(data=None)),
        _body(_tensor(data=["1", 2, 3])),
        _body(_tensor(data=[1, 2])),
        _body(_tensor(data=[[1], [2, 3]])),
        _body(_tensor(data=[[1, 2, 3], 4])),
        _body(_tensor(data={"0": 1})),
        _body(_tensor(data="abc")),
        _body(_tensor(data=[1, 2, {}])),
        _body(_tensor(data=[1, 2, [3]])),
        _body(_tensor(parameters=3)),
        _body(_tensor(parameters={"binary_data_size": 12})),
        _body(_tensor(), id=3),
        _body(_tensor(), outputs=3),
        _body(_tensor(), outputs=[{"name": "z"}]),
        _body(_tensor(), outputs=[3]),
        _body(_tensor(), parameters={"binary_data_output": 1}),
    ],
)
def test_what_is_no_request_is_refused_with_a_word(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        _codec().decode(body)
    assert caught.value.status in (400, 413)
    assert len(caught.value.message) > 10


def test_columns_name_the_tensor_that_does_not_fit() -> None:
    a = {"name": "a", "shape": [2, 1], "datatype": "FP64", "data": [1, 2]}
    t = {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["x", "y"]}
    b = {"name": "b", "shape": [2, 1], "datatype": "INT64", "data": [3, 4]}
    query = _codec(COLUMNS).decode(_body(b, t, a))
    assert np.frombuffer(query.pieces[0]).tolist() == [1, 3, 2, 4]
    assert split_texts(query.pieces[1]) == ["x", "y"]
    for wrong, word in (
        ((a, t), "'b' is missing"),
        ((a, t, b | {"shape": [1, 1], "data": [1]}), "'b' must have the shape"),
        ((a, t | {"datatype": "INT64", "data": [1, 2]}, b), "'t' must have the datatype BYTES"),
        ((a | {"datatype": "BYTES", "data": ["1", "2"]}, t, b), "'a' must have the datatype FP64"),
        ((a, t, b, b | {"name": "c"}), "no input 'c'"),
        ((a | {"data": [1, "2"]}, t, b), "element 2"),
    ):
        with pytest.raises(Refusal, match=word):
            _codec(COLUMNS).decode(_body(*wrong))


@pytest.mark.parametrize("kind", ["FP32", "FP64"])
def test_one_tensor_stands_for_all_columns_of_numbers(kind: str) -> None:
    tensor = {"name": "input", "shape": [2, 2], "datatype": kind, "data": [0.1, 2, 3, 4]}
    query = _codec(NUMBERS).decode(_body(tensor))
    wanted = np.array([0.1, 2, 3, 4], TYPES[kind]).astype(np.float64)
    assert np.frombuffer(query.pieces[0]).tolist() == wanted.tolist()
    with pytest.raises(Refusal, match=r"\[rows, 2\]"):
        _codec(NUMBERS).decode(_body(tensor | {"shape": [4, 1]}))
    with pytest.raises(Refusal, match=r"row 1: 0.1\d* is not true or false"):
        _codec(NUMBERS, booleans=("a",)).decode(_body(tensor))


ELEMENTS = {
    "BOOL": st.booleans(), "FP16": st.floats(width=16, allow_nan=False), "FP32": st.floats(width=32, allow_nan=False),
    "FP64": st.floats(allow_nan=False), "BYTES": st.text(st.characters(exclude_categories=["Cs"])),
}  # fmt: skip


@st.composite
def _arrays(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    kind = draw(st.sampled_from(list(TYPES)))
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=4))
    dtype = TYPES[kind]
    if kind == "BYTES":
        flat = draw(st.lists(ELEMENTS[kind], min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        out = np.empty(len(flat), dtype=object)
        out[:] = flat
        return kind, out.reshape(shape)
    return kind, draw(hnp.arrays(dtype, shape, elements=ELEMENTS[kind] if kind in ELEMENTS else hnp.from_dtype(dtype)))


def _same(got: np.ndarray, wanted: np.ndarray) -> bool:
    if wanted.dtype == object:
        return got.tolist() == wanted.tolist()
    return got.dtype == wanted.dtype and got.tobytes() == wanted.tobytes() and got.shape == wanted.shape


@settings(max_examples=40)
@given(_arrays())
def test_binary_and_json_say_the_same(made: tuple[str, np.ndarray]) -> None:
    kind, values = made
    layout = Layout((TensorSpec("x", kind, (None, *values.shape[1:])),), (), True, False)
    codec = Codec("m", "1", layout, Limits())
    raw = join_texts(values.ravel().tolist()) if kind == "BYTES" else values.tobytes()
    described = {"name": "x", "shape": list(values.shape), "datatype": kind}
    head = orjson.dumps({"inputs": [described | {"parameters": {"binary_data_size": len(raw)}}]})
    binary = codec.decode(head + raw, len(head))
    assert _same(Tensor(kind, values.shape, binary.pieces[0]).array(), values)
    if np.all(np.isfinite(values.astype(np.float64))) if kind.startswith("FP") else True:
        text = codec.decode(orjson.dumps({"inputs": [described | {"data": values.ravel().tolist()}]}))
        assert bytes(text.pieces[0]) == bytes(binary.pieces[0])


@settings(max_examples=40)
@given(_arrays())
def test_frames_carry_arrays_bit_for_bit(made: tuple[str, np.ndarray]) -> None:
    values = made[1]
    frame = wire.frame(wire.RUN, 7, [tensor_of(values), tensor_of(values[:1])], milliseconds=1.5)
    size, kind, count, _, ticket, ms = wire.HEAD.unpack_from(frame)
    assert (size + 4, kind, count, ticket, ms) == (len(frame), wire.RUN, 2, 7, 1.5)
    first, second = tensors_of(frame, count)
    assert _same(first.array(), values)
    assert _same(second.array(), values[:1])


@settings(max_examples=40)
@given(_arrays(), st.integers(1, 4))
def test_a_query_in_slices_is_the_whole_query(made: tuple[str, np.ndarray], most: int) -> None:
    kind, values = made
    raw = tensor_of(values).data
    parts = Query(len(values), [raw], (values.shape[1:],)).split([kind], most)
    assert all(p.rows <= most for p in parts)
    assert sum(p.rows for p in parts) == len(values)
    assert b"".join(bytes(p.pieces[0]) for p in parts) == raw


@settings(max_examples=40)
@given(
    st.binary(max_size=300),
    st.integers(-5, 400),
    st.lists(
        st.tuples(
            st.sampled_from(["x", "y", ""]),
            st.sampled_from([*TYPES, "FP99"]),
            st.lists(st.integers(-2, 2**40), max_size=4),
            st.integers(-3, 2**40),
        ),
        max_size=3,
    ),
)
@example(b"\xff" * 12, 0, [("x", "BYTES", [1, 3], 12)])
@example(b"\x04\x00\x00\x00abcd", 0, [("x", "BYTES", [1], 8)])
def test_no_bytes_bring_the_decoder_down(tail: bytes, shift: int, inputs: list[tuple[Any, ...]]) -> None:
    listed = [{"name": n, "datatype": k, "shape": s, "parameters": {"binary_data_size": b}} for n, k, s, b in inputs]
    head = orjson.dumps({"inputs": listed})
    statuses = set()
    for layout in (PLAIN, COLUMNS, NUMBERS):
        for length in (len(head), len(head) + shift):
            try:
                query = _codec(layout).decode(head + tail, length)
            except Refusal as error:
                statuses.add(error.status)
            else:
                assert query.rows >= 1
    assert statuses <= {400, 413}


@given(st.binary(max_size=200))
def test_no_json_brings_the_decoder_down(body: bytes) -> None:
    with pytest.raises(Refusal):
        _codec().decode(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "inputs", "id", "outputs", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(
        {
            "inputs": JSON
            | st.lists(
                st.fixed_dictionaries(
                    {"name": st.just("x"), "shape": JSON, "datatype": st.sampled_from(list(TYPES)), "data": JSON}
                ),
                max_size=2,
            )
        },
        optional={"id": JSON, "outputs": JSON, "parameters": JSON},
    )
)
def test_no_document_brings_the_decoder_down(document: Any) -> None:
    body = json.dumps(document).encode()
    statuses = set()
    for layout in (PLAIN, COLUMNS):
        try:
            assert _codec(layout).decode(body).rows >= 1
        except Refusal as error:
            statuses.add(error.status)
    assert statuses <= {400, 413}


def test_an_answer_to_some_rows_of_a_batch() -> None:
    outputs = Outputs(PLAIN.outputs, [tensor_of(np.arange(8, dtype=np.float32).reshape(4, 2))], 1.0)
    codec = _codec()
    body, size = codec.encode(Query(1, [], ((3,),), id='a"b'), outputs, 1)
    tensor = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 3.0]}
    assert json.loads(body) == {"model_name": "m", "model_version": "1", "id": 'a"b', "outputs": [tensor]}
    assert size is None
    body, size = codec.encode(Query(2, [], ((3,),), outputs=((0, True),)), outputs, 2)
    assert size is not None
    assert json.loads(body[:size])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(body[size:], np.float32).tolist() == [4, 5, 6, 7]


@settings(max_examples=40)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)))
def test_texts_of_rows_are_json(values: np.ndarray) -> None:
    for row, text in zip(values.reshape(len(values), -1), row_texts(values), strict=True):
        got = [np.nan if v is None else v for v in json.loads(b"[" + text + b"]")]
        wanted = np.where(np.isfinite(row), row, np.nan)
        assert np.array_equal(np.array(got, np.float32), wanted, equal_nan=True)


def test_joined_batches_are_one() -> None:
    parts = [Outputs(PLAIN.outputs, [tensor_of(np.full((n, 2), n, np.float32))], 1.0) for n in (1, 2)]
    assert joined(parts).array(0).tolist() == [[1, 1], [2, 2], [2, 2]]


@settings(max_examples=40)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(2)), elements=st.integers(-9, 9).map(float)),
    st.integers(0, 3),
)
def test_answers_made_for_a_whole_batch_are_those_of_each_row(values: np.ndarray, more: int) -> None:
    specs = tuple(TensorSpec(f"y{k}", "FP32", (None, 2)) for k in range(more + 1))
    codec = Codec("m", "1", Layout(PLAIN.inputs, specs, True, False), SMALL)
    tensors = [tensor_of(values + np.float32(k)) for k in range(more + 1)]
    bodies = codec.rows(Outputs(specs, tensors, 1.0))
    for row, body in enumerate(bodies):
        wanted = [
            {"name": s.name, "datatype": "FP32", "shape": [1, 2], "data": [float(v) for v in t.array()[row]]}
            for s, t in zip(specs, tensors, strict=True)
        ]
        assert json.loads(body) == {"model_name": "m", "model_version": "1", "outputs": wanted}
        query = Query(1, [], ((3,),), outputs=tuple((k, True) for k in range(more + 1)))
        raw, size = codec.encode(query, Outputs(specs, tensors, 1.0), row)
        assert size is not None
        assert raw[size:] == b"".join(t.array()[row].tobytes() for t in tensors)
        assert [o["parameters"]["binary_data_size"] for o in json.loads(raw[:size])["outputs"]] == [8] * (more + 1)


def test_an_output_that_is_not_as_declared_is_still_answered_as_it_is() -> None:
    """What a graph says of its axes may be wrong."""
    outputs = Outputs(PLAIN.outputs, [tensor_of(np.arange(6, dtype=np.float32).reshape(2, 3))], 1.0)
    body, size = _codec().encode(Query(1, [], ((3,),), outputs=((0, True),)), outputs, 1)
    assert size is not None
    assert json.loads(body[:size])["outputs"][0]["shape"] == [1, 3]
    assert np.frombuffer(body[size:], np.float32).tolist() == [3, 4, 5]


@settings(max_examples=40)
@given(_arrays(), st.booleans())
def test_frames_in_shared_memory_carry_arrays_bit_for_bit(made: tuple[str, np.ndarray], large: bool) -> None:
    kind, values = made
    raw = bytes(tensor_of(values).data)
    parts = [raw] * (1 + large * (wire.SHARED_BYTES // max(1, len(raw))))
    shape = (len(parts) * len(values), *values.shape[1:])
    area = memoryview(bytearray(4 * wire.SHARED_BYTES))
    frame = wire.frame_of_parts(wire.RUN, 7, [(kind, shape, parts), ("FP32", (1,), [b"\0" * 4])], area=2, shared=area)
    size, _, count, used, _, _ = wire.HEAD.unpack_from(frame)
    assert size + 4 == len(frame)
    assert used == (2 if sum(map(len, parts)) >= wire.SHARED_BYTES - 16 and used else 0)
    first, second = tensors_of(frame, count, area if used else None)
    assert bytes(first.data) == b"".join(parts)
    assert first.shape == shape
    assert second.array().tolist() == [0.0]
