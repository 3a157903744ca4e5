"""What a server of the Open Inference Protocol, version 2, promises over REST; subclass and give one fixture."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest

from tidemill.bundle.assemble import LABEL, input_names
from tidemill.bundle.runtime import Bundle
from tidemill.core.schema import Columns
from tidemill.deploy.engine.wire import join_texts, split_texts

_TIGHT = 1e-6
"""How far numbers may be apart: rows of a batch are summed in another order by some servers."""


@dataclass(frozen=True)
class ServedBundle:
    """A server that has loaded a bundle.

    Parameters
    ----------
    url : str
        Where it answers.
    model : str
        How the bundle is called there.
    bundle : Bundle
        What it has loaded.
    columns : mapping
        Physical columns of a few rows, none missing.
    binary : bool
        True where it takes binary tensors behind the JSON.
    """

    url: str
    model: str
    bundle: Bundle
    columns: Columns
    binary: bool = False

    def ask(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request; a body makes it a POST."""
        parts = urlsplit(self.url)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            sent = {"Content-Type": "application/json", **(headers or {})}
            connection.request("GET" if data is None else "POST", parts.path.rstrip("/") + path, data, sent)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    @property
    def path(self) -> str:
        """Of the model."""
        return f"/v2/models/{quote(self.model, safe='')}"

    def inputs(self, rows: int, **fields: Any) -> list[dict[str, Any]]:
        """Tensors of the first rows; ``fields`` replace what is said of each."""
        out = []
        for column, name in input_names(self.bundle.schema).items():
            values = self.columns[column][:rows]
            kind = "BYTES" if self.bundle.schema[column].type.is_string else "FP64"
            data = [v if isinstance(v, str) else float(v) for v in values]
            out.append({"name": name, "shape": [rows, 1], "datatype": kind, "data": data, **fields})
        return out

    def infer(self, inputs: Sequence[Mapping[str, Any]], **more: Any) -> tuple[int, Any]:
        """Ask for predictions as JSON."""
        status, _, answer = self.ask(f"{self.path}/infer", {"inputs": list(inputs), **more})
        return status, json.loads(answer)

    def wanted(self, rows: int) -> dict[str, Any]:
        """What the bundle answers."""
        return self.bundle.answer({name: values[:rows] for name, values in self.columns.items()})


