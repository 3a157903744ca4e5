"""What both documents (`/openapi.json` of a front and of the API) promise holds for whatever a caller sends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from tests.deploy.faults.conftest import MakeSite
from tests.deploy.faults.sites import NAME

from tidemill.deploy.registry import Registry
from tidemill.sdk.keys import create_key
from tidemill.store.workspace import Workspace

schemathesis = pytest.importorskip("schemathesis")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of schemathesis' own dependencies
]
EXAMPLES = 25


def _ask_everything(url: str, headers: dict[str, str]) -> int:
    """Send generated requests to each operation of a document; every answer must be one that it names."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    count = 0
    document = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
    # A bundle is sent as a tar file, which a generator has no idea of; tests/api sends strange ones.
    for result in document.exclude(method="POST", path_regex="/revisions$").get_all_operations():
        operation = result.ok()

        @settings(max_examples=EXAMPLES)
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            # That a name is of something which is there is a law that JSON Schema has no words for.
            answer = case.call(headers=headers, timeout=60)  # the first file of rows starts a process that reads it
            case.validate_response(
                answer, headers=headers, excluded_checks=[positive_data_acceptance, not_a_server_error]
            )
            # A deadline of a billionth of a second is one; those who can't be answered in time are told so.
            assert answer.status_code < 500 or answer.status_code in (503, 504, 507), answer.text

        check()
        count += 1
    return count


@pytest.fixture
def api(tmp_path: Path, pair: tuple[Path, Path]) -> Iterator[tuple[str, str]]:
    """The API as a process of its own over a workspace with one endpoint: its address, and a key for everything."""
    place = tmp_path / "ws"
    token = create_key("me", ["admin"], workspace=place)["token"]
    with Workspace.open(place) as workspace:
        registry = Registry(workspace)
        registry.mark_ready(NAME, registry.deploy(pair[0], NAME).id)
    command = [sys.executable, "-m", "tidemill.api", "--workspace", str(place), "--port", "0", "--keys"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], token
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, errors[-3000:]


@pytest.mark.timeout(900)
def test_the_api_answers_whatever_is_sent_as_its_document_says(api: tuple[str, str]) -> None:
    url, token = api
    assert _ask_everything(url, {"Authorization": f"Bearer {token}"}) > 20


@pytest.mark.timeout(900)
def test_a_front_with_keys_answers_whatever_is_sent_as_its_document_says(
    site: MakeSite, pair: tuple[Path, Path]
) -> None:
    here = site(keys=True)
    here.serves(here.deploy(pair[0]))
    _, token = here.keys.create("all", ["admin"])
    assert here.ring is not None
    here.ring.refresh()
    assert _ask_everything(here.front.server.url, {"Authorization": f"Bearer {token}"}) > 5
