"""The queue by Python: what may be asked, what is refused, and a search that goes on where it was stopped."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.sdk.queued import work_off

from tidemill.core.errors import ConflictError, DataError, NotFoundError, ObjectiveError, OptionError, RoleError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.versions import list_versions, write_version
from tidemill.data.versions.governance import audit_of, drop, say
from tidemill.jobs.queue.context import JobContext, JobStopped
from tidemill.jobs.queue.kinds import Argument, Kind
from tidemill.jobs.queue.queue import JobQueue
from tidemill.sdk import job_fit, jobs
from tidemill.sdk.data.doors import Door
from tidemill.sdk.fit import FitOptions, fit_to_bundle
from tidemill.sdk.job_fit import Listening
from tidemill.sdk.job_kinds import KINDS, known_kinds
from tidemill.search.events import Event
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
        ({"kind": "gc", "cpus": -1}, OptionError, "needs cores"),
        ({"kind": "fit", "arguments": {"data": "x", "colour": 1}}, OptionError, "no argument 'colour'"),
        ({"kind": "fit", "arguments": {"data": "x", "cpus": 2}}, OptionError, "no argument 'cpus'"),
        ({"kind": "fit", "arguments": {"data": "x", "weights": [1]}}, OptionError, "array of the type weights"),
        ({"kind": "fit", "arguments": {"data": "x", "weights": "a"}}, OptionError, "array of the type weights"),
        ({"kind": "fit", "arguments": {"data": "x", "types": {"a": 1}}}, OptionError, "object of the type string"),
        ({"kind": "fit", "arguments": {"data": "x", "types": {"a": "colour"}}}, OptionError, "no type 'colour'"),
        ({"kind": "fit", "arguments": {"data": "x", "test_size": 2}}, OptionError, "between 0 and 0.9"),
        ({"kind": "fit", "arguments": {"data": "x", "time": "soon"}}, OptionError, "not a duration"),
        ({"kind": "fit", "arguments": {"data": "x", "time": True}}, OptionError, "of the type duration"),
        ({"kind": "fit", "arguments": {"data": "x", "memory": "much"}}, OptionError, "amount of memory"),
        ({"kind": "fit", "arguments": {"data": "x", "trials": 0}}, OptionError, "at least 1"),
        ({"kind": "fit", "arguments": {"data": "x", "engine": "rai"}}, OptionError, "no engine 'rai'"),
        ({"kind": "fit", "arguments": {"data": "x", "engine": "inprocess", "time": 9}}, OptionError, "can't be ended"),
        ({"kind": "fit", "arguments": {"data": "x", "objective": "maximize roc_acu"}}, ObjectiveError, "roc_auc"),
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


def test_a_job_may_set_every_option_of_a_fit_but_those_that_are_not_its_own() -> None:
    apart = {"cpus", "started", "keep_all_features", "in_process", "database"}
    assert set(job_fit.FIT_OPTIONS) == set(FitOptions.__dataclass_fields__) - apart


def test_the_words_of_a_job_become_the_options_of_its_fit(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def spy(data: Any, target: Any, **words: Any) -> None:
        seen.update(words, data=data, target=target)
        raise KeyboardInterrupt

    monkeypatch.setattr("tidemill.sdk.fit.fit_to_bundle", spy)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    words = {
        "data": "rows.csv", "target": "y", "weights": ["minilm", "a-study", "sentence-transformers/all-MiniLM-L6-v2"],
        "images": "photos.zip", "test": "test.csv", "types": {"zip": "category"}, "group": "who", "positive": "1",
        "image_size": 32, "ignore_case": True, "decode": "beam", "families": ["linear"], "memory": "8GB", "time": 90,
    }  # fmt: skip
    made = jobs.submit_job("fit", words, workspace=place, memory="2GB")
    assert made["cpus"] == 0
    context = JobContext(made["job"], 1, "", place, place, cpus=3, memory_bytes=made["memory_bytes"])
    with pytest.raises(JobStopped):
        job_fit.fit(context, **made["arguments"])
    options: FitOptions = seen["options"]
    assert options.weights == (str(tmp_path / "minilm"), *words["weights"][1:])  # type: ignore[index]  # a list
    assert (options.images, options.test) == (str(tmp_path / "photos.zip"), str(tmp_path / "test.csv"))
    assert options.types == {"zip": SemanticType.CATEGORY}
    assert (options.group, options.positive, options.image_size) == ("who", "1", 32)
    assert (options.ignore_case, options.decode, options.families) == (True, "beam", ("linear",))
    assert (options.cpus, options.memory, options.time) == (3, 2 * 10**9, 90.0)
    assert (seen["data"], seen["target"], seen["job"]) == ("rows.csv", "y", made["job"])


def test_a_matrix_of_costs_is_kept_with_the_job_and_from_afar_names_no_file(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("matrix.csv").write_text("true,no,yes\nno,0,1\nyes,5,0\n", encoding="ascii")
    words = {"data": "a/rows.csv", "objective": "minimize cost(matrix.csv)"}
    made = jobs.submit_job("fit", words, workspace=place)
    assert made["arguments"]["objective"] == 'minimize cost(["no","yes"],[[0,1],[5,0]])'
    with pytest.raises(ObjectiveError, match="file can't be named"):
        jobs.submit_job("fit", words, workspace=place, afar=True)
    words["objective"] = "minimize cost([[0,1],[5,0]])"
    assert jobs.submit_job("fit", words, workspace=place, afar=True)["state"] == "queued"


@pytest.mark.parametrize(
    "words",
    [
        {"images": "/etc"},
        {"images": "../artifacts"},
        {"test": "/etc/passwd"},
        {"weights": ["ok.safetensors", "/etc/net"]},
        {"weights": ["../scratch/net"]},
        {"within": "/"},
        {"engine": "ray"},
        {"ray_address": "10.0.0.1:6379"},
        {"database": "sqlite:///x.db"},
    ],
)
def test_from_afar_no_argument_of_a_fit_leads_out_of_the_folder(place: Path, words: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        jobs.submit_job("fit", {"data": "a/x.csv", **words}, workspace=place, afar=True)


def test_from_afar_weights_are_files_of_the_folder_or_studies_of_data_that_the_caller_may_read(
    place: Path, small_csv: Path
) -> None:
    options = FitOptions(name="mine", trials=1, families=("linear",), cpus=1)
    fit_to_bundle(str(small_csv), "label", out=None, options=options, workspace=place).study.close()
    with Workspace.open(place) as workspace:
        dataset = workspace.metadata.get_study("mine").settings["source"]["dataset"]
        say(workspace, dataset, owner="ann")
    words = {"data": "a/x.csv", "weights": ["mine", "net/model.safetensors", "minilm"]}
    made = jobs.submit_job("fit", words, workspace=place, actor="ann", afar=True)
    folder = (place / jobs.FILES).resolve()
    expected = ["mine", str(folder / "net/model.safetensors"), str(folder / "minilm")]
    assert made["arguments"]["weights"] == expected
    assert made["arguments"]["within"] == str(folder), "names of images in the rows stay there, too"
    with pytest.raises(RoleError):
        jobs.submit_job("fit", words, workspace=place, actor="eve", afar=True)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"source": "net.py:build"}, NotFoundError, "no file net.py"),
        ({"source": "a.b:build", "recipe": {"epoch": 5}}, NotFoundError, "Did you mean 'epochs'"),
        ({"source": "a.b:build", "recipe": {"lr": "high"}}, OptionError, "wrong type"),
        ({"source": "a.b:build", "recipe": {"epochs": 0}}, OptionError, "epochs must be positive"),
        ({}, OptionError, "'source' is missing"),
    ],
)
def test_a_training_that_can_not_begin_is_not_queued(
    place: Path, words: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        jobs.submit_job("train", words, workspace=place)


def test_nobody_afar_names_code(place: Path) -> None:
    with pytest.raises(OptionError, match="'source' is for callers on the machine itself"):
        jobs.submit_job("train", {"source": "os:abort"}, workspace=place, afar=True)
    kind = Kind("x", "a:b", "For tests.", {"source": Argument("code", "What runs.")})
    with Workspace.open(place) as workspace, pytest.raises(OptionError, match="to name it is to run it"):
        jobs._settled(kind, {"source": "os:abort"}, Door(workspace, "eve"))


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


DYING = """
import os, signal
from tidemill.sdk import job_fit
from tidemill.store.metadata import SqlMetadataStore