class InferenceProtocolSuite:
    """Laws of the protocol.

    A subclass provides the fixture ``served`` (a `ServedBundle`).
    """

    def test_it_lives_and_is_ready(self, served: ServedBundle) -> None:
        """Health is a status of 200, for the server and for the model."""
        for path in ("/v2/health/live", "/v2/health/ready", f"{served.path}/ready"):
            assert served.ask(path)[0] == 200, path

    def test_it_says_what_it_is(self, served: ServedBundle) -> None:
        """Name, version and extensions."""
        status, _, body = served.ask("/v2")
        told = json.loads(body)
        assert status == 200
        assert isinstance(told["name"], str)
        assert isinstance(told["version"], str)
        assert all(isinstance(e, str) for e in told["extensions"])

    def test_it_says_what_the_model_takes_and_gives(self, served: ServedBundle) -> None:
        """Every input and output with its type and shape."""
        status, _, body = served.ask(served.path)
        told = json.loads(body)
        assert status == 200
        assert told["name"] == served.model
        assert isinstance(told["platform"], str)
        inputs = {t["name"]: t for t in told["inputs"]}
        for tensor in served.inputs(1):
            assert inputs[tensor["name"]]["datatype"] == tensor["datatype"]
            assert inputs[tensor["name"]]["shape"] == [-1, 1]
        assert {t["name"] for t in told["outputs"]} == set(served.wanted(1))

    @pytest.mark.parametrize("rows", [1, 5])
    def test_it_answers_as_the_bundle(self, served: ServedBundle, rows: int) -> None:
        """Every output of every row."""
        status, told = served.infer(served.inputs(rows))
        assert status == 200, told
        assert told["model_name"] == served.model
        self.compare(told["outputs"], served.wanted(rows))

    def compare(self, outputs: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> None:
        """Outputs as JSON beside those of the bundle."""
        found = {o["name"]: o for o in outputs}
        assert set(found) == set(wanted)
        for name, values in wanted.items():
            output = found[name]
            assert len(output["data"]) == math.prod(output["shape"])
            assert math.prod(output["shape"]) == values.size
            if name == LABEL:
                assert output["datatype"] == "BYTES"
                assert list(output["data"]) == values.tolist()
            else:
                assert output["datatype"] == "FP32"
                np.testing.assert_allclose(np.float32(output["data"]), values.ravel(), rtol=_TIGHT, atol=_TIGHT)

    def test_the_callers_name_comes_back(self, served: ServedBundle) -> None:
        """``id`` of the request is that of the answer."""
        status, told = served.infer(served.inputs(1), id="question-7")
        assert (status, told["id"]) == (200, "question-7")

    def test_wanted_outputs_come_alone(self, served: ServedBundle) -> None:
        """``outputs`` chooses."""
        name = next(iter(served.wanted(1)))
        status, told = served.infer(served.inputs(1), outputs=[{"name": name}])
        assert status == 200
        assert [o["name"] for o in told["outputs"]] == [name]

    def test_the_order_of_inputs_does_not_matter(self, served: ServedBundle) -> None:
        """They are known by name."""
        status, told = served.infer(served.inputs(2)[::-1])
        assert status == 200
        self.compare(told["outputs"], served.wanted(2))

    def test_a_model_that_is_not_there_is_a_404(self, served: ServedBundle) -> None:
        """With a word."""
        status, _, body = served.ask("/v2/models/no-such-model/infer", {"inputs": served.inputs(1)})
        assert status == 404
        assert json.loads(body)["error"]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"inputs": 3}', b'{"inputs": [{}]}'])
    def test_what_is_no_request_is_the_callers_mistake(self, served: ServedBundle, body: bytes) -> None:
        """A status of 400 to 499 and JSON, never 500; and the next request is answered."""
        status, _, answer = served.ask(f"{served.path}/infer", body)
        assert 400 <= status < 500
        assert isinstance(json.loads(answer), dict)
        assert served.infer(served.inputs(1))[0] == 200

    def test_a_missing_input_is_the_callers_mistake(self, served: ServedBundle) -> None:
        """With a word that names it."""
        status, told = served.infer(served.inputs(1)[1:])
        assert 400 <= status < 500
        assert served.inputs(1)[0]["name"] in told["error"]

    def test_a_shape_that_lies_is_the_callers_mistake(self, served: ServedBundle) -> None:
        """More values than there are, or fewer."""
        status, told = served.infer(served.inputs(2, shape=[3, 1]))
        assert 400 <= status < 500
        assert told["error"]

    def test_texts_for_numbers_are_the_callers_mistake(self, served: ServedBundle) -> None:
        """Values must fit the type that is said."""
        inputs = served.inputs(1)
        number = next(t for t in inputs if t["datatype"] == "FP64")
        number["data"] = ["seven"]
        assert 400 <= served.infer(inputs)[0] < 500

    def test_binary_tensors_answer_the_same(self, served: ServedBundle) -> None:
        """Where the server has the extension."""
        if not served.binary:
            pytest.skip("the server does not take binary tensors")
        rows, blobs, inputs = 3, [], []
        for tensor in served.inputs(rows):
            data = tensor.pop("data")
            blobs.append(join_texts(data) if tensor["datatype"] == "BYTES" else np.array(data).tobytes())
            inputs.append({**tensor, "parameters": {"binary_data_size": len(blobs[-1])}})
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        status, told, body = served.ask(f"{served.path}/infer", head + b"".join(blobs), headers)
        assert status == 200
        at = int(told["inference-header-content-length"])
        outputs = []
        for output in json.loads(body[:at])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            raw = body[at : at + size]
            at += size
            data = split_texts(raw) if output["datatype"] == "BYTES" else np.frombuffer(raw, np.float32).tolist()
            outputs.append({**output, "data": data})
        assert at == len(body)
        self.compare(outputs, served.wanted(rows))
