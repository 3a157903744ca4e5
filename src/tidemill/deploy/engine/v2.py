"""The Open Inference Protocol, version 2: requests as JSON or with binary tensors, and answers in the same forms.

Numbers
-------
JSON has no NaN: ``null`` stands for it in a floating tensor, here and in answers. Binary floats may be NaN or infinite;
for the columns of a bundle NaN means missing. Integers must fit their type. A shape is checked against what the model
takes and its product against the length of the data before anything is made of it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from tidemill.core.errors import nearest_hint
from tidemill.deploy.engine.files import FileQuery, from_base64
from tidemill.deploy.engine.forms import Forms
from tidemill.deploy.engine.layout import ENCODED, Layout, TensorSpec
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.query import Outputs, Query
from tidemill.deploy.engine.refusal import Refusal, bad_request, invalid_input
from tidemill.deploy.engine.tensors import binary_size, cells_from_bytes, from_bytes, from_json, raw_bytes
from tidemill.deploy.engine.wire import TYPES, join_cells, join_texts

INPUT = "input"
"""Name of the one tensor of all numbers that stands for the columns of a bundle that has no other."""
_FLOATS = {"FP32": "f", "FP64": "d"}
_MOST_AXES = 8
_MOST_FORMS = 256
_Tensors = Mapping[str, tuple[str, tuple[int, ...], Any]]


class Codec:
    """Reads requests for one model and writes its answers.

    Parameters
    ----------
    name, version : str
        How the model is called in answers.
    layout : Layout
        What it takes and gives.
    limits : Limits
        Bounds of rows and elements.
    booleans : collection of str
        Graph inputs that take 0, 1 or NaN alone.
    """

    def __init__(self, name: str, version: str, layout: Layout, limits: Limits, booleans: Sequence[str] = ()) -> None:
        self.name = name
        self.version = version
        self.layout = layout
        self._limits = limits
        self._numbers = layout.groups[0] if layout.columns and layout.inputs_of_numbers else ()
        self._specs = {spec.name: spec for spec in layout.inputs}
        self._booleans = [j for j, n in enumerate(self._numbers) if n in set(booleans)]
        self._whole = layout.columns and len(self._numbers) == len(layout.inputs) and INPUT not in self._specs
        self._outputs = {spec.name: i for i, spec in enumerate(layout.outputs)}
        head = orjson.dumps({"model_name": name, "model_version": version})
        self._head = head[:-1]
        self._opening = [
            b'{"name":' + orjson.dumps(o.name) + b',"datatype":"' + o.type.encode() + b'","shape":['
            for o in layout.outputs
        ]
        self._all = tuple((i, False) for i in range(len(layout.outputs)))
        self._forms = Forms()
        self._binary: dict[Any, tuple[bytes, tuple[tuple[int, int], ...]] | None] = {}
        one = layout.outputs
        self._single = (
            [a + _dims((1, *o.shape[1:])) + b'],"data":[' for a, o in zip(self._opening, one, strict=True)]
            if layout.batches and all(min(o.shape[1:], default=1) >= 0 for o in one)
            else None
        )
        self.gives_rows = bool(self._single)
        """True where `rows` can write whole answers: each row of each output has a size that is known."""

    @property
    def takes_matrix(self) -> bool:
        """True where one tensor called ``input`` may stand for all columns."""
        return self._whole

    # ----------------------------------------------------------------------------------------------------- requests

    def decode(
        self, body: bytes, json_bytes: int | None = None, complete: Callable[[_Tensors], _Tensors] | None = None
    ) -> Query:
        """Read a request.

        Parameters
        ----------
        body : bytes
            All of it.
        json_bytes : int, optional
            Value of ``Inference-Header-Content-Length``: where the JSON ends and binary tensors begin.
        complete : callable, optional
            Gives the tensors with those that the caller left out: type, shape and values by name.

        Raises
        ------
        Refusal
            400 with the tensor, and what is expected of it.
        """
        query = self._forms.read_text(body) if json_bytes is None else self._forms.read_binary(body, json_bytes)
        if query is not None:
            return query
        try:
            document = orjson.loads(body if json_bytes is None else _head(body, json_bytes))
        except orjson.JSONDecodeError as error:
            raise bad_request(f"The body is not JSON: {error}.") from error
        if not isinstance(document, dict) or not isinstance(inputs := document.get("inputs"), list) or not inputs:
            raise bad_request('The body must be an object with a list "inputs" that holds at least one tensor.')
        tail = None if json_bytes is None else memoryview(body)[json_bytes:]
        query = quick = self._quick(inputs) if tail is None else None
        if query is None:
            query = self._decode_inputs(inputs, tail, complete)
        if "outputs" in document or "parameters" in document:
            query.outputs = self._wanted(document)
        identity = document.get("id")
        if identity is None:
            if quick is not None:
                code = _FLOATS[inputs[0]["datatype"]]
                self._forms.learn_text(body, document, quick, code, widened=self._whole and code == "f")
            elif tail and self._goes_as_it_is(inputs):
                self._forms.learn_binary(body[:json_bytes], len(tail), query)
        elif not isinstance(identity, str):
            raise bad_request('"id" must be a text.')
        else:
            query.id = identity
        return query

    def _goes_as_it_is(self, inputs: list[Any]) -> bool:
        """True where the one raw tensor of a request reaches the worker unchanged, whatever its bytes are."""
        if len(inputs) != 1 or inputs[0]["datatype"] in ("BYTES", "BOOL"):
            return False
        if not self.layout.columns:
            return True
        return self._whole and not self._booleans and inputs[0]["name"] == INPUT and inputs[0]["datatype"] == "FP64"

    def _quick(self, inputs: list[Any]) -> Query | None:
        """One floating tensor with flat data that fits: the common case, without a detour."""
        if len(inputs) != 1:
            return None
        if not self._whole and (len(self.layout.inputs) != 1 or not self.layout.batches):
            return None
        try:
            only = inputs[0]
            kind, shape, data = only["datatype"], only["shape"], only["data"]
            rows, width = shape
            code = _FLOATS[kind]
            if "parameters" in only:
                return None
            values = array(code, data)
        except (KeyError, TypeError, ValueError):
            return None
        if type(rows) is not int or type(width) is not int or rows * width != len(values) or rows < 1:
            return None
        if self._whole:
            if only.get("name") != INPUT or width != len(self._numbers) or self._booleans:
                return None
            piece = values if code == "d" else array("d", values)
        else:
            spec = self.layout.inputs[0]
            if only.get("name") != spec.name or kind != spec.type or len(spec.dims) != 2:
                return None
            if spec.dims[1] is not None and spec.dims[1] != width:
                return None
            piece = values
        if rows > self._limits.rows or len(values) > self._limits.elements:
            return None
        return Query(rows, [piece.tobytes()], ((width,),))

    def _decode_inputs(
        self, inputs: list[Any], tail: memoryview | None, complete: Callable[[_Tensors], _Tensors] | None
    ) -> Query:
        tensors: dict[str, tuple[str, tuple[int, ...], Any]] = {}
        encoded = self.layout.encoded
        at = 0
        for item in inputs:
            name, kind, shape = self._described(item)
            if name in tensors:
                raise bad_request(f"The tensor {name!r} is there twice.")
            size = binary_size(item, name)
            cells = kind == "BYTES" and bool(encoded) and name == encoded
            if size is None:
                values = from_json(name, kind, shape, item.get("data"))
                tensors[name] = kind, shape, self._cells(name, values) if cells else values
                continue
            if tail is None:
                raise bad_request(
                    f"The tensor {name!r} says that it is binary, but the header Inference-Header-Content-Length is"
                    " missing."
                )
            if at + size > len(tail):
                raise bad_request(f"The tensor {name!r} has {size:,} bytes, but only {len(tail) - at:,} are left.")
            read = cells_from_bytes if cells and not self.layout.texts else from_bytes
            tensors[name] = kind, shape, read(name, kind, shape, tail[at : at + size])
            at += size
        if tail is not None and at != len(tail):
            raise bad_request(f"{len(tail) - at:,} bytes follow the last tensor.")
        if not self.layout.columns:
            given = tensors.get(encoded) if encoded else None
            return self._tensors(tensors) if given is None or given[0] != "BYTES" else self._encoded(tensors)
        whole = self._whole and len(tensors) == 1 and INPUT in tensors
        return self._columns(tensors if complete is None or whole else complete(tensors))

    def _cells(self, name: str, texts: list[str]) -> Sequence[str | bytes]:
        """Files in JSON are Base64; texts are themselves."""
        if self.layout.texts:
            return texts
        most = self._limits.file_bytes
        return [from_base64(v, f"The tensor {name!r}, element {n:,}", most) for n, v in enumerate(texts, start=1)]

    def _encoded(self, tensors: _Tensors) -> Query:
        """One file, or text, for each row, which the worker encodes."""
        name = self.layout.encoded
        _, shape, cells = tensors[name]
        if len(tensors) > 1 or shape not in ((len(cells),), (len(cells), 1)):
            raise invalid_input(
                f"Its cells go alone, as one tensor {name!r} of the datatype BYTES and the shape [{len(cells)}]."
            )
        if self.layout.texts:
            return Query(len(cells), [join_texts(cells)], ENCODED)
        most = self._limits.file_bytes
        if any(len(cell) > most for cell in cells):
            raise Refusal(413, "file_too_large", f"A file may have {most:,} bytes.")
        names = tuple(f"The tensor {name!r}, element {n:,}," for n in range(1, len(cells) + 1))
        return FileQuery(len(cells), [join_cells(cells)], ENCODED, names=names)

    def _described(self, item: Any) -> tuple[str, str, tuple[int, ...]]:
        if not isinstance(item, dict):
            raise bad_request("Every input must be an object.")
        name, kind, shape = item.get("name"), item.get("datatype"), item.get("shape")
        if not isinstance(name, str):
            raise bad_request('Every input needs a text "name".')
        if not isinstance(kind, str) or kind not in TYPES:
            raise bad_request(f"The tensor {name!r} needs a datatype, one of {', '.join(TYPES)}.")
        if (
            not isinstance(shape, list)
            or not 1 <= len(shape) <= _MOST_AXES
            or any(type(d) is not int or d < 0 for d in shape)
        ):
            raise bad_request(f"The tensor {name!r} needs a shape: a list of 1 to {_MOST_AXES} sizes, none negative.")
        elements = math.prod(shape)
        if elements > self._limits.elements:
            raise bad_request(
                f"The tensor {name!r} has {elements:,} elements; at most {self._limits.elements:,} are taken."
            )
        if shape[0] > self._limits.rows:
            raise Refusal(
                413, "too_many_rows", f"A request may have {self._limits.rows:,} rows, but this one has {shape[0]:,}."
            )
        if elements == 0:
            raise invalid_input(f"The tensor {name!r} is empty: its shape is {shape}.")
        return name, kind, tuple(shape)

    def _columns(self, tensors: _Tensors) -> Query:
        if self._whole and INPUT in tensors and len(tensors) == 1:
            kind, shape, values = tensors[INPUT]
            if kind == "BYTES" or len(shape) != 2 or shape[1] != len(self._numbers):
                raise invalid_input(
                    f"The tensor {INPUT!r} must hold numbers of shape [rows, {len(self._numbers)}], but has "
                    f"{kind} {list(shape)}."
                )
            matrix = np.ascontiguousarray(values.reshape(shape), dtype=np.float64)
            self._check_booleans(matrix)
            return Query(shape[0], [matrix.tobytes()], ((shape[1],),))
        self._require(tensors)
        rows = next(iter(tensors.values()))[1][0]
        pieces: list[bytes] = []
        shapes: list[tuple[int, ...]] = []
        for group in self.layout.groups:
            text = self._specs[group[0]].type == "BYTES"
            columns = [self._column(name, tensors[name], rows, text) for name in group]
            if text:
                pieces.append(join_texts([v for row in zip(*columns, strict=True) for v in row]))
            else:
                matrix = np.array(columns, dtype=np.float64).T
                self._check_booleans(matrix)
                pieces.append(np.ascontiguousarray(matrix).tobytes())
            shapes.append((len(group),))
        return Query(rows, pieces, tuple(shapes))

    def _column(self, name: str, tensor: tuple[str, tuple[int, ...], Any], rows: int, text: bool) -> Any:
        kind, shape, values = tensor
        if shape not in ((rows,), (rows, 1)):
            raise invalid_input(f"The tensor {name!r} must have the shape [{rows}, 1], but has {list(shape)}.")
        if text != (kind == "BYTES"):
            wanted = "BYTES" if text else "FP64, or another type of numbers"
            raise invalid_input(f"The tensor {name!r} must have the datatype {wanted}, but has {kind}.")
        return values if text else values.reshape(rows)

    def _check_booleans(self, matrix: Any) -> None:
        for j in self._booleans:
            column = matrix[:, j]
            bad = ~(np.isin(column, (0.0, 1.0)) | np.isnan(column))
            if bad.any():
                row = int(np.argmax(bad))
                raise invalid_input(
                    f"Column {self._numbers[j]!r}, row {row + 1:,}: {column[row]!s} is not true or false (1 or 0)."
                )

    def _tensors(self, tensors: _Tensors) -> Query:
        self._require(tensors)
        rows = next(iter(tensors.values()))[1][0] if self.layout.batches else 1
        pieces: list[Any] = []
        shapes: list[tuple[int, ...]] = []
        for spec in self.layout.inputs:
            kind, shape, values = tensors[spec.name]
            if kind != spec.type:
                raise invalid_input(f"The tensor {spec.name!r} must have the datatype {spec.type}, but has {kind}.")
            if len(shape) != len(spec.dims) or any(
                d is not None and d != s for d, s in zip(spec.dims, shape, strict=True)
            ):
                raise invalid_input(
                    f"The tensor {spec.name!r} must have the shape {spec.shape}, but has {list(shape)}."
                )
            if self.layout.batches and shape[0] != rows:
                raise invalid_input(f"The tensor {spec.name!r} has {shape[0]:,} rows, but the first one has {rows:,}.")
            pieces.append(raw_bytes(kind, values))
            shapes.append(shape[1:] if self.layout.batches else shape)
        return Query(rows, pieces, tuple(shapes))

    def _require(self, tensors: Mapping[str, Any]) -> None:
        absent = [n for n in self._specs if n not in tensors]
        strange = [n for n in tensors if n not in self._specs]
        if absent:
            near = nearest_hint(absent[0], strange) if strange else ""
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            matrix = f" A single tensor {INPUT!r} of shape [rows, {len(self._numbers)}] would do, too." * self._whole
            raise invalid_input(f"The input {absent[0]!r}{more} is missing. {near}{matrix}".strip())
        if strange:
            raise invalid_input(f"The model has no input {strange[0]!r}. {nearest_hint(strange[0], self._specs)}")

    def _wanted(self, document: Mapping[str, Any]) -> tuple[tuple[int, bool], ...]:
        binary = _flag(document.get("parameters"), "binary_data_output", False)
        wanted = document.get("outputs")
        if wanted is None or wanted == []:
            return tuple((i, binary) for i in range(len(self.layout.outputs)))
        if not isinstance(wanted, list):
            raise bad_request('"outputs" must be a list.')
        out: list[tuple[int, bool]] = []
        for item in wanted:
            name = item.get("name") if isinstance(item, dict) else None
            if not isinstance(name, str):
                raise bad_request('Every output needs a text "name".')
            if name not in self._outputs:
                raise invalid_input(f"The model has no output {name!r}. {nearest_hint(name, self._outputs)}")
            out.append((self._outputs[name], _flag(item.get("parameters"), "binary_data", binary)))
        return tuple(out)

    # ------------------------------------------------------------------------------------------------------ answers

    def rows(self, outputs: Outputs) -> list[bytes]:
        """Whole answers to requests of one row that want all outputs as JSON, for each row of a batch."""
        if outputs.bodies is None:
            assert self._single is not None
            last = len(self._single) - 1
            between = [b"]}," + opening for opening in self._single[1:]]
            first = self._head + b',"outputs":[' + self._single[0]
            join = b"".join
            if last == 0:
                outputs.bodies = [join((first, a, b"]}]}")) for a in outputs.texts(0)]
            elif last == 1:
                middle = between[0]
                pairs = zip(outputs.texts(0), outputs.texts(1), strict=True)
                outputs.bodies = [join((first, a, middle, b, b"]}]}")) for a, b in pairs]
            else:
                columns = [outputs.texts(i) for i in range(last + 1)]
                outputs.bodies = [
                    join((first, a, *(part for pair in zip(between, more, strict=True) for part in pair), b"]}]}"))
                    for a, *more in zip(*columns, strict=True)
                ]
        return outputs.bodies

    def encode(self, query: Query, outputs: Outputs, start: int) -> tuple[bytes, int | None]:
        """Write the answer to rows ``start`` onwards of a batch.

        Returns
        -------
        body : bytes
            JSON, then the binary tensors that were asked for.
        json_bytes : int or None
            Length of the JSON where binary tensors follow.
        """
        stop = start + query.rows
        if query.id is None:
            if query.outputs is None:
                if query.rows == 1 and self._single:
                    return self.rows(outputs)[start], None
            elif (form := self._binary_form(query.outputs, query.rows)) is not None:
                text, wanted = form
                parts = [outputs.raw(i, start, stop, width) for i, width in wanted]
                if None not in parts:
                    return b"".join([text, *parts]), len(text)  # type: ignore[list-item]  # none of them is None
        identity = b"" if query.id is None else b',"id":' + orjson.dumps(query.id)
        texts: list[bytes] = []
        blobs: list[bytes] = []
        for i, binary in query.outputs or self._all:
            texts.append(self._tensor(i, binary, outputs, start, stop, blobs))
        text = self._head + identity + b',"outputs":[' + b",".join(texts) + b"]}"
        return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)

    def _binary_form(
        self, wanted: tuple[tuple[int, bool], ...], rows: int
    ) -> tuple[bytes, tuple[tuple[int, int], ...]] | None:
        """JSON of an answer that is binary as a whole, with bytes of a row by output; None where sizes are unknown."""
        key = wanted, rows
        if key not in self._binary:
            if len(self._binary) >= _MOST_FORMS:
                self._binary.clear()
            self._binary[key] = self._made_form(wanted, rows)
        return self._binary[key]

    def _made_form(
        self, wanted: tuple[tuple[int, bool], ...], rows: int
    ) -> tuple[bytes, tuple[tuple[int, int], ...]] | None:
        texts: list[bytes] = []
        widths: list[tuple[int, int]] = []
        for i, binary in wanted:
            spec = self.layout.outputs[i]
            axes = [d for d in spec.dims[1:] if d is not None]
            if not binary or not self.layout.batches or spec.type == "BYTES" or len(axes) != len(spec.dims) - 1:
                return None
            width = math.prod(axes) * TYPES[spec.type].itemsize
            widths.append((i, width))
            end = b'],"parameters":{"binary_data_size":%d}}' % (rows * width)
            texts.append(self._opening[i] + _dims((rows, *axes)) + end)
        return self._head + b',"outputs":[' + b",".join(texts) + b"]}", tuple(widths)

    def _tensor(self, i: int, binary: bool, outputs: Outputs, start: int, stop: int, blobs: list[bytes]) -> bytes:
        values = outputs.array(i)
        batches = self.layout.batches
        shape = (stop - start, *values.shape[1:]) if batches else values.shape
        opening = self._opening[i] + _dims(shape)
        if binary:
            part = values[start:stop] if batches else values
            blob = raw_bytes(self.layout.outputs[i].type, part)
            blobs.append(blob)
            return opening + b'],"parameters":{"binary_data_size":%d}}' % len(blob)
        if batches:
            return opening + b'],"data":[' + b",".join(outputs.texts(i)[start:stop]) + b"]}"
        flat = values.reshape(1, -1)
        return opening + b'],"data":[' + (b"".join(_row(flat)) if flat.size else b"") + b"]}"

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """What ``GET /v2/models/NAME`` tells."""
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": "onnxruntime_onnx",
            "inputs": [_shown(s, self.layout) for s in self.layout.inputs],
            "outputs": [_shown(s, self.layout) for s in self.layout.outputs],
        }


def _row(flat: Any) -> list[bytes]:
    from tidemill.deploy.engine.query import row_texts

    return row_texts(flat)


def _shown(spec: TensorSpec, layout: Layout) -> dict[str, Any]:
    shape = spec.shape
    return {"name": spec.name, "datatype": spec.type, "shape": [-1, *shape[1:]] if layout.batches else shape}


def _dims(shape: Sequence[int]) -> bytes:
    return ",".join(map(str, shape)).encode()


def _head(body: bytes, json_bytes: int) -> bytes:
    if not 0 < json_bytes <= len(body):
        raise bad_request(f"Inference-Header-Content-Length is {json_bytes:,}, but the body has {len(body):,} bytes.")
    return body[:json_bytes]


def _flag(parameters: Any, name: str, default: bool) -> bool:
    if parameters is None:
        return default
    if not isinstance(parameters, dict):
        raise bad_request('"parameters" must be an object.')
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise bad_request(f"The parameter {name!r} must be true or false.")
    return value
