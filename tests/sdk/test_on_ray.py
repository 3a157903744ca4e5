"""Searches and predictions on a real cluster of two nodes, one of which is killed on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.jobs.ray.test_ray import one_node_is_over, two_nodes  # noqa: F401  fixtures that are used here
from tests.sdk.test_batch import images_of_a_table, searched_lines, table_with_images, texts
from tests.sdk.test_engines import WORDS, ledger, table

import tidemill as tm
from tidemill.bundle.runtime import Bundle
from tidemill.core.trial import TrialState
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


def test_a_search_on_rungs_with_a_killed_node_comes_to_an_end(
    two_nodes: tuple[Any, Any],  # noqa: F811  the fixture
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch", reason="a fit on images trains nets")
    from tests.sdk.test_images import digits

    local, other = two_nodes
    killed: list[str] = []

    def hear(event: Any) -> None:
        if event.kind == "paused" and not killed:
            killed.append(event.trial.name)
            local.remove_node(other, allow_graceful=False)

    words: dict[str, Any] = {"trials": 4, "schedule": "rungs", "epochs": 4, "device": "cpu"}
    words["families"] = ("quicknet",)
    with tm.fit(
        digits(tmp_path / "photos", 160), workspace=tmp_path / "w", on_event=hear, engine="ray",
        ray_address=local.address, **words,
    ) as study:  # fmt: skip
        assert killed
        trials = study.search.trials()
        assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.PAUSED}
        for trial in trials:
            steps = [step for step, _ in trial.curve]
            assert steps == sorted(set(steps)), "no epoch stands twice"


@pytest.mark.parametrize(
    "kind", [images_of_a_table, table_with_images, searched_lines, texts], ids=lambda k: k.__name__
)
def test_a_batch_of_any_kind_is_answered_by_two_nodes(
    kind: Any,
    two_nodes: tuple[Any, Any],  # noqa: F811  the fixture
    tmp_path: Path,
) -> None:
    local, _ = two_nodes
    case = kind(tmp_path)
    found = {}
    for engine, address in (("inprocess", None), ("ray", local.address)):
        unread: list[str] = []
        predict_to_csv(
            case.bundle.path, case.data, tmp_path / engine, **case.more, on_unreadable=unread.append, engine=engine,
            ray_address=address,
        )  # fmt: skip
        found[engine] = (tmp_path / engine).read_bytes(), sorted(unread)
        assert len(unread) == case.unread
    assert found["ray"] == found["inprocess"]
