"""A replica answers as a front does, without Ray."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import BundleError, MissingExtraError, OptionError
from tidemill.deploy.ray import run as module
from tidemill.deploy.ray.parcel import pack
from tidemill.deploy.ray.replica import Replica, as_response
from tidemill.deploy.types import Endpoint

Bundles = Callable[[int], Path]
ROW = {"size": 0.5, "colour": "a", "weight": 2.0}


def within(parcels: dict[str, Any], work: Callable[[Replica], Coroutine[Any, Any, Any]]) -> Any:
    async def go() -> Any:
        replica = Replica(parcels, Endpoint("base"))
        await replica.start()
        try:
            return await work(replica)
        finally:
            await replica.close()

    return asyncio.run(go())


def test_it_answers_rows_and_tensors(small_bundles: Bundles) -> None:
    async def work(replica: Replica) -> list[Any]:
        body = json.dumps({"records": [ROW]}).encode()
        return [
            await replica.answer("POST", b"/v1/predict/m", [(b"X-Request-Id", b"mine")], body),
            await replica.answer("GET", b"/v2/models/m", [], b""),
            await replica.answer("GET", b"/v2/health/ready", [(b"cookie", b"x")], b""),
            await replica.answer("POST", b"/v2/models/n/infer", [], b"{}"),
            await replica.answer("POST", b"/v2/repository/models/m/unload", [], b"{}"),
        ]

    rows, about, ready, absent, refused = within({"m": pack(small_bundles(0))}, work)
    bundle = Bundle.open(small_bundles(0))
    wanted = bundle.predict({name: [value] for name, value in ROW.items()})
    told = rows.document()
    assert rows.status == 200
    assert told["predictions"][0]["label"] == wanted[0]
    assert told["request_id"] == "mine"
    assert {t["name"] for t in about.document()["inputs"]} == set(ROW)
    assert [ready.status, absent.status, refused.status] == [200, 404, 501]
    response = as_response(rows)
    assert response.status_code == 200
    assert json.loads(response.body) == told
    assert response.headers["x-request-id"] == "mine"
    assert int(response.headers["content-length"]) == len(rows.body)


def test_what_can_not_serve_is_told(small_bundles: Bundles) -> None:
    parcel = pack(small_bundles(0) / "1" / "model.onnx")
    with pytest.raises(BundleError):
        within({"m": {"model.onnx": parcel["model.onnx"][:100]}}, None)  # type: ignore[arg-type]  # it does not get there


def test_an_absent_package_is_told(monkeypatch: pytest.MonkeyPatch, small_bundles: Bundles) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"tidemill\[ray\]"):
        module.deploy({"m": small_bundles(0)}, Endpoint("base"))


def test_options_that_ray_lacks_are_refused(small_bundles: Bundles) -> None:
    from tidemill.sdk.serve import serve

    with pytest.raises(OptionError, match="On Ray there is no"):
        serve(small_bundles(0), engine="ray", grpc_port=0)
    with pytest.raises(OptionError, match="no engine 'dask'"):
        serve(small_bundles(0), engine="dask")
