"""Bundles of texts behind a server: rows are texts, and their readers travel with the bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.texts.made import COLUMN, SAID, TASK, VALUE, make
from tests.deploy.engine.conftest import Running, Start, until
from tests.deploy.engine.test_served import Whole

from tidemill.bundle.texts.runtime import TextBundle
from tidemill.core.errors import BundleError
from tidemill.deploy.engine.encoders.base import TEXTS, Encoding
from tidemill.deploy.engine.encoders.texts import make as open_texts
from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.engine.wire import join_texts


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TextBundle:
    return make(tmp_path_factory.mktemp("texts") / "mood.tm")


@pytest.fixture
def server(start: Start, bundle: TextBundle) -> Running:
    return start({"m": bundle.path})


def wanted(bundle: TextBundle, texts: list[str]) -> list[dict[str, Any]]:
    columns = {COLUMN: np.array(texts, dtype=object)}
    labels = [str(v) for v in bundle.predict(columns)]
    return [
        {"label": label, "probabilities": dict(zip(TASK.classes, map(float, row), strict=True))}
        for label, row in zip(labels, bundle.predict_proba(columns), strict=True)
    ]


def near(got: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    return [g["label"] for g in got] == [r["label"] for r in right] and all(
        np.allclose(list(g["probabilities"].values()), list(r["probabilities"].values()), atol=1e-5)
        for g, r in zip(got, right, strict=True)
    )


def test_texts_are_answered_as_the_bundle_answers_them(server: Running, bundle: TextBundle) -> None:
    right = wanted(bundle, SAID)
    for document in ({"records": [{COLUMN: t} for t in SAID]}, {"columns": {COLUMN: SAID}}):
        status, got = server.ask("/v1/predict/m", document)
        assert status == 200, got
        assert near(got["predictions"], right)
    for text, answer in zip(SAID, right, strict=True):
        assert near(server.ask("/v1/predict/m", {COLUMN: text or None})[1]["predictions"], [answer])
        status, _, body = server.request("/v1/predict/m", text.encode(), {"content-type": "text/plain; charset=utf-8"})
        assert status == 200
        assert near(json.loads(body)["predictions"], [answer])


def test_tensors_of_texts_go_over_the_protocol(server: Running, bundle: TextBundle) -> None:
    right = [r["label"] for r in wanted(bundle, SAID)]
    tensor = {"name": COLUMN, "datatype": "BYTES", "shape": [len(SAID), 1]}
    blob = join_texts(SAID)
    for described, more in (({**tensor, "data": SAID}, b""),
                            ({**tensor, "parameters": {"binary_data_size": len(blob)}}, blob)):  # fmt: skip
        head = json.dumps({"inputs": [described]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))} if more else {}
        status, _, body = server.request("/v2/models/m/infer", head + more, headers)
        assert status == 200, body
        assert {o["name"]: o["data"] for o in json.loads(body)["outputs"]}["label"] == right


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"[]", "at least one record"),
        (b'{"reviews": "a"}', "Did you mean 'reviews'"),
        (b'{"review": ["a"]}', "is not a text"),
        (b"x", "not JSON"),
    ],
)
def test_what_is_no_text_is_told(server: Running, body: bytes, word: str) -> None:
    status, _, told = server.request("/v1/predict/m", body)
    assert (status, word in json.loads(told)["error"]) == (400, True), told
    assert server.request("/v1/predict/m", b"\xff", {"content-type": "text/plain"})[0] == 400


def test_a_regression_of_texts_answers_values(start: Start, tmp_path: Path) -> None:
    opened = make(tmp_path / "value.tm", VALUE)
    server = start({"m": opened.path})
    right = opened.predict({COLUMN: np.array(["so good"], dtype=object)})
    (got,) = server.ask("/v1/predict/m", {COLUMN: "so good"})[1]["predictions"]
    assert got["value"] == pytest.approx(float(right[0]), rel=1e-5)


def test_the_watch_sees_texts(start: Start, bundle: TextBundle) -> None:
    seen = Whole()
    server = start({"m": bundle.path}, observer=seen)
    assert server.ask("/v1/predict/m", {COLUMN: "grüße"})[0] == 200
    until(lambda: len(seen.events) == 1)
    assert {k: v.tolist() for k, v in seen.events[0].columns.items()} == {COLUMN: ["grüße"]}
    example = server.ask("/openapi.json")[1]["paths"]["/v1/predict/m"]["post"]["requestBody"]["content"]
    assert server.ask("/v1/predict/m", example["application/json"]["example"])[0] == 200


def test_readers_that_were_changed_or_lie_elsewhere_are_refused(bundle: TextBundle, tmp_path: Path) -> None:
    changed = tmp_path / "changed.tm"
    shutil.copytree(bundle.path, changed)
    reader = next((changed / "readers").iterdir())
    whole = reader.read_bytes()
    reader.write_bytes(whole.replace(b"good", b"gold"))
    with pytest.raises(BundleError, match="damaged"):
        read_facts(changed)
    name = f"readers/{reader.name}"
    encoding = Encoding(TEXTS, COLUMN, str(changed), (name,))
    entry = {"kind": "grams", "key": "k", "length": 0, "file": name, "sha256": "0" * 64}
    for file, word in ((name, "not the one"), ("../../etc/passwd", "no file of the bundle")):
        with pytest.raises(BundleError, match=word):
            open_texts(encoding, [], {"tidemill.readers": json.dumps([{**entry, "file": file}])})
    with pytest.raises(BundleError, match="can't be opened"):
        open_texts(encoding, [], {})
