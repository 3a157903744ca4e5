"""The protocol as it is read from its file is the public one."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.core.errors import InternalError
from tidemill.deploy.grpc import protocol


def fields(descriptor: Any) -> dict[str, tuple[int, int, bool, str]]:
    """Number, type, repetition and message of each field."""
    return {
        f.name: (f.number, f.type, _repeated(f), f.message_type.full_name if f.message_type else "")
        for f in descriptor.fields
    }


def _repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED) if repeated is None else bool(repeated)


def everything(classes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Fields of all messages and of those inside them, by full name."""
    out: dict[str, dict[str, Any]] = {}

    def walk(descriptor: Any) -> None:
        out[descriptor.full_name] = fields(descriptor)
        for nested in descriptor.nested_types:
            walk(nested)

    for one in classes.values():
        walk(one.DESCRIPTOR)
    return out


def test_numbers_and_types_are_those_of_another_implementation() -> None:
    theirs_module = pytest.importorskip("tritonclient.grpc.service_pb2")
    ours = everything(protocol.messages())
    theirs = everything({n: getattr(theirs_module, n) for n in protocol.messages()})
    for message, found in ours.items():
        for name, facts in found.items():
            assert theirs[message][name] == facts, f"{message}.{name}"


def test_maps_are_maps_and_choices_are_choices() -> None:
    messages = protocol.messages()
    request = messages["ModelInferRequest"]()
    request.parameters["a"].bool_param = True
    request.inputs.add().parameters["b"].int64_param = -3
    read = messages["ModelInferRequest"].FromString(request.SerializeToString())
    assert read.parameters["a"].WhichOneof("parameter_choice") == "bool_param"
    assert read.inputs[0].parameters["b"].int64_param == -3
    read.parameters["a"].string_param = "x"
    assert not read.parameters["a"].HasField("bool_param")


def test_every_call_has_its_messages() -> None:
    for name, pair in protocol.calls().items():
        assert pair == (f"{name}Request", f"{name}Response")
        assert set(pair) <= set(protocol.messages())


def test_a_compiler_of_protocol_buffers_reads_the_same(tmp_path: Any) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    from google.protobuf import descriptor_pb2

    (tmp_path / "protocol.proto").write_text(protocol.proto(), encoding="utf-8")
    out = tmp_path / "out.pb"
    assert (
        protoc.main(["protoc", f"-I{tmp_path}", f"--descriptor_set_out={out}", str(tmp_path / "protocol.proto")]) == 0
    )
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    ours = protocol.parse(protocol.proto())
    for file in (compiled, ours):
        file.name = ""
        for message in file.message_type:
            _plain(message)
    assert compiled == ours


def _plain(message: Any) -> None:
    """Leave out what only a compiler writes: names for JSON."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _plain(nested)


@pytest.mark.parametrize(
    "text", ["enum A {}", "message A { strange b = 1; }", "message A { string b 1; }", "message A {"]
)
def test_what_it_does_not_know_is_an_error(text: str) -> None:
    with pytest.raises(InternalError, match=r"protocol\.proto"):
        protocol.parse(f'syntax = "proto3"; package p; {text}')
