"""The messages of ``protocol.proto`` as classes, made when they are first needed.

The file is read here, so no compiler of protocol buffers is needed, neither to build nor to run. The messages stand in
a pool of their own: other packages of the same process may bring theirs under the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]  # no types

from tidemill.core.errors import InternalError

SERVICE = "GRPCInferenceService"
_FIELD = descriptor_pb2.FieldDescriptorProto
_PLAIN = {
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int64": _FIELD.TYPE_INT64,
    "uint64": _FIELD.TYPE_UINT64,
    "int32": _FIELD.TYPE_INT32,
    "uint32": _FIELD.TYPE_UINT32,
    "bool": _FIELD.TYPE_BOOL,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
_COMMENT = re.compile(r"//[^\n]*")
_TOKEN = re.compile(r'"[^"]*"|[A-Za-z_][\w.]*|\d+|[{}()<>=;,]')


def proto() -> str:
    """The protocol as text, from which clients in any language are made."""
    return files("tidemill.deploy.grpc").joinpath("protocol.proto").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def messages() -> dict[str, Any]:
    r"""Message classes by name.

    Examples
    --------
    >>> request = messages()["ModelReadyRequest"](name="fraud")
    >>> request.SerializeToString()
    b'\n\x05fraud'
    """
    described = parse(proto())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(described.SerializeToString())
    return {
        m.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{described.package}.{m.name}"))
        for m in described.message_type
    }


@lru_cache(maxsize=1)
def calls() -> dict[str, tuple[str, str]]:
    """Names of the request and of the response by the name of the call.

    Examples
    --------
    >>> calls()["ServerLive"]
    ('ServerLiveRequest', 'ServerLiveResponse')
    """
    described = parse(proto())
    return {
        m.name: (m.input_type.rpartition(".")[2], m.output_type.rpartition(".")[2]) for m in described.service[0].method
    }


def parse(text: str) -> Any:
    """Read the part of the language that ``protocol.proto`` uses: messages, maps, one-ofs, a service of plain calls.

    Returns
    -------
    google.protobuf.descriptor_pb2.FileDescriptorProto
        What a compiler of protocol buffers makes of it.

    Raises
    ------
    InternalError
        Where something else stands.

    Examples
    --------
    >>> file = parse('syntax = "proto3"; package p; message A { repeated string b = 7; }')
    >>> file.message_type[0].field[0].number
    7
    """
    return _Reader(text).file()


class _Reader:
    """Reads words one after the other."""

    def __init__(self, text: str) -> None:
        self._words: Iterator[str] = iter(_TOKEN.findall(_COMMENT.sub("", text)))
        self._next = next(self._words, "")
        self._file = descriptor_pb2.FileDescriptorProto(name="tidemill/protocol.proto")

    def file(self) -> Any:
        file = self._file
        while self._next:
            kind = self._take()
            if kind == "syntax":
                self._take("=")
                file.syntax = self._take().strip('"')
                self._take(";")
            elif kind == "package":
                file.package = self._take()
                self._take(";")
            elif kind == "message":
                self._message(file.message_type.add())
            elif kind == "service":
                self._service(file.service.add())
            else:
                raise _strange(kind)
        known = {f".{file.package}.{name}" for name in _names(file.message_type)}
        for message in file.message_type:
            _resolve(message, f".{file.package}", known)
        for service in file.service:
            for method in service.method:
                method.input_type = _found(method.input_type, f".{file.package}", known)
                method.output_type = _found(method.output_type, f".{file.package}", known)
        return file

    def _take(self, wanted: str = "") -> str:
        word = self._next
        if not word or (wanted and word != wanted):
            raise _strange(word, wanted)
        self._next = next(self._words, "")
        return word

    def _message(self, message: Any) -> None:
        message.name = self._take()
        self._take("{")
        while self._next != "}":
            if self._next == "message":
                self._take()
                self._message(message.nested_type.add())
            elif self._next == "oneof":
                self._take()
                message.oneof_decl.add().name = self._take()
                self._take("{")
                while self._next != "}":
                    self._field(message).oneof_index = len(message.oneof_decl) - 1
                self._take("}")
            elif self._next == "map":
                self._map(message)
            else:
                self._field(message)
        self._take("}")

    def _field(self, message: Any) -> Any:
        field = message.field.add()
        field.label = _FIELD.LABEL_OPTIONAL
        if self._next == "repeated":
            self._take()
            field.label = _FIELD.LABEL_REPEATED
        _set_type(field, self._take())
        self._named(field)
        return field

    def _named(self, field: Any) -> None:
        field.name = self._take()
        self._take("=")
        field.number = int(self._take())
        self._take(";")

    def _map(self, message: Any) -> None:
        """A map is a repeated message with a key and a value."""
        self._take("map")
        self._take("<")
        key = self._take()
        self._take(",")
        value = self._take()
        self._take(">")
        field = message.field.add()
        field.label = _FIELD.LABEL_REPEATED
        self._named(field)
        entry = message.nested_type.add()
        entry.name = "".join(word.capitalize() for word in field.name.split("_")) + "Entry"
        entry.options.map_entry = True
        for number, (name, kind) in enumerate((("key", key), ("value", value)), start=1):
            part = entry.field.add()
            part.name, part.number, part.label = name, number, _FIELD.LABEL_OPTIONAL
            _set_type(part, kind)
        _set_type(field, entry.name)

    def _service(self, service: Any) -> None:
        service.name = self._take()
        self._take("{")
        while self._next != "}":
            self._take("rpc")
            method = service.method.add()
            method.name = self._take()
            self._take("(")
            method.input_type = self._take()
            self._take(")")
            self._take("returns")
            self._take("(")
            method.output_type = self._take()
            self._take(")")
            self._take(";")
        self._take("}")


def _set_type(field: Any, kind: str) -> None:
    plain = _PLAIN.get(kind)
    if plain is not None:
        field.type = plain
    else:
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = kind


def _names(messages: Any, above: str = "") -> list[str]:
    """Names of messages and of those inside them, with the names around them."""
    out: list[str] = []
    for message in messages:
        out.append(above + message.name)
        out += _names(message.nested_type, f"{above}{message.name}.")
    return out


def _resolve(message: Any, scope: str, known: set[str]) -> None:
    inside = f"{scope}.{message.name}"
    for field in message.field:
        if field.type_name:
            field.type_name = _found(field.type_name, inside, known)
    for nested in message.nested_type:
        _resolve(nested, inside, known)


def _found(name: str, scope: str, known: set[str]) -> str:
    """The full name of a message, looked up from the inside to the outside."""
    while scope:
        if f"{scope}.{name}" in known:
            return f"{scope}.{name}"
        scope = scope.rpartition(".")[0]
    raise _strange(name)


def _strange(word: str, wanted: str = "") -> InternalError:
    more = f" in place of {wanted!r}" if wanted else ""
    return InternalError(f"protocol.proto can't be read: {word!r}{more}.")
