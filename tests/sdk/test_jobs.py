"""The queue by Python: what may be asked, what is refused, and a search that goes on where it was stopped."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tidemill.core.errors import ConflictError, DataError, NotFoundError, OptionError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.versions import list_versions, write_version
from tidemill.data.versions.governance import audit_of, drop, say
from tidemill.jobs.queue.queue import JobQueue
from tidemill.sdk import jobs
from tidemill.sdk.job_kinds import KINDS, known_kinds
from tidemill.store.workspace import Workspace


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ws"


def work(place: Path, **options: Any) -> None:
    stop = threading.Event()
    timer = threading.Timer(250, stop.set)
    timer.start()
    jobs.work(workspace=place, until_idle=True, stop=stop, devices=[], **options)
    timer.cancel()
    assert not stop.is_set()


def test_a_job_from_submission_to_result(place: Path) -> None:
    made = jobs.submit_job("gc", {"dry_run": True}, name="tidy", priority=2, workspace=place, actor="mia")
    assert (made["job"], made["state"], made["position"], made["owner"]) == (1, "queued", 1, "mia")
    assert jobs.job_log(1, workspace=place)["over"] is False
    work(place)
    done = jobs.show_job(1, workspace=place)
    assert (done["state"], done["result"]["dry_run"]) == ("done", True)
    assert [a["outcome"] for a in done["attempts"]] == ["done"]
    assert jobs.job_log(1, workspace=place)["over"] is True
    assert [job["job"] for job in jobs.list_jobs(states=["done"], workspace=place)] == [1]
    assert jobs.list_jobs(states=["open"], workspace=place) == []
    with pytest.raises(ConflictError):
        jobs.cancel_job(1, workspace=place)
    json.dumps(done, allow_nan=False)


def test_garbage_is_collected_with_the_roles_of_who_queued_it(place: Path) -> None:
    with Workspace.open(place) as workspace:
        for name in ("people", "people", "pets"):
            table = pa.table({"x": [1.0, float(len(list_versions(workspace)))]})
            write_version(workspace, name, table, Schema((Column("x", SemanticType.NUMBER),)))
        say(workspace, "people", owner="mia")
        first = list_versions(workspace, "people")[0]
        drop(workspace, f"people@{first.hash}")
        drop(workspace, "pets")
    asked = [("ben", {}), ("ben", {"dataset": "pets"}), ("mia", {})]
    made = [jobs.submit_job("gc", words, workspace=place, actor=who)["job"] for who, words in asked]
    work(place)
    refused, pets, people = (jobs.show_job(job, workspace=place) for job in made)
    assert (refused["state"], refused["attempt"]) == ("failed", 1)
    assert "ben may not do this with the dataset 'people'" in refused["error"]
    assert [pets["state"], people["state"]] == ["done", "done"]
    assert people["result"]["versions"] == [first.ref]
    with Workspace.open(place) as workspace:
        kinds = [(e.kind, e.actor) for e in audit_of(workspace, "people")]
        assert kinds[-2:] == [("dataset_refused", "ben"), ("dataset_collected", "mia")]
        assert audit_of(workspace, "pets")[-1].actor == "ben"


def test_a_file_of_jobs_that_need_each_other(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "night.yaml"
    file.write_text(
        "jobs:\n"
        "  - {name: tidy, kind: gc, needs: [look, {job: broken, until: ended}], time: 1h, memory: 1GB}\n"
        "  - {name: look, kind: gc, arguments: {dry_run: true}}\n"
        "  - {name: broken, kind: drift, arguments: {a: none, b: none}}\n",
        encoding="utf-8",
    )
    made = jobs.submit_jobs(file, workspace=place)
    assert [job["name"] for job in made] == ["tidy", "look", "broken"]
    assert made[0]["state"] == "waiting"
    work(place)
    assert {job["name"]: job["state"] for job in jobs.list_jobs(workspace=place)} == {
        "tidy": "done", "look": "done", "broken": "failed",
    }  # fmt: skip
    broken = jobs.show_job(made[2]["job"], workspace=place)
    assert "none" in broken["error"]
    assert broken["attempt"] == 1, "wrong input is not tried again"


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        ({"kind": "gcc"}, NotFoundError, "Did you mean 'gc'"),
        ({"kind": "gc", "comand": "rm"}, NotFoundError, "no field of a job 'comand'"),
        ({"kind": "gc", "arguments": {"dry": True}}, OptionError, "no argument 'dry'"),
        ({"kind": "gc", "arguments": {"dry_run": 1}}, OptionError, "of the type boolean"),
        ({"kind": "gc", "arguments": []}, None, ""),
        ({"kind": "gc", "arguments": [1]}, OptionError, "must be an object"),
        ({"kind": "drift", "arguments": {"a": "x"}}, OptionError, "'b' is missing"),
        ({"kind": "gc", "needs": "x"}, OptionError, "must be a list"),
        ({"kind": "gc", "needs": [{"job": 1, "until": "soon"}]}, OptionError, "no need of a job"),
        ({"kind": "gc", "needs": [7]}, NotFoundError, "no job 7"),
        ({"kind": "gc", "priority": "high"}, OptionError, "whole number"),
        ({"kind": "gc", "memory": "much"}, OptionError, "amount of memory"),
        ({"kind": "gc", "time": "soon"}, OptionError, "not a duration"),
        ({"kind": "gc", "cpus": 0}, OptionError, "at least one core"),
    ],
)
def test_what_can_not_be_queued_says_why(
    place: Path, step: dict[str, Any], error: type[Exception] | None, words: str
) -> None:
    if error is None:
        assert jobs.submit_jobs([step], workspace=place)
        return
    with pytest.raises(error, match=words):
        jobs.submit_jobs([step], workspace=place)
    assert jobs.list_jobs(workspace=place) == []


@pytest.mark.parametrize("text", ["", "a: 1", "jobs: []", "[1]", "{", "- kind: gc\n- x"])
def test_a_file_that_holds_no_jobs_is_refused(place: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError):
        jobs.submit_jobs(file, workspace=place)
    with pytest.raises(OptionError, match="no such file"):
        jobs.submit_jobs(tmp_path / "absent.yaml", workspace=place)


def test_paths_are_kept_whole_and_names_of_versions_as_they_are(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("a,y\n1,2\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    made = jobs.submit_job("fit", {"data": "rows.csv", "target": "y", "out": "m.tm"}, workspace=place)
    assert made["arguments"]["data"] == str(tmp_path / "rows.csv")
    assert made["arguments"]["out"] == str(tmp_path / "m.tm")
    assert jobs.submit_job("fit", {"data": "rows@1a2b"}, workspace=place)["arguments"]["data"] == "rows@1a2b"


@pytest.mark.parametrize("path", ["/etc/passwd", "../metadata.db", "a/../../metadata.db", ".", "", "a\0b", "x/\n"])
def test_from_afar_only_one_folder_can_be_named(place: Path, path: str) -> None:
    with pytest.raises((OptionError, NotFoundError, DataError)):
        jobs.submit_job("evaluate", {"bundle": path, "data": "x/y.csv"}, workspace=place, afar=True)
    with pytest.raises((OptionError, NotFoundError, DataError)):
        jobs.submit_job("fit", {"data": path}, workspace=place, afar=True)


def test_from_afar_a_name_of_data_is_a_version_of_the_workspace(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_csv: Path
) -> None:
    from tidemill.sdk.data.keep import add

    monkeypatch.chdir(small_csv.parent)  # a file of that name stands in the worker's folder
    with pytest.raises(NotFoundError):
        jobs.submit_job("fit", {"data": small_csv.name}, workspace=place, afar=True)
    add(small_csv, name="small", workspace=place)
    made = jobs.submit_job("fit", {"data": "small", "out": "m.tm"}, workspace=place, afar=True)
    assert made["arguments"]["data"].startswith("small@")
    assert made["arguments"]["out"] == str((place / jobs.FILES / "m.tm").resolve())


def test_from_afar_only_names_that_the_caller_may_read_are_offered(place: Path, small_csv: Path) -> None:
    from tidemill.sdk.data.keep import add

    add(small_csv, name="small", workspace=place)
    with Workspace.open(place) as workspace:
        say(workspace, "small", owner="ann")
    for actor, offered in (("ann", True), ("eve", False)):
        with pytest.raises(NotFoundError) as caught:
            jobs.submit_job("fit", {"data": "smal"}, workspace=place, actor=actor, afar=True)
        assert ("'small'" in str(caught.value)) is offered


def test_every_kind_names_a_function_that_takes_its_arguments() -> None:
    import inspect

    from tidemill.jobs._call import resolve

    for kind in KINDS:
        parameters = inspect.signature(resolve(kind.call)).parameters
        anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        assert anything or set(kind.arguments) == set(parameters) - {"context"}
    assert {kind["kind"] for kind in jobs.list_kinds()} == known_kinds().names


def test_quotas_by_words(place: Path) -> None:
    jobs.set_quota("mia", queued=1, workspace=place)
    jobs.submit_job("gc", workspace=place, actor="mia")
    with pytest.raises(OptionError, match="1 jobs waiting"):
        jobs.submit_job("gc", workspace=place, actor="mia")
    assert jobs.list_quotas(place) == [{"owner": "mia", "running": None, "queued": 1}]
    jobs.set_quota("mia", workspace=place)
    assert jobs.list_quotas(place) == []


def test_logs_of_attempts_that_are_not_there(place: Path) -> None:
    jobs.submit_job("gc", workspace=place)
    with pytest.raises(NotFoundError, match="no attempt 2"):
        jobs.job_log(1, attempt=2, workspace=place)
    with pytest.raises(NotFoundError, match="no job 9"):
        jobs.job_log(9, workspace=place)
    with pytest.raises(NotFoundError, match="Did you mean 'queued'"):
        jobs.list_jobs(states=["queud"], workspace=place)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_is_a_job_that_can_be_cancelled_and_goes_on(place: Path, tmp_path: Path, small_csv: Path) -> None:
    arguments = {
        "data": str(small_csv), "target": "label", "trials": 3, "families": ["linear"], "out": str(tmp_path / "m.tm"),
    }  # fmt: skip
    made = jobs.submit_job("fit", arguments, workspace=place)

    def cancel() -> None:
        end = time.monotonic() + 120
        with Workspace.open(place) as opened:
            while time.monotonic() < end:
                studies = opened.metadata.studies()
                if studies and any(t.state.value == "complete" for t in opened.metadata.trials(studies[0].name)):
                    JobQueue(opened.database).cancel(made["job"])
                    return
                time.sleep(0.02)

    thread = threading.Thread(target=cancel)
    thread.start()
    work(place)
    thread.join()
    first = jobs.show_job(made["job"], workspace=place)
    if first["state"] == "cancelled":
        jobs.retry_job(made["job"], workspace=place)
        work(place)
    done = jobs.show_job(made["job"], workspace=place)
    assert done["state"] == "done", done
    assert done["result"]["study"] == f"job-{made['job']}"
    assert (tmp_path / "m.tm").is_dir()
    with Workspace.open(place) as opened:
        numbers = [t.number for t in opened.metadata.trials(f"job-{made['job']}")]
    assert numbers == sorted(set(numbers)), "one study, no trial twice"
