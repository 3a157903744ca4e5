"""A bundle that gives several labels behind a server: lists of labels with the probability of each."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.bundle.texts.made import COLUMN, SAID, objects
from tests.bundle.texts.test_labels import TAGS, write
from tests.deploy.engine.conftest import Running, Start

from tidemill.bundle.runtime import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(tmp_path_factory.mktemp("labels") / "mood.tm")


@pytest.fixture
def server(start: Start, bundle: Bundle) -> Running:
    return start({"m": bundle.path})


def test_rows_are_answered_with_lists_of_labels(server: Running, bundle: Bundle) -> None:
    status, got = server.ask("/v1/predict/m", {"records": [{COLUMN: text} for text in SAID]})
    assert status == 200, got
    columns = {COLUMN: objects(SAID)}
    wanted = bundle.predict(columns).tolist()
    assert [answer["labels"] for answer in got["predictions"]] == wanted
    p = [list(answer["probabilities"].values()) for answer in got["predictions"]]
    assert np.allclose(p, bundle.predict_proba(columns), atol=1e-5)
    assert list(got["predictions"][0]["probabilities"]) == list(TAGS.classes)


def test_the_protocol_gives_them_joined(server: Running, bundle: Bundle) -> None:
    tensor = {"name": COLUMN, "datatype": "BYTES", "shape": [len(SAID), 1], "data": SAID}
    status, _, body = server.request("/v2/models/m/infer", json.dumps({"inputs": [tensor]}).encode())
    assert status == 200, body
    given = {o["name"]: o["data"] for o in json.loads(body)["outputs"]}["label"]
    assert [text.split(";") if text else [] for text in given] == bundle.predict({COLUMN: objects(SAID)}).tolist()


def test_the_description_names_the_labels(server: Running) -> None:
    post = server.ask("/openapi.json")[1]["paths"]["/v1/predict/m"]["post"]
    answer = post["responses"]["200"]["content"]["application/json"]["schema"]
    prediction = answer["properties"]["predictions"]["items"]["properties"]
    assert prediction["labels"]["items"]["enum"] == list(TAGS.classes)
    assert set(prediction["probabilities"]["properties"]) == set(TAGS.classes)


def test_the_watch_expects_no_accuracy_of_them(bundle: Bundle) -> None:
    from tidemill.deploy.watch.facts import Facts

    facts = Facts(spec=bundle.spec)
    assert facts.classes == ()
