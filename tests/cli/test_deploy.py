"""Deploy, look, shift, go back and undeploy by words, as text and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.bundle.small import make

from tidemill.cli.main import run
from tidemill.data.features.access import grant
from tidemill.data.features.registry import register
from tidemill.data.features.types import EntityKey, Feature, FeatureGroup
from tidemill.deploy.registry import Registry
from tidemill.store.workspace import Workspace

Say = Callable[..., Any]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two small bundles."""
    root = tmp_path_factory.mktemp("pair")
    for number in range(2):
        make(root / f"m{number}", "binary", rows=200 + number)
    return root / "m0", root / "m1"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ws"


@pytest.fixture
def say(place: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command, as JSON unless told otherwise, and give what it said."""

    def command(*words: object, code: int = 0, text: bool = False) -> Any:
        arguments = [str(w) for w in words] + ["--workspace", str(place)] + ([] if text else ["--json"])
        assert run(arguments) == code, capsys.readouterr()
        said = capsys.readouterr()
        return (said.out or said.err) if text else json.loads(said.out or said.err)

    return command


def ready(place: Path, revision: str) -> None:
    with Workspace.open(place) as workspace:
        Registry(workspace, actor="engine").mark_ready("fraud", revision)


def test_deploy_shift_roll_back_and_undeploy(say: Say, place: Path, pair: tuple[Path, Path]) -> None:
    first = say("deploy", pair[0], "--endpoint", "fraud")
    assert first["state"] == "checking"
    assert first["serving"] is False
    ready(place, first["revision"])
    second = say("deploy", pair[1], "--endpoint", "fraud", "--weight", "0.5")
    ready(place, second["revision"])
    shown = say("endpoints", "fraud")
    assert [r["weight"] for r in shown["revisions"]] == [0.5, 0.5]

    shifted = say("traffic", "fraud", f"{first['revision'][:6]}=1", f"{second['revision']}=3")
    assert shifted["traffic"] == {first["revision"]: 0.25, second["revision"]: 0.75}

    back = say("rollback", "fraud", "--reason", "too slow")
    assert (back["from"], back["to"]) == (second["revision"], first["revision"])
    assert back["seconds"] < 1

    assert say("undeploy", "fraud", "--revision", second["revision"])["gone"] is True
    say("undeploy", "fraud")
    assert say("endpoints") == []
    log = say("audit", "--subject", "fraud")
    assert [line["what"] for line in log] == [
        "deploy", "ready", "deploy", "ready", "traffic", "rollback", "drop", "undeploy",
    ]  # fmt: skip
    assert {line["actor"].partition(":")[0] for line in log} == {"user", "engine"}


def test_the_words_for_people(say: Say, place: Path, pair: tuple[Path, Path]) -> None:
    assert "No endpoints yet" in say("endpoints", text=True)
    assert "Nothing was changed yet" in say("audit", text=True)
    assert "tidemill up" in say("deploy", pair[0], "--endpoint", "fraud", text=True)
    revision = say("endpoints")[0]["revisions"][0]["id"]
    ready(place, revision)
    assert re.search(rf"fraud\s+{revision} 1", say("endpoints", text=True))
    shown = say("endpoints", "fraud", text=True)
    assert "ready" in shown
    assert "min_replicas" in shown
    assert "deploy" in say("audit", text=True)
    other = say("deploy", pair[1], "--endpoint", "fraud", "--canary", "--steps", "0.1,1")["revision"]
    ready(place, other)
    assert "step 1 of 2" in say("endpoints", text=True)
    assert f"back from {other} to {revision}" in say("rollback", "fraud", text=True)


def test_settings_go_along(say: Say, pair: tuple[Path, Path]) -> None:
    say("deploy", pair[0], "--endpoint", "fraud", "--bulk", "--min-replicas", "1", "--target-ms", "20")
    shown = say("endpoints", "fraud")
    assert (shown["priority"], shown["min_replicas"], shown["target_ms"]) == ("bulk", 1, 20.0)


def test_feature_groups_go_along(say: Say, place: Path, pair: tuple[Path, Path]) -> None:
    with Workspace.open(place) as workspace:
        for name, feature in (("user", "size"), ("shop", "weight"), ("other", "nothing_of_it")):
            register(workspace, FeatureGroup(name, (EntityKey("id"),), (Feature(feature),)))
    groups = ("--features", "user", "--features", "shop")
    say("deploy", pair[0], "--endpoint", "fraud", *groups)
    assert say("endpoints", "fraud")["features"] == ["user", "shop"]
    say("deploy", pair[1], "--endpoint", "fraud")  # what is not said stays
    assert say("endpoints", "fraud")["features"] == ["user", "shop"]
    assert "'users'" in say("deploy", pair[0], "-e", "new", "--features", "users", code=2)["message"]
    assert "'other' holds no column" in say("deploy", pair[0], "-e", "new", "--features", "other", code=2)["message"]
    with Workspace.open(place) as workspace:
        grant(workspace, "user", {"somebody else": "owner"})
    say("deploy", pair[0], "--endpoint", "fraud")  # what an endpoint has, it keeps
    refused = say("deploy", pair[0], "-e", "new", "--features", "user", code=2)["message"]
    assert "the role 'reader' is needed" in refused
    assert [e["name"] for e in say("endpoints")] == ["fraud"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["deploy", "BUNDLE", "--endpoint", "a b"], "An endpoint's name has"),
        (["deploy", "BUNDLE", "--endpoint", "fraud", "--canary", "--shadow"], "Only one of canary and shadow"),
        (["deploy", "BUNDLE", "--endpoint", "fraud", "--steps", "a"], "--steps"),
        (["deploy", "BUNDLE", "--endpoint", "fraud", "--weight", "2"], "--weight"),
        (["deploy", "nowhere", "--endpoint", "fraud"], "There is no bundle 'nowhere'"),
        (["rollback", "fraud"], "There is no endpoint 'fraud'"),
        (["traffic", "fraud", "a"], "0f3a=0.9"),
        (["undeploy", "fraud"], "There is no endpoint 'fraud'"),
        (["endpoints", "fraud"], "There is no endpoint 'fraud'"),
    ],
)
def test_wrong_words_are_told_in_one_message(say: Say, pair: tuple[Path, Path], words: list[str], message: str) -> None:
    said = say(*[str(pair[0]) if w == "BUNDLE" else w for w in words], code=2)
    assert message in said["message"]


def test_settings_change_without_a_deployment(say: Say, place: Path, pair: tuple[Path, Path]) -> None:
    say("deploy", pair[0], "--endpoint", "fraud")
    words = ("--bulk", "--idle", "30", "--deterministic", "--capture", "sample=0.05", "--capture", "per_hour=20",
             "--redact", "size", "--redact", "colour")  # fmt: skip
    shown = say("configure", "fraud", *words)
    assert (shown["priority"], shown["idle_s"], shown["deterministic"]) == ("bulk", 30.0, True)
    kept = shown["capture"]
    assert (kept["sample"], kept["per_hour"], kept["redact"], kept["days"]) == (0.05, 20, ["size", "colour"], 30.0)
    after = say("configure", "fraud", "--latency", "--batches", "--redact", "", "--capture", "days=1.5")
    assert (after["priority"], after["deterministic"], list(after["capture"]["redact"])) == ("latency", False, [])
    assert (after["capture"]["sample"], after["capture"]["days"]) == (0.05, 1.5)
    say("configure", "fraud", "--shadow", "")
    for more, word in (
        ((), "nothing to change"), (("--capture", "sample=2"), "between 0 and 1"),
        (("--capture", "share=1"), "no field 'share'"), (("--capture", "sample"), "sample"),
        (("--features", "users"), "users"), (("--shadow", "77"), "77"), (("--canary", "77"), "77"),
        (("--redact", "color"), "Did you mean 'colour'"), (("--redact", "id"), "Known: 'colour', 'size', 'weight'"),
    ):  # fmt: skip
        assert word in say("configure", "fraud", *more, code=2)["message"]
