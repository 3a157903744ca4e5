"""What endpoints do, and what was captured of them, over HTTP."""

from __future__ import annotations

import numpy as np
import pytest
from tests.api.conftest import Client

from tidemill.api.app import make_app
from tidemill.api.context import Context
from tidemill.data.versions import find_version
from tidemill.data.versions.governance import audit_of, say
from tidemill.deploy.types import CapturePolicy, Endpoint
from tidemill.deploy.watch.observer import Watch
from tidemill.store.workspace import Workspace


@pytest.fixture
def watched(workspace: Workspace) -> Workspace:
    capture = CapturePolicy(sample=1.0, confidence=0.0)
    workspace.records.put("endpoint", "fraud", Endpoint("fraud", capture=capture).to_json())
    watch = Watch(workspace, seed=1, start=False)
    watch.batch("fraud", "a1", {"x": np.arange(3.0)}, {"label": np.array(["a", "b", "a"], dtype=object)}, ["r"] * 3)
    watch.fold()
    watch.close()
    return workspace


def test_an_endpoint_is_summed_up(watched: Workspace) -> None:
    client = Client(make_app(Context(watched)))
    told = client.get("/api/v1/endpoints/fraud/watch", params={"hours": 1}).json()
    assert told["captured"] == {"sample": 3}
    assert client.get("/api/v1/endpoints/frau/watch").status_code == 404
    assert client.get("/api/v1/endpoints/fraud/watch", params={"hours": -1}).status_code == 400


def test_captured_rows_become_a_version_of_a_dataset(watched: Workspace) -> None:
    client = Client(make_app(Context(watched)))
    path = "/api/v1/endpoints/fraud/cases"
    kept = client.post(path, json={}).json()
    assert (kept["dataset"], kept["rows"], kept["lost"]) == ("fraud-cases", 3, 0)
    assert find_version(watched, "fraud-cases").hash == kept["hash"]
    assert audit_of(watched, "fraud-cases")[0].actor == "local"
    assert client.post(path, json={"name": "other", "hours": 1, "reasons": ["sample"]}).json()["rows"] == 3
    for body, status in (({"reasons": ["late"]}, 400), ({"reasons": ["wrong"]}, 400), ({"name": "a@b"}, 400)):
        assert client.post(path, json=body).status_code == status, body
    say(watched, "other", owner="mia")
    assert client.post(path, json={"name": "other"}).status_code == 403
