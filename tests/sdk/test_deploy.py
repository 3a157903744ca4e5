"""Endpoints as Python calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.bundle.small import make

import tidemill as tm
from tidemill.core.errors import BundleError, NotFoundError, OptionError
from tidemill.deploy.presence import beat, end, living
from tidemill.deploy.registry import Registry
from tidemill.sdk.deploy import audit
from tidemill.store.workspace import Workspace


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("one") / "m", "binary", rows=200).path


def test_an_endpoint_from_python(bundle: Path, tmp_path: Path) -> None:
    served = tm.endpoint("fraud", tmp_path)
    made = served.deploy(bundle, target_ms=20.0, capture={"sample": 0.2})
    assert made["state"] == "checking"
    with Workspace.open(tmp_path) as workspace:
        Registry(workspace).mark_ready("fraud", made["revision"])
    assert served.describe()["traffic"] == {made["revision"]: 1.0}
    assert served.configure(min_replicas=1)["min_replicas"] == 1
    assert served.gate(latency=2)["latency"] == 2.0
    assert served.gate()["latency"] == 2.0
    assert tm.endpoints(tmp_path)[0]["capture"]["sample"] == 0.2
    assert [e["what"] for e in served.history()] == ["deploy", "ready", "configure", "gate"]
    assert len(audit(tmp_path, since_s=3600, limit=2)) == 2
    with pytest.raises(OptionError, match="has the traffic already"):
        served.canary(made["revision"])
    with pytest.raises(OptionError, match="serves traffic"):
        served.drop(made["revision"])
    served.undeploy()
    with pytest.raises(NotFoundError):
        served.describe()


def test_a_refusal_by_the_platform_is_an_error(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden rows of the bundle failed where it shall serve."""
    with Workspace.open(tmp_path) as workspace:
        beat(workspace.records, {"port": 1})
        registry = Registry(workspace)
        monkeypatch.setattr(
            "tidemill.sdk.deploy.time.sleep",
            lambda _: registry.mark_refused("fraud", registry.get("fraud").revisions[0].id, "row 3 differs"),
        )
        with pytest.raises(BundleError, match="row 3 differs"):
            tm.endpoint("fraud", tmp_path).deploy(bundle)


@pytest.mark.parametrize("ways", [{"canary": True, "weight": 0.5}, {"shadow": True, "hold": True}])
def test_only_one_way_can_be_asked_for(bundle: Path, tmp_path: Path, ways: dict[str, bool]) -> None:
    with pytest.raises(OptionError, match="Only one of"):
        tm.endpoint("fraud", tmp_path).deploy(bundle, **ways)  # type: ignore[arg-type]


def test_a_platform_that_is_silent_is_taken_for_gone(tmp_path: Path) -> None:
    with Workspace.open(tmp_path) as workspace:
        beat(workspace.records, {"port": 1})
        now = workspace.records.find("platform")[0].updated_at
        assert living(workspace.records, now + 5) == [{"port": 1}]
        assert living(workspace.records, now + 60) == []
        end(workspace.records)
        assert living(workspace.records, now) == []
