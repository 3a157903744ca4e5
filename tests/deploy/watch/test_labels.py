"""A bundle that gives several labels, from an answer over feedback to the data that the next one learns from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tests.bundle.texts.made import COLUMN, SAID
from tests.bundle.texts.test_labels import TAGS, write
from tests.deploy.engine.conftest import Start, until
from tests.deploy.watch.test_media import Served

from tidemill.core.task import TaskKind
from tidemill.data.coerce import encode_target
from tidemill.data.versions import find_version, load_version
from tidemill.deploy.client import Client
from tidemill.deploy.seen import Seen
from tidemill.deploy.types import Feedback
from tidemill.deploy.watch import feedback
from tidemill.deploy.watch.capture import META
from tidemill.deploy.watch.feedback import FeedbackLog
from tidemill.deploy.watch.observer import Watch
from tidemill.deploy.watch.report import report
from tidemill.sdk.options import FitOptions
from tidemill.sdk.sources import read_version
from tidemill.sdk.texts import prepare_texts
from tidemill.sdk.watch import captured_version
from tidemill.store.workspace import Workspace


@pytest.fixture
def tags(workspace: Workspace, tmp_path: Path, start: Start) -> Iterator[Served]:
    served = Served(workspace, write(tmp_path / "mood.tm").path, start)
    yield served
    served.watch.close()


def answers(served: Served, texts: list[str]) -> tuple[str, list[list[str]]]:
    status, got = served.running.ask("/v1/predict/m", {"records": [{COLUMN: text} for text in texts]})
    assert status == 200, got
    return got["request_id"], [answer["labels"] for answer in got["predictions"]]


def test_labels_that_are_told_are_counted_as_a_set_and_learnt_from(tags: Served, workspace: Workspace) -> None:
    request, given = answers(tags, SAID)
    several = next(k for k, labels in enumerate(given) if len(labels) > 1)
    other = (several + 1) % len(SAID)
    wrong = sorted({*given[other], "calm"} ^ {"glad, or so"})
    untold = (several + 2) % len(SAID)
    truths: dict[int, Any] = {k: labels for k, labels in enumerate(given) if k != untold}
    truths[several] = [*reversed(given[several]), given[several][0]]
    truths[other] = [*wrong, "never seen"]
    tags.fold(len(SAID))
    items = [{"request_id": request, "row": k, "label": label} for k, label in truths.items()]
    status, said = tags.running.ask("/v1/feedback/m", {"items": items})
    assert (status, said["kept"]) == (200, len(truths))
    (notice,) = said["notices"]
    assert f"names the label {given[several][0]!r} 2 times; it counts once" in notice

    revision = next(iter(workspace.records.get("endpoint", "m").body["traffic"]))
    until(lambda: tags.fold(len(SAID)) is None and tags.watch.window("m", revision).feedback == len(truths))
    window = tags.watch.window("m", revision)
    assert (window.feedback_right, window.feedback_wrong) == (len(truths) - 1, 1)
    assert Seen.of(window).right == len(truths) - 1, "the gate of a canary counts the same"
    key = next(key for key in window.confusion if "never seen" in key)
    assert key == f"{';'.join(sorted([*wrong, 'never seen']))}\t{';'.join(given[other])}"
    tags.watch.close()
    truth = report(workspace, "m")["revisions"][0]["truth"]
    assert truth["accuracy"] == pytest.approx((len(truths) - 1) / len(truths))
    assert 0 < truth["f1"] < 1

    made = captured_version("m", name="cases", workspace=workspace, actor="mia")
    assert made["rows"] == len(SAID)
    table, _ = load_version(workspace, f"cases@{made['hash']}")
    rows = {int(r[f"{META}row"]): r["mood"] for r in table.to_pylist()}
    assert rows[untold] is None
    assert json.loads(rows[several]) == list(reversed(given[several]))
    assert json.loads(rows[other]) == [*wrong, "never seen"]
    assert find_version(workspace, "cases").parameters["endpoint"] == "m"


def test_a_fit_reads_what_was_told_and_leaves_out_what_nobody_told(tags: Served, workspace: Workspace) -> None:
    texts = [f"{text} {k}" for k, text in enumerate(["good", "bad", "so fine", "awful"] * 3)]
    request, _ = answers(tags, texts)
    tags.fold(len(texts))
    for row in range(10):
        tags.tell(request, [["sad", "calm"], "calm; loud", [], "sad"][row % 4], row)
    captured_version("m", name="cases", workspace=workspace, actor="mia")
    named = read_version("cases", workspace, actor="mia")
    assert named is not None
    options = named.options(FitOptions(kind="text-multilabel"), named.target)
    ready = prepare_texts(None, named.target, options, named)
    assert ready.task.kind is TaskKind.MULTILABEL
    assert ready.task.classes == ("calm", "loud", "sad")
    assert ready.y.sum(axis=0).tolist() == [6, 3, 5]
    assert (len(ready.y), int((ready.y.sum(axis=1) == 0).sum())) == (10, 2)
    assert any("2 of 12 rows have no target" in notice for notice in ready.notices)
    assert (encode_target(named.raw, ready.task) < 0).all(axis=1).sum() == 2


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([["sad"]], "list of texts, numbers, true or false, and nothing else"),
        ([None], "and nothing else"),
        ([{"sad": 1}], "and nothing else"),
        (["sad", " "], "an empty label; a row to which none applies has an empty list"),
        (["sad;calm"], "';' stands between labels"),
        ([str(k) for k in range(1001)], "1,001 labels; at most 1,000"),
        (["x" * 5000], "4,096 characters"),
        ({"sad": 1}, "or a list of these"),
        (None, "no label"),
    ],
)
def test_what_no_row_can_have_is_refused_and_nothing_is_kept(tags: Served, label: Any, message: str) -> None:
    items = [{"request_id": "r", "label": ["sad"]}, {"request_id": "r", "label": label}]
    status, said = tags.running.ask("/v1/feedback/m", {"items": items})
    assert (status, message in said["error"]) == (400, True), said
    assert feedback.read_all(tags.workspace.path / "watch" / "m" / "feedback").num_rows == 0


def test_a_model_that_gives_one_label_takes_no_list(
    start: Start, small_bundles: Callable[[int], Path], workspace: Workspace
) -> None:
    watch = Watch(workspace, start=False)
    server = start({"m": small_bundles(0)}, observer=watch)
    status, said = server.ask("/v1/feedback/m", {"request_id": "r", "label": ["yes"]})
    assert status == 400
    assert said["error"].endswith('needs a "label": a text, a number, true or false.')
    item = _item_schema(server)
    assert "anyOf" not in item["properties"]["label"]
    watch.close()


def test_the_document_and_the_client_know_lists(tags: Served) -> None:
    one, many = _item_schema(tags.running)["properties"]["label"]["anyOf"]
    assert "array" not in one["type"]
    assert (many["type"], many["maxItems"]) == ("array", 1000)
    request, given = answers(tags, SAID[:2])
    with Client(f"http://127.0.0.1:{tags.running.port}") as client:
        told = [{"request_id": request, "label": set(given[0])}, {"request_id": request, "row": 1, "label": ()}]
        assert client.feedback("m", told) == 2
    kept = feedback.read_all(tags.workspace.path / "watch" / "m" / "feedback")
    assert [orjson.loads(label) for label in kept["label"].to_pylist()] == [sorted(given[0]), []]


def test_lists_are_as_durable_as_others(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path, "front-1")
    log.append([Feedback("a", ["sea", "boat"]), Feedback("b", [])])  # and is never closed: the process was killed
    assert feedback.recover(tmp_path, lambda writer: True) == 1
    assert feedback.read_all(tmp_path)["label"].to_pylist() == ['["sea","boat"]', "[]"]


def test_texts_that_were_read_are_captured_and_feedback_on_them_is_counted(workspace: Workspace) -> None:
    watch = Watch(workspace, start=False)
    outputs = {"prediction": np.array(["Ulm", "7"], dtype=object), "confidence": np.array([0.9, 0.8])}
    watch.batch("lines", "a1", {"size": np.zeros(2)}, outputs, ["r", "r"])
    watch.fold()
    watch.feedback("lines", [Feedback("r", "Ulm"), Feedback("r", "7", row=1)])
    watch.close()
    seen = watch.window("lines", "a1")
    assert (seen.rows, seen.feedback, seen.feedback_right, seen.feedback_error_sum) == (2, 2, 2, 0.0)
    assert 'tidemill_watch_failures_total{front="' in watch.render_metrics()
    assert watch._failures == 0, watch._last_failure


def _item_schema(server: Any) -> Any:
    post = server.ask("/openapi.json")[1]["paths"]["/v1/feedback/m"]["post"]
    body = post["requestBody"]["content"]["application/json"]["schema"]
    return body["properties"]["items"]["items"]


def test_the_classes_of_these_tests_hold_a_comma() -> None:
    assert any("," in label for label in TAGS.classes), "no label may be taken apart at what stands in it"