def fit(context, **arguments):
    if context.attempt == 1:
        create = SqlMetadataStore.create_study
        def die(self, record):
            create(self, record)
            os.kill(os.getpid(), signal.SIGKILL)
        SqlMetadataStore.create_study = die
    return job_fit.fit(context, **arguments)
"""


def test_a_fit_that_is_killed_when_its_study_has_just_begun_goes_on_with_it(
    place: Path, tmp_path: Path, small_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dying.py").write_text(DYING, encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    words = {"data": str(small_csv), "target": "label", "trials": 2, "families": ["linear"]}
    with Workspace.open(place) as opened:
        done, outcomes = work_off(opened, "fit", words, "dying:fit")
        assert outcomes == ["died", "done"], done.error
        assert done.result["study"] == f"job-{done.id}"
        assert [study.name for study in opened.metadata.studies()] == [f"job-{done.id}"]
        assert len(opened.metadata.trials(f"job-{done.id}")) == 2


def test_a_study_of_the_same_name_that_is_not_the_jobs_own_is_left_alone(place: Path, small_csv: Path) -> None:
    options = FitOptions(name="mine", trials=1, families=("linear",), cpus=1)
    words: dict[str, Any] = {"data": str(small_csv), "target": "label", "name": "mine", "trials": 1}
    for number in (None, 7):
        fit_to_bundle(
            str(small_csv), "label", out=None, options=replace(options, name=f"study-{number}"), workspace=place,
            job=number,
        ).study.close()  # fmt: skip
    for number in (None, 7):
        context = JobContext(8, 1, "", place, place)
        with pytest.raises(OptionError, match="There is a study 'study-"):
            job_fit.fit(context, **{**words, "name": f"study-{number}"})
    again = job_fit.fit(JobContext(7, 2, "", place, place), **{**words, "name": "study-7"})
    assert again["study"] == "study-7"


def context_of(**words: Any) -> JobContext:
    return JobContext(1, 1, "", Path(), Path(), clock=lambda: 0.0, **words)


@pytest.mark.parametrize(
    ("left", "spent", "asked", "trials", "expected"),
    [
        (float("inf"), 0.0, None, None, 60.0),
        (float("inf"), 50.0, None, None, 10.0),
        (float("inf"), 500.0, None, None, 1.0),
        (float("inf"), 50.0, None, 3, None),
        (float("inf"), 50.0, "2m", None, 70.0),
        (60.0, 0.0, None, None, 54.0),
        (60.0, 0.0, "2m", None, 54.0),
        (600.0, 30.0, "2m", 3, 90.0),
        (2.0, 30.0, "2m", None, 1.0),
    ],
)
def test_a_fit_gets_what_is_left_of_its_time_and_leaves_the_job_time_to_end(
    left: float, spent: float, asked: str | None, trials: int | None, expected: float | None
) -> None:
    found = job_fit._time_s(context_of(deadline=left, spent_s=spent), asked, trials)
    assert found == (None if expected is None else pytest.approx(expected))


def event(stage: str) -> Event:
    return Event("tick", stage, "job-1", "roc_auc", 0.0)


@pytest.mark.parametrize("why", ["cancel", "time"])
def test_a_stop_ends_a_search_once_and_never_a_result_that_is_nearly_there(why: str) -> None:
    context = context_of()
    heard = Listening(context)
    heard.hear(event("search"))
    context.ask_to_stop(why)
    with pytest.raises(KeyboardInterrupt):
        heard.hear(event("search"))
    for stage in ("search", "ensemble", "done", "report"):
        heard.hear(event(stage))
    if why == "time":
        heard.hear(event("export"))
        assert not heard.stopped
    else:
        with pytest.raises(KeyboardInterrupt):
            heard.hear(event("export"))
        assert heard.stopped


@pytest.mark.parametrize(("why", "stage"), [("time", "export"), ("time", "report"), ("cancel", "report")])
def test_a_bundle_that_is_written_when_the_job_is_to_stop_counts(
    place: Path, tmp_path: Path, small_csv: Path, monkeypatch: pytest.MonkeyPatch, why: str, stage: str
) -> None:
    context = JobContext(1, 1, "", place, place, deadline=time.monotonic() + 1000)
    hear = Listening.hear

    def late(self: Listening, event: Event) -> None:
        if event.stage == stage:
            context.ask_to_stop(why)
        hear(self, event)

    monkeypatch.setattr(Listening, "hear", late)
    out = tmp_path / "m.tm"
    told = job_fit.fit(context, data=str(small_csv), target="label", trials=1, families=["linear"], out=str(out))
    assert told["bundle"] == str(out)
    assert (tmp_path / "m-report.html").exists()


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
