"""A bundle becomes a revision, traffic follows, a rollback is one write, and the log knows all of it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.deploy.conftest import FakeClock

from tidemill.core.errors import BundleError, NotFoundError, OptionError
from tidemill.core.protocols import Change
from tidemill.deploy import bundles
from tidemill.deploy.audit import read_audit
from tidemill.deploy.registry import Mode, Registry
from tidemill.deploy.types import CanaryStep
from tidemill.store.workspace import Workspace

Bundles = Callable[[int], Path]


def two(registry: Registry, small_bundles: Bundles) -> tuple[str, str]:
    """Deploy two bundles one after the other, both ready; the second has the traffic."""
    first = registry.deploy(small_bundles(0), "fraud").id
    registry.mark_ready("fraud", first)
    second = registry.deploy(small_bundles(1), "fraud").id
    registry.mark_ready("fraud", second)
    return first, second


def test_a_revision_gets_traffic_only_when_it_is_ready(registry: Registry, small_bundles: Bundles) -> None:
    revision = registry.deploy(small_bundles(0), "fraud")
    assert revision.state == "checking"
    assert registry.get("fraud").traffic == {}
    registry.mark_ready("fraud", revision.id)
    assert registry.get("fraud").traffic == {revision.id: 1.0}


def test_the_old_revision_serves_until_the_new_one_is_ready(registry: Registry, small_bundles: Bundles) -> None:
    first = registry.deploy(small_bundles(0), "fraud").id
    registry.mark_ready("fraud", first)
    second = registry.deploy(small_bundles(1), "fraud").id
    assert registry.get("fraud").traffic == {first: 1.0}
    registry.mark_ready("fraud", second)
    assert registry.get("fraud").traffic == {second: 1.0}
    assert registry.get("fraud").previous == first


def test_a_rollback_is_one_quick_write(registry: Registry, small_bundles: Bundles) -> None:
    first, second = two(registry, small_bundles)
    started = time.process_time()
    after = registry.rollback("fraud", reason="it was slow")
    assert time.process_time() - started < 1.0
    assert after.traffic == {first: 1.0}
    assert next(r for r in after.revisions if r.id == second).reason == "it was slow"


def test_a_second_rollback_does_not_go_back_to_what_was_left(registry: Registry, small_bundles: Bundles) -> None:
    first, _ = two(registry, small_bundles)
    registry.rollback("fraud")
    with pytest.raises(OptionError, match="no ready revision to go back to"):
        registry.rollback("fraud")
    assert registry.get("fraud").traffic == {first: 1.0}


def test_a_refused_revision_never_serves_and_keeps_its_reason(registry: Registry, small_bundles: Bundles) -> None:
    first = registry.deploy(small_bundles(0), "fraud").id
    registry.mark_ready("fraud", first)
    second = registry.deploy(small_bundles(1), "fraud").id
    registry.mark_refused("fraud", second, "golden row 3 differs")
    with pytest.raises(OptionError, match="not ready but refused: golden row 3 differs"):
        registry.set_traffic("fraud", {second: 1.0})
    assert registry.get("fraud").traffic == {first: 1.0}


def test_a_revision_that_serves_is_not_refused_away(registry: Registry, small_bundles: Bundles) -> None:
    first = registry.deploy(small_bundles(0), "fraud").id
    registry.mark_ready("fraud", first)
    registry.mark_refused("fraud", first, "no memory")
    assert registry.get("fraud").traffic == {first: 1.0}
    assert read_audit(registry.workspace.journal)[-1]["facts"]["reason"] == "no memory"


def test_a_ready_bundle_that_is_deployed_again_gets_the_traffic_at_once(
    registry: Registry, small_bundles: Bundles
) -> None:
    first, second = two(registry, small_bundles)
    assert registry.deploy(small_bundles(0), "fraud").id == first
    assert registry.get("fraud").traffic == {first: 1.0}
    assert len(registry.get("fraud").revisions) == 2
    assert registry.get("fraud").previous == second


@pytest.mark.parametrize(
    ("mode", "weight", "shadow"), [(Mode.WEIGHT, 0.25, False), (Mode.SHADOW, 0.0, True), (Mode.NONE, 0.0, False)]
)
def test_the_plan_is_carried_out_when_the_revision_is_ready(
    registry: Registry, small_bundles: Bundles, mode: Mode, weight: float, shadow: bool
) -> None:
    first = registry.deploy(small_bundles(0), "fraud").id
    registry.mark_ready("fraud", first)
    second = registry.deploy(small_bundles(1), "fraud", mode=mode, weight=weight).id
    registry.mark_ready("fraud", second)
    now = registry.get("fraud")
    assert now.traffic.get(second, 0.0) == pytest.approx(weight)
    assert now.traffic[first] == pytest.approx(1 - weight)
    assert (now.shadow == second) is shadow
    assert registry.plan("fraud") is None


def test_a_canary_begins_at_its_first_step(registry: Registry, small_bundles: Bundles, clock: FakeClock) -> None:
    first = registry.deploy(small_bundles(0), "fraud").id
    registry.mark_ready("fraud", first)
    steps = (CanaryStep(0.1), CanaryStep(1.0))
    second = registry.deploy(small_bundles(1), "fraud", mode=Mode.CANARY, steps=steps).id
    clock.go(5)
    registry.mark_ready("fraud", second)
    now = registry.get("fraud")
    assert now.traffic == {first: 0.9, second: 0.1}
    assert now.canary is not None
    assert now.canary.step_at == clock()
    assert registry.rollback("fraud").traffic == {first: 1.0}


def test_fronts_that_become_ready_together_carry_the_plan_out_once(
    registry: Registry, small_bundles: Bundles, workspace: Workspace, clock: FakeClock
) -> None:
    first = registry.deploy(small_bundles(0), "fraud").id
    registry.mark_ready("fraud", first)
    steps = (CanaryStep(0.1), CanaryStep(1.0))
    second = registry.deploy(small_bundles(1), "fraud", mode=Mode.CANARY, steps=steps).id
    fronts = [Registry(workspace, actor=f"front-{n}", clock=clock) for n in range(4)]
    threads = [threading.Thread(target=f.mark_ready, args=("fraud", second)) for f in fronts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    now = registry.get("fraud")
    assert now.traffic == {first: 0.9, second: 0.1}
    registry.rollback("fraud")
    fronts[0].mark_ready("fraud", second)
    assert registry.get("fraud").traffic == {first: 1.0}


def test_a_held_revision_gets_nothing_even_as_the_first(registry: Registry, small_bundles: Bundles) -> None:
    first = registry.deploy(small_bundles(0), "fraud", mode=Mode.NONE).id
    registry.mark_ready("fraud", first)
    assert registry.get("fraud").traffic == {}
    assert registry.set_traffic("fraud", {first: 1}).traffic == {first: 1.0}


def test_every_change_is_in_the_log(registry: Registry, small_bundles: Bundles) -> None:
    first, second = two(registry, small_bundles)
    registry.rollback("fraud", reason="slow")
    registry.configure("fraud", {"priority": "bulk"})
    registry.drop("fraud", second)
    registry.undeploy("fraud")
    lines = read_audit(registry.workspace.journal)
    kinds = ["deploy", "ready", "deploy", "ready", "rollback", "configure", "drop", "undeploy"]
    assert [line["what"] for line in lines] == kinds
    assert {line["actor"] for line in lines} == {"test"}
    assert lines[4]["facts"]["traffic"] == {first: 1.0}
    assert lines[4]["facts"]["was"] == {second: 1.0}
    assert [line["what"] for line in read_audit(registry.workspace.journal, stream="deploy/fraud")] == kinds


def test_a_line_that_was_not_delivered_is_delivered_by_the_next_change(
    registry: Registry, small_bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.deploy(small_bundles(0), "fraud")
    with monkeypatch.context() as killed:
        killed.setattr(registry._audit, "deliver", lambda: 0)  # killed right after the transaction
        registry.configure("fraud", {"deadline_ms": 50})
    assert [line["what"] for line in read_audit(registry.workspace.journal)] == ["deploy"]
    registry.configure("fraud", {"deadline_ms": 60})
    facts = [line["facts"].get("settings") for line in read_audit(registry.workspace.journal)]
    assert facts == [None, {"deadline_ms": 50}, {"deadline_ms": 60}]


def test_a_line_that_was_delivered_twice_is_shown_once(registry: Registry, small_bundles: Bundles) -> None:
    registry.deploy(small_bundles(0), "fraud")
    entry = registry.workspace.journal.read("audit")[0]
    registry.workspace.journal.append("audit", entry.kind, entry.payload, actor=entry.actor, subject=entry.subject)
    assert len(read_audit(registry.workspace.journal)) == 1


def test_two_people_never_lose_each_others_change(tmp_path: Path, small_bundles: Bundles) -> None:
    with Workspace.open(tmp_path / "ws") as workspace:
        registry = Registry(workspace)
        registry.deploy(small_bundles(0), "fraud")

        def work(name: str) -> None:
            for value in range(1, 11):
                Registry(workspace, actor=name).configure("fraud", {name: value})

        threads = [threading.Thread(target=work, args=(n,)) for n in ("target_ms", "deadline_ms")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        now = registry.get("fraud")
        assert (now.target_ms, now.deadline_ms) == (10, 10)
        assert len(read_audit(workspace.journal, limit=1000)) == 21


def test_a_bundle_is_kept_signed_and_the_source_may_go(
    registry: Registry, small_bundles: Bundles, tmp_path: Path
) -> None:
    shutil.copytree(small_bundles(0), tmp_path / "b")
    revision = registry.deploy(tmp_path / "b", "fraud")
    shutil.rmtree(tmp_path / "b")
    kept = bundles.open_kept(registry.workspace.path, revision.bundle)
    assert kept.id == revision.id
    assert (kept.path / "1" / "model.onnx").is_file()


@pytest.mark.parametrize("name", ["1/model.onnx", "bundle.json", "manifest.json"])
def test_a_changed_copy_is_not_loaded(registry: Registry, small_bundles: Bundles, name: str) -> None:
    revision = registry.deploy(small_bundles(0), "fraud")
    path = bundles.folder_of(registry.workspace.path, revision.bundle) / name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(BundleError):
        bundles.open_kept(registry.workspace.path, revision.bundle)


def test_a_bundle_signed_by_another_key_is_not_loaded(registry: Registry, small_bundles: Bundles) -> None:
    revision = registry.deploy(small_bundles(0), "fraud")
    shutil.rmtree(bundles.keys_folder(registry.workspace.path))
    with pytest.raises(BundleError, match="another key"):
        bundles.open_kept(registry.workspace.path, revision.bundle)


def test_a_bundle_without_signature_is_not_loaded(registry: Registry, small_bundles: Bundles) -> None:
    revision = registry.deploy(small_bundles(0), "fraud")
    bundles.signature_of(registry.workspace.path, revision.bundle).unlink()
    with pytest.raises(BundleError, match="not signed"):
        bundles.open_kept(registry.workspace.path, revision.bundle)


def test_a_damaged_bundle_is_refused_and_leaves_nothing(
    registry: Registry, small_bundles: Bundles, tmp_path: Path
) -> None:
    shutil.copytree(small_bundles(0), tmp_path / "b")
    golden = tmp_path / "b" / "tests" / "golden.npz"
    golden.write_bytes(golden.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="content was changed"):
        registry.deploy(tmp_path / "b", "fraud")
    assert registry.endpoints() == []
    assert list((registry.workspace.path / "bundles").glob("*")) == []


def test_sweep_removes_only_what_nobody_names(registry: Registry, small_bundles: Bundles, clock: FakeClock) -> None:
    first, second = two(registry, small_bundles)
    registry.rollback("fraud")
    registry.drop("fraud", second)
    clock.now = time.time()
    assert registry.sweep() == []  # a deployment may be under way
    clock.go(7200)
    assert [digest[:12] for digest in registry.sweep()] == [second]
    bundles.open_kept(registry.workspace.path, registry.get("fraud").revisions[0].bundle)
    assert first == registry.get("fraud").revisions[0].id


def test_wrong_words_are_refused_before_anything_is_copied(registry: Registry, small_bundles: Bundles) -> None:
    for name in ("", "a b", "../up", "x" * 65, "ä"):
        with pytest.raises(OptionError, match="An endpoint's name has"):
            registry.deploy(small_bundles(0), name)
    with pytest.raises(OptionError, match="Did you mean 'target_ms'"):
        registry.deploy(small_bundles(0), "fraud", options={"target": 5})
    with pytest.raises(OptionError, match="must rise to 1"):
        registry.deploy(small_bundles(0), "fraud", mode=Mode.CANARY, steps=(CanaryStep(0.5),))
    with pytest.raises(OptionError, match="above 0 and at most 1"):
        registry.deploy(small_bundles(0), "fraud", mode=Mode.WEIGHT, weight=float("nan"))
    assert not (registry.workspace.path / "bundles").exists()


def test_an_unknown_endpoint_offers_the_nearest(registry: Registry, small_bundles: Bundles) -> None:
    registry.deploy(small_bundles(0), "fraud")
    with pytest.raises(NotFoundError, match="Did you mean 'fraud'"):
        registry.rollback("frud")


def test_undeploy_forgets_the_windows_of_that_endpoint_alone(registry: Registry, small_bundles: Bundles) -> None:
    revision = registry.deploy(small_bundles(0), "fraud").id
    records = registry.workspace.records
    records.put_all([Change("deploy_window", f"{e}/{revision}/f1", {}) for e in ("fraud", "fraud-2")])
    registry.undeploy("fraud")
    assert [r.key for r in records.find("deploy_window")] == [f"fraud-2/{revision}/f1"]
    assert registry.endpoints() == []


def test_what_shall_never_be_kept_must_be_a_column(registry: Registry, small_bundles: Bundles) -> None:
    wrong = {"capture": {"redact": ["color"]}}
    with pytest.raises(NotFoundError, match="Did you mean 'colour'"):
        registry.deploy(small_bundles(0), "fraud", options=wrong)
    assert registry.endpoints() == []
    first = registry.deploy(small_bundles(0), "fraud", options={"capture": {"redact": ["colour"]}}).id
    registry.mark_ready("fraud", first)
    with pytest.raises(NotFoundError, match="'color'"):
        registry.configure("fraud", wrong)
    assert registry.configure("fraud", {"capture": {"redact": ["size"]}}).capture.redact == ("size",)
    folder = bundles.folder_of(registry.workspace.path, registry.get("fraud").revisions[0].bundle)
    (folder / "bundle.json").unlink()
    assert registry.configure("fraud", wrong).capture.redact == ("color",), "nothing is known of its columns any more"
