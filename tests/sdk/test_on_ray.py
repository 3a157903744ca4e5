"""A search on a real cluster of two nodes, one of which is killed on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.jobs.ray.test_ray import one_node_is_over, two_nodes  # noqa: F401  fixtures that are used here
from tests.sdk.test_engines import WORDS, ledger, table

import tidemill as tm
from tidemill.bundle.runtime import Bundle
from tidemill.sdk.bundles import predict_to_csv

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # of Ray and what it brings along
]


def test_a_search_with_a_killed_node_ends_as_one_without(
    two_nodes: tuple[Any, Any],  # noqa: F811  the fixture
    tmp_path: Path,
) -> None:
    local, other = two_nodes
    words = {**WORDS, "trials": 8}
    with tm.fit(table(), "y", workspace=tmp_path / "w", cpus=2, **words) as study:
        wanted = ledger(study)
    killed: list[str] = []

    def hear(event: Any) -> None:
        if event.kind == "started" and event.trial.number == 3:
            local.remove_node(other, allow_graceful=False)
            killed.append(event.trial.name)

    words = {**words, "engine": "ray", "ray_address": local.address}
    with tm.fit(table(), "y", workspace=tmp_path / "r", on_event=hear, **words) as study:
        assert killed
        assert ledger(study) == wanted
        bundle = study.best.export(tmp_path / "b.tm")
    assert isinstance(bundle, Bundle)
    for engine, address in (("inprocess", None), ("ray", local.address)):
        predict_to_csv(bundle.path, table(500), tmp_path / engine, engine=engine, ray_address=address)
    assert (tmp_path / "ray").read_bytes() == (tmp_path / "inprocess").read_bytes()
