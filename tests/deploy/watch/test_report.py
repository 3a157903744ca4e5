"""From a served bundle to a report, and to a dataset version of the bad cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tidemill.bundle.runtime import Bundle
from tidemill.cli.main import run
from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.schema import SemanticType
from tidemill.data.versions import find_version, load_version
from tidemill.deploy.bundles import bundle_hash
from tidemill.deploy.types import CapturePolicy, Endpoint, Feedback, RequestEvent, Revision
from tidemill.deploy.watch.capture import META
from tidemill.deploy.watch.cases import as_version
from tidemill.deploy.watch.observer import Watch
from tidemill.deploy.watch.report import report
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock
from tidemill.testing.parts import small_columns

NOW = 1_800_000_000.0


@pytest.fixture
def served(workspace: Workspace, small_bundles: Callable[[int], Path]) -> str:
    """An endpoint with one revision; gives its id."""
    folder = small_bundles(0)
    full = bundle_hash(folder)
    place = workspace.path / "bundles" / full
    place.parent.mkdir()
    place.symlink_to(folder, target_is_directory=True)
    endpoint = Endpoint(
        "fraud", revisions=(Revision(full[:12], full, NOW, "ready"),), traffic={full[:12]: 1.0},
        capture=CapturePolicy(sample=0.2, confidence=0.0),
    )  # fmt: skip
    workspace.records.put("endpoint", "fraud", endpoint.to_json())
    return full[:12]


def drive(workspace: Workspace, revision: str, *, windows: int = 3, rows: int = 600, shift: float = 0.0) -> Watch:
    """Two fronts that answer ``rows`` rows in each window of five minutes."""
    clock = Clock(NOW)
    bundle = Bundle.open(next((workspace.path / "bundles").iterdir()))
    fronts = [Watch(workspace, clock=clock, seed=k, start=False) for k in range(2)]
    for k in range(windows):
        for f, front in enumerate(fronts):
            columns = small_columns(rows, seed=100 + 10 * k + f)
            columns["size"] = columns["size"] + shift
            ids = [f"{k}-{f}-{i}" for i in range(rows)]
            front.batch("fraud", revision, columns, bundle.answer(columns), ids)
            for i in ids[:20]:
                front.request(RequestEvent("fraud", revision, i, 200, 1, 0.1, 0.0, 0.5, 0.1, 1.0))
            front.fold()
            front.feedback("fraud", [Feedback(ids[0], "b"), Feedback(ids[1], "a")])
        clock.now += 301
        for front in fronts:
            front.fold()
    for front in fronts:
        front.close()
    return fronts[0]


def test_a_report_adds_up_all_fronts(workspace: Workspace, served: str) -> None:
    drive(workspace, served)
    found = report(workspace, "fraud", clock=lambda: NOW + 1000)
    (revision,) = found["revisions"]
    assert (revision["revision"], revision["traffic"]) == (served, 1.0)
    assert (revision["requests"], revision["rows"]) == (120, 3600)
    assert revision["latency_ms"]["total"]["p50"] == pytest.approx(1.0, rel=0.4)
    assert revision["drift"]["rows"] == 3600
    assert revision["drift"]["alarms"] == revision["drift"]["moved"] == []
    assert revision["truth"]["rows"] == 12
    assert revision["estimate"]["rows"] == 3600
    assert 0.5 < revision["estimate"]["values"]["accuracy"] <= 1
    assert revision["estimate"]["usual"]["accuracy"] > 0
    assert found["captured"]["sample"] > 200
    top = revision["drift"]["top"][0]["plot"]
    assert len(top["cells"]) == len(top["reference"]) == len(top["seen"])
    assert sum(top["seen"]) == pytest.approx(1.0, abs=1e-4)
    json.dumps(found, allow_nan=False)


def test_a_shift_raises_an_alarm_in_the_second_window(workspace: Workspace, served: str) -> None:
    watch = drive(workspace, served, shift=2.0, windows=2)
    assert "size" in watch.window("fraud", served).drift["alarms"]
    (revision,) = report(workspace, "fraud", clock=lambda: NOW + 700)["revisions"]
    assert "size" in revision["drift"]["alarms"]
    assert revision["drift"]["top"][0]["name"] == "size"
    assert 'tidemill_drift_alarm{endpoint="fraud",revision="' in watch.render_metrics()


def test_an_unknown_bundle_is_served_and_the_word_is_said(workspace: Workspace) -> None:
    watch = Watch(workspace, start=False)
    watch.batch("plain", "c3", {"x": np.ones(2)}, {"out": np.ones((2, 3))}, ["r", "r"])
    watch.fold()
    (revision,) = report(workspace, "plain")["revisions"]
    assert revision["rows"] == 2
    assert not revision["drift"]["watched"]
    assert "not known here" in revision["drift"]["reason"]
    with pytest.raises(NotFoundError, match="Did you mean 'plain'"):
        report(workspace, "plan")
    watch.close()


def test_a_restart_goes_on_with_the_day(workspace: Workspace, served: str) -> None:
    drive(workspace, served, windows=3)
    clock = Clock(NOW)
    clock.now += 1200
    again = Watch(workspace, clock=clock, start=False)
    again.request(RequestEvent("fraud", served, "x", 200, 1, 0.1, 0.0, 0.5, 0.1, 1.0))
    again.fold()
    held = again._endpoints["fraud"].revisions[served].periods
    assert held is not None
    rows = sum(o.sketch.rows for o in held._open if o is not None)
    assert rows == 3600
    again.close()


def test_bad_cases_become_a_dataset_version(workspace: Workspace, served: str) -> None:
    drive(workspace, served)
    version = as_version(workspace, "fraud", clock=lambda: NOW + 1000)
    assert (version.dataset, version.operation) == ("fraud-cases", "capture")
    assert version.parameters["revisions"] == [served]
    table, schema = load_version(workspace, f"fraud-cases@{version.hash}")
    assert table.num_rows == version.rows > 200
    bundle = Bundle.open(next((workspace.path / "bundles").iterdir()))
    assert schema[bundle.task.target].type is SemanticType.TARGET
    assert {c.name: c.type for c in schema.features} == {c.name: c.type for c in bundle.schema.features}
    assert f"{META}request_id" in table.column_names
    truths = [v for v in table[bundle.task.target].to_pylist() if v is not None]
    assert set(truths) == {"a", "b"}
    # What the model said of a captured row, it says of the version's row.
    told = table.to_pylist()
    again = bundle.predict(table.select([c.name for c in bundle.schema.features]))
    assert [str(v) for v in again] == [r[f"{META}label"] for r in told]
    wrong = as_version(workspace, "fraud", name="wrong", reasons=["wrong"])
    assert 0 < wrong.rows < version.rows
    assert find_version(workspace, "wrong").parameters["reasons"] == ["wrong"]


def test_nothing_captured_is_said(workspace: Workspace, served: str) -> None:
    with pytest.raises(DataError, match="No rows were captured"):
        as_version(workspace, "fraud")


def test_the_command_tells_it_to_people_and_programs(
    workspace: Workspace, served: str, capsys: pytest.CaptureFixture[str]
) -> None:
    drive(workspace, served, shift=2.0, windows=2)
    place = ["--workspace", str(workspace.path)]
    hours = ["--hours", str(24 * 365 * 100)]  # the clock of this test is its own
    assert run(["watch", "fraud", *hours, "--keep-as", "cases", *place]) == 0
    said = capsys.readouterr().out
    assert served in said
    assert "size" in said
    assert "Kept as cases@" in said
    assert run(["watch", "fraud", *hours, "--json", *place]) == 0
    assert json.loads(capsys.readouterr().out)["revisions"][0]["revision"] == served
    assert run(["watch", "frau", *place]) == 2
    assert "Did you mean 'fraud'?" in capsys.readouterr().err
