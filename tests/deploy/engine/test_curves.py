"""A batch curve that was measured once serves the next process; a file that is damaged costs a measurement."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from tests.deploy.engine.conftest import Start, until

from tidemill.deploy.bundles import curves_of, forget
from tidemill.deploy.engine import curves
from tidemill.deploy.engine.curves import Curve
from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.engine.sources import StaticSource, WorkspaceSource
from tidemill.deploy.registry import Registry
from tidemill.store.workspace import Workspace

Models = Callable[[str], Path]
some = st.builds(
    Curve,
    st.lists(st.tuples(st.integers(1, 4096), st.floats(1e-6, 1e6)), min_size=1, max_size=5).map(tuple),
    st.integers(0, 2**40),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(some, some)
def test_curves_of_several_machines_stand_side_by_side(tmp_path: Path, one: Curve, other: Curve) -> None:
    path = tmp_path / "a.curves.json"
    path.unlink(missing_ok=True)
    assert curves.read(path, "one") is None
    curves.write(path, "one", one)
    curves.write(path, "other", other)
    curves.write(path, "other", other)
    assert (curves.read(path, "one"), curves.read(path, "other"), curves.read(path, "third")) == (one, other, None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.curves.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 2, "curves": {}}',
        '{"format": 1, "curves": {"one": {}}}',
        '{"format": 1, "curves": {"one": {"points": [[0, 1]], "memory_bytes": 1}}}',
        '{"format": 1, "curves": {"one": {"points": [[1, -1]], "memory_bytes": 1}}}',
        '{"format": 1, "curves": {"one": {"points": [], "memory_bytes": 1}}}',
        '{"format": 1, "curves": {"one": {"points": [[1]], "memory_bytes": 1}}}',
    ],
)
def test_a_damaged_file_is_as_none_and_is_written_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.curves.json"
    path.write_text(text)
    assert curves.read(path, "one") is None
    curve = Curve(((1, 0.5),), 7)
    curves.write(path, "one", curve)
    assert curves.read(path, "one") == curve


def test_the_users_folder_is_nobody_elses(tmp_path: Path) -> None:
    folder = curves.user_folder({"XDG_CACHE_HOME": str(tmp_path)})
    assert folder == tmp_path / "tidemill" / "curves"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert curves.user_folder({"XDG_CACHE_HOME": str(tmp_path)}) == folder
    folder.chmod(0o777)
    assert curves.user_folder({"XDG_CACHE_HOME": str(tmp_path)}) is None
    (tmp_path / "file").write_text("")
    assert curves.user_folder({"XDG_CACHE_HOME": str(tmp_path / "file")}) is None


def test_serving_without_a_workspace_measures_once(start: Start, models: Models, tmp_path: Path) -> None:
    facts = read_facts(models("binary"))
    path = tmp_path / f"{facts.id}.curves.json"
    server = start(StaticSource({"m": facts}, curves=tmp_path), measure=True)
    until(path.exists)
    server.call(server.server.close())
    curves.write(path, curves.machine_key("cpu"), Curve(((1, 1.0), (7, 1.1), (8, 50.0)), 1000))
    again = start(StaticSource({"m": facts}, curves=tmp_path), measure=True).model("m")
    assert (again.measured, again.line.best) == (True, 7)
    other = StaticSource({"m": facts}, curves=tmp_path, provider="cuda")  # another device, another curve
    assert other.curve(other.endpoints()[0].revisions[0]) is None


def test_a_folder_that_refuses_costs_a_measurement_alone(models: Models, tmp_path: Path) -> None:
    facts = read_facts(models("binary"))
    source = StaticSource({"m": facts}, curves=tmp_path / "absent")
    revision = source.endpoints()[0].revisions[0]
    source.keep_curve(revision, Curve(((1, 0.5),), 7))
    assert source.curve(revision) is None


def test_the_second_process_does_not_measure_again(start: Start, models: Models, tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "ws") as workspace:
        registry = Registry(workspace, actor="test")
        registry.deploy(models("binary"), "m", options={"min_replicas": 1})
        digest = registry.get("m").revisions[0].bundle
        path = curves_of(workspace.path, digest)
        server = start(WorkspaceSource(workspace), measure=True)
        until(path.exists)
        held = json.loads(path.read_text())["curves"]
        assert list(held) == [curves.machine_key("cpu")]
        server.call(server.server.close())
        # Another best batch than any measurement would find: only who reads the file can have it.
        curves.write(path, curves.machine_key("cpu"), Curve(((1, 1.0), (7, 1.1), (8, 50.0)), 1000))
        again = start(WorkspaceSource(workspace), measure=True).model("m")
        assert again.measured
        assert again.line.best == 7
        forget(workspace.path, digest)
        assert not path.exists()
