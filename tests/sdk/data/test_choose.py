"""Samples and comparable groups by name: kept, written, replayed, and only for those who may."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError, WorkspaceError
from tidemill.sdk import data, features
from tidemill.store.workspace import Workspace


def people(rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    age, north = rng.uniform(20, 70, rows).round(1), rng.random(rows) < 0.4
    treated = rng.random(rows) < 0.6 / (1 + np.exp(-(0.08 * (age - 50) + north)))
    return pa.table(
        {
            "person": [f"p{seed}-{i}" for i in range(rows)],
            "age": age,
            "region": np.where(north, "north", "south"),
            "campaign": np.where(treated, "yes", "no"),
            "spent": (0.2 * age + 3 * north + 2.0 * treated + rng.normal(size=rows)).round(3),
            "label": rng.choice(["good", "bad"], rows),
        }
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    pq.write_table(people(600), tmp_path / "people.parquet")
    data.add(tmp_path / "people.parquet", target="label", workspace=tmp_path / "ws", actor="mia")
    return tmp_path


def test_a_sample_is_counted_shown_kept_written_and_replayed(place: Path) -> None:
    ws = place / "ws"
    told = data.match(
        "people", "age < 40", size=40, balance="label", stratify=(), show="region", name="young",
        out=place / "young.parquet", save=place / "young.json", workspace=ws, actor="mia",
    )  # fmt: skip
    assert (told["total"], told["size"]) == (600, 40)
    assert {s["column"] for s in told["preview"]} == {"label", "region", "age"}
    assert pq.read_table(place / "young.parquet").num_rows == 40
    assert data.describe("young", ws)["operation"] == "match"
    pq.write_table(people(300, seed=1), place / "more.parquet")
    data.append("people", place / "more.parquet", workspace=ws)
    by_file = data.match("people", replay=place / "young.json", workspace=ws)
    by_version = data.match("people", replay="young", workspace=ws)
    by_manifest = data.match("people", replay=told["manifest"], workspace=ws)
    assert by_file["manifest"] == by_version["manifest"] == by_manifest["manifest"]
    assert by_file["total"] == 900
    assert by_file["matched"] > told["matched"]
    assert by_file["manifest"]["where"] == told["manifest"]["where"]


def test_the_nearest_come_first_and_a_replay_has_the_same_targets(place: Path) -> None:
    ws = place / "ws"
    told = data.match(
        "people", similar_to="person = 'p0-3'", over="age,spent", metric="cosine", size=9, save=place / "s.json",
        workspace=ws,
    )  # fmt: skip
    assert told["size"] == 9
    assert len(told["manifest"]["similar_to"]["targets"]) == 1
    pq.write_table(people(50, seed=2), place / "other.parquet")  # without p0-3
    data.add(place / "other.parquet", target="label", workspace=ws)
    again = data.match("other", replay=place / "s.json", workspace=ws)
    assert again["manifest"]["similar_to"] == told["manifest"]["similar_to"]


def test_a_group_is_matched_by_its_name(place: Path) -> None:
    features.register({"name": "user", "entity": ["id"], "features": ["age"]}, workspace=place / "ws")
    rows = [{"id": i, "event_time": "2026-01-01T00:00:00Z", "age": 10.0 * i} for i in range(1, 5)]
    features.push("user", rows, offline=True, workspace=place / "ws")
    told = data.match("user", "age > 15", name="grown", workspace=place / "ws")
    assert (told["matched"], told["manifest"]["source"]) == (3, "group:user")
    assert data.match("user", replay="grown", workspace=place / "ws")["matched"] == 3
    assert features.match("user", "age > 15", workspace=place / "ws")["matched"] == 3


def test_comparable_groups_are_alike_kept_and_drawn(place: Path) -> None:
    told = data.compare(
        "people", "campaign = 'yes'", "age,region", outcome="spent", plot=place / "b.svg", name="pairs",
        workspace=place / "ws", actor="mia",
    )  # fmt: skip
    assert told["pairs"] > 50
    assert '"campaign"' in told["condition"]
    by = {b["column"]: b for b in told["balance"]}
    assert abs(by["age"]["difference_before"]) > 0.2 > abs(by["age"]["difference_after"])
    assert abs(told["effect"]["mean"] - 2.0) < 3 * told["effect"]["error"] + 0.2
    assert ElementTree.parse(place / "b.svg").getroot().tag.endswith("svg")
    assert data.describe("pairs", place / "ws")["operation"] == "compare"
    assert data.describe("pairs", place / "ws")["rows"] == told["treated"] + told["controls"]


def test_roles_hold_for_samples_and_for_what_is_made_of_them(place: Path) -> None:
    ws = place / "ws"
    data.say("people", owner="mia", roles={"ben": "reader"}, pii={"person": "name"}, workspace=ws, actor="mia")
    told = data.match("people", "age < 30", size=5, out=place / "x.parquet", name="few", workspace=ws, actor="ben")
    assert told["without"] == ["person"]
    assert "person" not in pq.read_table(place / "x.parquet").column_names
    for call in (
        lambda: data.match("people", "age < 30", workspace=ws, actor="eve"),
        lambda: data.match("people", out=place / "y.parquet", with_pii=True, workspace=ws, actor="ben"),
        lambda: data.match("people", name="people", workspace=ws, actor="ben"),
        lambda: data.compare("people", "campaign = 'yes'", "age", workspace=ws, actor="eve"),
        lambda: data.match("few", workspace=ws, actor="eve"),
        lambda: data.match("people", replay="few", workspace=ws, actor="eve"),
        lambda: data.blame(where="person = 'p0-3'", workspace=ws, actor="eve"),
    ):
        with pytest.raises(OptionError, match="may not do this"):
            call()
    for read in (data.describe, data.facts, data.verify, data.audit_log, data.log):
        with pytest.raises(OptionError, match="eve may not do this"):
            read("few", workspace=ws, actor="eve")
    with pytest.raises(OptionError, match="eve may not do this"):
        data.versions(ws, dataset="few", actor="eve")
    facts = data.facts("few", workspace=ws, actor="ben")
    assert (facts["owner"], facts["roles"], facts["pii"]) == (
        "ben",
        {"ben": "reader", "mia": "owner"},
        {"person": "name"},
    )
    with Workspace.open(ws) as opened:
        assert data.match("few", workspace=opened, actor="mia")["total"] == 5


def test_questions_that_contradict_themselves(place: Path) -> None:
    ws = place / "ws"
    (place / "bad.json").write_text("{}")
    (place / "list.json").write_text("[1]")
    (place / "torn.json").write_text('{"kind": "match", ')
    data.match("people", "age < 30", save=place / "good.json", workspace=ws)
    manifest = json.loads((place / "good.json").read_text())
    for call, error, said in (
        (lambda: data.match("people", "age < 3", replay=manifest, workspace=ws), OptionError, "a condition"),
        (lambda: data.match("people", size=3, replay=manifest, workspace=ws), OptionError, "size"),
        (lambda: data.match("people", replay=place / "bad.json", workspace=ws), DataError, "no selection"),
        (lambda: data.match("people", replay=place / "list.json", workspace=ws), DataError, "no selection"),
        (lambda: data.match("people", replay=place / "torn.json", workspace=ws), DataError, "can't be read"),
        (lambda: data.match("people", replay="people", workspace=ws), DataError, "only a version that was matched"),
        (lambda: data.match("people", replay="peple", workspace=ws), NotFoundError, "neither a file nor a version"),
        (lambda: data.match("people", similar_to="age > 3", workspace=ws), OptionError, "Over which columns"),
        (lambda: data.match("people", over="age", workspace=ws), OptionError, "Similar to what"),
        (lambda: data.match("people", similar_to="age > 3", over="age", metric="l9", workspace=ws), OptionError, "l9"),
        (lambda: data.match("people", name=" ", workspace=ws), OptionError, "needs a name"),
        (
            lambda: data.match("people", out=place / "none" / "x.parquet", workspace=ws),
            WorkspaceError,
            "can't be written",
        ),
        (lambda: data.match(" ", workspace=ws), OptionError, "Say what to match from"),
        (lambda: data.compare("people", "age > 3", "spent", plot="x.jpg", workspace=ws), OptionError, ".svg or .png"),
        (lambda: data.compare("people", "age > 30", "spent", method="best", workspace=ws), OptionError, "'best'"),
        (lambda: data.compare("people", "age > 30", "spent", seed=-1, workspace=ws), OptionError, "seed >= 0"),
    ):
        with pytest.raises(error, match=said):
            call()
