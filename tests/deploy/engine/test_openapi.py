"""What the document promises holds for whatever a caller sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from tests.deploy.engine.conftest import Start

from tidemill.deploy.engine.observing import NullObserver
from tidemill.deploy.types import Feedback

Models = Callable[[str], Path]


class Keeper(NullObserver):
    """Takes feedback."""

    def feedback(self, endpoint: str, items: Sequence[Feedback]) -> None:
        assert items


def test_each_model_is_there_with_its_own_columns(start: Start, models: Models) -> None:
    server = start({"m": models("multiclass"), "plain": models("double")})
    _, document = server.ask("/openapi.json")
    body = document["paths"]["/v1/predict/m"]["post"]["requestBody"]["content"]["application/json"]
    record = body["schema"]["properties"]["records"]["items"]
    assert list(record["properties"]) == ["size", "colour", "weight"]
    assert server.ask("/v1/predict/m", body["example"])[0] == 200
    infer = document["paths"]["/v2/models/plain/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert server.ask("/v2/models/plain/infer", infer["example"])[0] == 200
    assert "/v1/predict/plain" not in document["paths"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of schemathesis' own dependencies
def test_no_generated_request_brings_the_server_down(start: Start, models: Models) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    server = start({"m": models("binary"), "plain": models("double")}, observer=Keeper())
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=25)
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            response = case.call()
            if response.status_code == 504:  # a deadline of nanoseconds was asked for
                assert response.json()["code"] == "too_late"
                return
            # A shape and its data, or a date in a text, are laws that JSON Schema has no words for.
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

        check()
