"""Values survive the change of envelope, and what is no tensor is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.deploy.asking import Reply
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.wire import TYPES, join_texts, split_texts
from tidemill.deploy.grpc import calls, protocol

NUMBERS = [name for name in TYPES if name not in ("BYTES", "FP16")]


def message(name: str, **values: Any) -> Any:
    return protocol.messages()[name](**values)


def _values(kind: str) -> st.SearchStrategy[list[Any]]:
    dtype = TYPES[kind]
    if kind == "BOOL":
        return st.lists(st.booleans())
    if dtype.kind == "f":
        return st.lists(st.floats(width=32 if kind == "FP32" else 64))
    bounds = np.iinfo(dtype)
    return st.lists(st.integers(int(bounds.min), int(bounds.max)))


@given(st.data())
def test_typed_values_become_raw_and_come_back(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(NUMBERS))
    values = data.draw(_values(kind))
    tensor = message("ModelInferRequest").inputs.add(name="x", datatype=kind, shape=[len(values)])
    raw = np.array(values, dtype=TYPES[kind]).tobytes()
    calls.unpack(tensor.contents, kind, raw)
    assert calls.packed(tensor) == raw


@given(st.lists(st.text()))
def test_texts_become_raw_and_come_back(texts: list[str]) -> None:
    tensor = message("ModelInferRequest").inputs.add(name="x", datatype="BYTES", shape=[len(texts)])
    calls.unpack(tensor.contents, "BYTES", join_texts(texts))
    assert split_texts(calls.packed(tensor)) == texts


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.text(max_size=5))
def test_raw_tensors_are_not_touched(blobs: list[bytes], identity: str) -> None:
    request = message("ModelInferRequest", id=identity, raw_input_contents=blobs)
    for number in range(len(blobs)):
        request.inputs.add(name=f"t{number}", datatype="FP32", shape=[number])
    body, size = calls.body_of(request)
    document = orjson.loads(body[:size])
    assert body[size:] == b"".join(blobs)
    assert [t["parameters"]["binary_data_size"] for t in document["inputs"]] == [len(b) for b in blobs]
    assert document.get("id", "") == identity


def test_two_forms_at_once_are_refused() -> None:
    request = message("ModelInferRequest", raw_input_contents=[b"1234"])
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    with pytest.raises(Refusal, match="not in both"):
        calls.body_of(request)


def test_raw_tensors_need_an_input_each() -> None:
    request = message("ModelInferRequest", raw_input_contents=[b"1234", b"1234"])
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    with pytest.raises(Refusal, match="1 inputs, but 2 raw_input_contents"):
        calls.body_of(request)


@pytest.mark.parametrize(
    ("kind", "field", "values", "word"),
    [
        ("FP32", "fp64_contents", [1.0], "belong in fp32_contents, not in fp64_contents"),
        ("INT8", "int_contents", [128], "128, which does not fit into INT8"),
        ("UINT16", "uint_contents", [3, 65536], "65536, which does not fit into UINT16"),
        ("INT16", "int_contents", [-32769, 4], "-32769, which does not fit into INT16"),
        ("FP16", "fp32_contents", [1.0], "send raw_input_contents"),
    ],
)
def test_values_of_another_type_are_refused(kind: str, field: str, values: list[Any], word: str) -> None:
    tensor = message("ModelInferRequest").inputs.add(name="x", datatype=kind, shape=[len(values)])
    getattr(tensor.contents, field).extend(values)
    with pytest.raises(Refusal, match=word):
        calls.packed(tensor)


def _reply(outputs: list[tuple[str, str, list[int], bytes]]) -> Reply:
    described = [
        {"name": n, "datatype": k, "shape": s, "parameters": {"binary_data_size": len(b)}} for n, k, s, b in outputs
    ]
    head = orjson.dumps({"model_name": "m", "model_version": "a1", "id": "q", "outputs": described})
    out = b"HTTP/1.1 200 OK\r\ninference-header-content-length: %d\r\n\r\n" % len(head)
    return Reply.read(out + head + b"".join(b for *_, b in outputs))


@pytest.mark.parametrize("raw", [True, False])
def test_an_answer_has_the_form_of_its_request(raw: bool) -> None:
    reply = _reply([("p", "FP32", [2], np.float32([1, np.nan]).tobytes()), ("l", "BYTES", [1], join_texts(["ü"]))])
    answer = calls.fill(message("ModelInferResponse"), reply, raw=raw)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "a1", "q")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [("p", "FP32", [2]), ("l", "BYTES", [1])]
    if raw:
        assert list(answer.raw_output_contents) == [np.float32([1, np.nan]).tobytes(), join_texts(["ü"])]
    else:
        assert not answer.raw_output_contents
        assert answer.outputs[0].contents.fp32_contents[0] == 1
        assert np.isnan(answer.outputs[0].contents.fp32_contents[1])
        assert list(answer.outputs[1].contents.bytes_contents) == ["ü".encode()]


def test_half_precision_is_raw_in_any_case() -> None:
    reply = _reply([("p", "FP16", [2], np.float16([1, 2]).tobytes())])
    answer = calls.fill(message("ModelInferResponse"), reply, raw=False)
    assert list(answer.raw_output_contents) == [np.float16([1, 2]).tobytes()]


@pytest.mark.parametrize("name", ["", "x" * (calls.MOST_NAME + 1)])
def test_no_model_has_such_a_name(name: str) -> None:
    with pytest.raises(Refusal, match="There is no model"):
        calls.path_of(name)


@given(st.text(min_size=1, max_size=20))
def test_any_name_becomes_one_part_of_a_path(name: str) -> None:
    try:
        path = calls.path_of(name, name)
    except UnicodeEncodeError:  # half of a surrogate pair: no message can hold it
        return
    assert path.count(b"/") == 5
    assert path.isascii()
