"""A request of a form that was read before means what it means to a codec that reads it for the first time."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from tests.deploy.engine.test_v2 import COLUMNS, NUMBERS, PLAIN, SMALL

from tidemill.deploy.engine.layout import Layout, TensorSpec
from tidemill.deploy.engine.query import Query
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.v2 import Codec

TRUTH = Layout((TensorSpec("x", "BOOL", (None, 3)),), (TensorSpec("y", "BOOL", (None, 3)),), True, False)
Seen = tuple[Any, ...]


def _codec(layout: Layout = PLAIN) -> Codec:
    return Codec("m", "1", layout, SMALL)


def _seen(codec: Codec, body: bytes, head: int | None = None) -> Seen:
    """What a codec makes of a request: all of the query, or the status and the words of the refusal."""
    try:
        query = codec.decode(body, head)
    except Refusal as error:
        return error.status, error.code, error.message
    return query.rows, [bytes(p) for p in query.pieces], query.shapes, query.id, query.outputs


def _body(data: Any, *, name: str = "x", shape: Any = (1, 3), kind: str = "FP32", **more: Any) -> bytes:
    tensor = {"name": name, "shape": list(shape), "datatype": kind, "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def _known(codec: Codec) -> int:
    return len(codec._forms._texts)


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
data = st.lists(
    numbers | st.none() | st.booleans() | st.text("],[{}\"'0", max_size=3) | st.lists(numbers, max_size=3), max_size=5
)


@settings(max_examples=200)
@given(data, st.sampled_from([PLAIN, NUMBERS]), st.booleans())
@example([1.0, 2.0, 3.0], PLAIN, True)
def test_what_was_seen_before_changes_no_answer(values: list[Any], layout: Layout, compact: bool) -> None:
    name, shape = ("x", (1, 3)) if layout is PLAIN else ("input", (1, 2))
    learned = _codec(layout)
    first = _body([0.5] * shape[1], name=name, shape=shape)
    assert _seen(learned, first)[0] == 1
    assert _known(learned) == 1
    body = _body(values, name=name, shape=shape)
    if compact:
        body = body.replace(b", ", b",")
    assert _seen(learned, body) == _seen(_codec(layout), body)


def test_only_the_numbers_of_a_known_form_are_read() -> None:
    codec = _codec()
    codec.decode(_body([1, 2, 3]))
    query = codec.decode(_body([4, 5.5, -6]))
    assert np.frombuffer(query.pieces[0], np.float32).tolist() == [4, 5.5, -6]
    assert _known(codec) == 1
    codec.decode(_body([7, 8, 9], outputs=[{"name": "y"}]))
    assert codec.decode(_body([7, 8, 9], outputs=[{"name": "y"}])).outputs == ((0, False),)
    assert _known(codec) == 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}],"id":"q"}',  # ids differ every time
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[[1,2,3]]}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[9],"data":[1,2,3]}]}',  # the last one counts
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","\\u0064ata":[1,2,3]}]}',
        b'{"data":[1,2,3],"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}',
    ],
)
def test_a_form_that_is_not_certain_is_not_remembered(body: bytes) -> None:
    codec = _codec()
    assert _seen(codec, body)[0] == 1
    assert _known(codec) == 0


def test_forms_that_never_come_again_are_forgotten() -> None:
    codec = _codec()
    for k in range(200):
        codec.decode(_body([1, 2, 3], name="x", shape=[1, 3], more=k))
    assert 0 < _known(codec) <= 4


heads = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "input", "a"]),
        "shape": st.sampled_from([[1, 3], [2, 3], [1, 2]]),
        "datatype": st.sampled_from(["FP32", "FP64", "BOOL", "BYTES", "INT32"]),
    },
    optional={"parameters": st.fixed_dictionaries({"binary_data_size": st.integers(0, 32)})},
)


@settings(max_examples=200)
@given(heads, st.lists(st.binary(max_size=48), min_size=1, max_size=3), st.sampled_from([PLAIN, NUMBERS, TRUTH]))
@example(
    {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}, [b"\1" * 12] * 2, PLAIN
)
@example(
    {"name": "x", "shape": [1, 3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}}, [b"\1\0\1", b"\2\0\1"],
    TRUTH,
)  # fmt: skip
def test_raw_bytes_behind_a_known_head_are_read_as_behind_a_new_one(
    head: dict[str, Any], tails: list[bytes], layout: Layout
) -> None:
    told = json.dumps({"inputs": [head]}).encode()
    learned = _codec(layout)
    for tail in tails:
        assert _seen(learned, told + tail, len(told)) == _seen(_codec(layout), told + tail, len(told))


def test_numbers_in_json_before_an_empty_tail_are_not_taken_for_raw_bytes() -> None:
    codec = _codec()
    body = _body([1, 2, 3])
    for _ in range(2):
        assert bytes(codec.decode(body, len(body)).pieces[0]) == np.array([1, 2, 3], np.float32).tobytes()


def test_columns_are_never_taken_as_they_come() -> None:
    codec = _codec(COLUMNS)
    assert not codec._goes_as_it_is([{"name": "a", "datatype": "FP64"}])
    assert isinstance(_codec(NUMBERS).decode(_body([1, 2], name="input", shape=[1, 2], kind="FP64")), Query)
