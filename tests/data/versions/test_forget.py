"""Erasure reaches every version, and garbage collection nothing that is needed."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.data.versions.conftest import artifact_path, make, rows_of

from tidemill.core.errors import NotFoundError, PredicateError
from tidemill.data.drift.kept import sketch_artifacts, version_drift
from tidemill.data.expectations.gate import judge
from tidemill.data.expectations.infer import infer_suite
from tidemill.data.matching import match
from tidemill.data.versions import (
    DatasetVersion,
    find_version,
    list_versions,
    load_profile,
    manifest_of,
    scan,
    select_version,
)
from tidemill.data.versions import forget as forget_module
from tidemill.data.versions.blame import blame
from tidemill.data.versions.collect import artifacts_of, collect
from tidemill.data.versions.forget import forget
from tidemill.data.versions.fragments import render
from tidemill.data.versions.governance import AUDIT, audit_of, drop, tag
from tidemill.data.versions.operations import append, merge, relabel
from tidemill.data.versions.verify import verify
from tidemill.store.workspace import Workspace
from tidemill.testing.metadata_store import example_study

ROWS = [(k, float(i), f"secret-{k}", "u") for i, k in enumerate("abcabc")]


def bytes_of(workspace: Workspace) -> bytes:
    """Everything in the artifact store, unpacked."""
    said = []
    for key in workspace.artifacts.keys():  # noqa: SIM118  a store is no mapping
        data = workspace.artifacts.get(key)
        if data[:4] == b"PAR1":
            import io

            import pyarrow.parquet as pq

            said.append(str(pq.read_table(io.BytesIO(data)).to_pydict()).encode())
        said.append(data)
    return b"\n".join(said)


def study(workspace: Workspace, name: str, version: DatasetVersion) -> None:
    workspace.metadata.create_study(
        replace(example_study(), name=name, dataset_version=version.hash, settings={}, artifacts={})
    )


def test_a_person_leaves_every_version_and_every_byte(workspace: Workspace) -> None:
    base = make(workspace, ROWS)
    labelled = relabel(workspace, base.hash, np.array([1, 2]), ["of-b", "of-c"], annotator="mia")
    child = select_version(workspace, labelled.hash, np.array([0, 1, 5]), operation="sample", parameters={}, name="s")
    other = make(workspace, [("z", 0.0, "secret-z", "u")], "o")
    union = merge(workspace, [labelled.hash, other.hash], name="m").version
    load_profile(workspace, base.hash)
    study(workspace, "saw-it", child), study(workspace, "saw-not", other)
    hashes = [v.hash for v in list_versions(workspace)]
    assert b"secret-b" in bytes_of(workspace)

    would = forget(workspace, "key = 'b'", dry_run=True)
    assert b"secret-b" in bytes_of(workspace)
    told = forget(workspace, "key = 'b'", actor="ben")
    assert (told.rows, told.fragments) == (would.rows, would.fragments) == (2, 1)
    assert told.versions == {base.ref: 2, labelled.ref: 2, child.ref: 1, union.ref: 2}
    assert told.studies == ("saw-it",)

    assert b"secret-b" not in bytes_of(workspace)
    assert b"of-b" not in bytes_of(workspace)
    assert [v.hash for v in list_versions(workspace)] == hashes
    left = [r for r in ROWS if r[0] != "b"]
    assert rows_of(workspace, base) == left
    assert [r[3] for r in rows_of(workspace, labelled)] == ["u", "of-c", "u", "u"]
    assert rows_of(workspace, child) == [ROWS[0], ROWS[5]]
    assert len(rows_of(workspace, union)) == 5
    assert sum(b.num_rows for b in scan(workspace, labelled.hash)) == 4
    assert load_profile(workspace, base.hash)["rows"] == 4
    for version in list_versions(workspace):
        assert verify(workspace, version) == []
    assert [e.kind for e in audit_of(workspace, "d")] == ["dataset_forgot"]
    assert "'b'" not in str(audit_of(workspace, "d"))


def test_forgetting_goes_on_and_versions_can_be_built_upon(workspace: Workspace) -> None:
    base = make(workspace, ROWS)
    labelled = relabel(workspace, base.hash, np.array([1, 2, 3]), ["L1", "L2", "L3"])
    forget(workspace, "key = 'b'")
    forget(workspace, "key = 'a'")
    assert [(r[1], r[3]) for r in rows_of(workspace, labelled)] == [(2.0, "L2"), (5.0, "u")]
    again = relabel(workspace, labelled.hash, np.array([1]), ["last"])
    assert [r[3] for r in rows_of(workspace, again)] == ["L2", "last"]
    child = select_version(workspace, again.hash, np.array([1]), operation="sample", parameters={}, name="s")
    assert rows_of(workspace, child) == [("c", 5.0, "secret-c", "last")]
    told = forget(workspace, "key = 'c'")
    assert told.rows == 2
    assert rows_of(workspace, child) == []
    assert forget(workspace, "key = 'c'").rows == 0


def test_a_killed_erasure_is_all_or_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make(workspace, ROWS)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workspace.records, "put_all", die)
        with pytest.raises(KeyboardInterrupt):
            forget(workspace, "key = 'b'")
    assert rows_of(workspace, base) == ROWS
    with monkeypatch.context() as patch:
        patch.setattr(forget_module, "_delete", die)
        with pytest.raises(KeyboardInterrupt):
            forget(workspace, "key = 'b'")
    assert [r[0] for r in rows_of(workspace, base)] == ["a", "c", "a", "c"]
    assert b"secret-b" in bytes_of(workspace)
    collect(workspace)  # what the killed one left behind
    assert b"secret-b" not in bytes_of(workspace)
    assert [r[0] for r in rows_of(workspace, base)] == ["a", "c", "a", "c"]


def test_an_unknown_column_erases_nothing_and_says_so(workspace: Workspace) -> None:
    make(workspace, ROWS)
    with pytest.raises(PredicateError, match="'kez'"):
        forget(workspace, "kez = 'b'")


def test_garbage_is_what_nobody_refers_to(workspace: Workspace) -> None:
    base = make(workspace, ROWS)
    child = append(workspace, "d", load(workspace))
    drop(workspace, base.hash)
    assert collect(workspace).files == 0  # the child still needs the fragment
    assert rows_of(workspace, child)[:6] == ROWS
    lonely = make(workspace, [("q", 9.0, "p", "u")], "lonely")
    path = artifact_path(workspace, manifest_of(workspace, lonely).parts[0].fragment)
    drop(workspace, "lonely")
    with pytest.raises(NotFoundError):
        find_version(workspace, "lonely")
    assert find_version(workspace, lonely.hash) == lonely
    assert collect(workspace, dry_run=True).files == 1
    assert path.exists()
    assert collect(workspace).files == 1
    assert not path.exists()
    assert rows_of(workspace, make(workspace, [("q", 9.0, "p", "u")], "lonely")) == [("q", 9.0, "p", "u")]


def test_a_collection_is_written_down_for_every_dataset_whose_files_go(workspace: Workspace) -> None:
    make(workspace, ROWS)
    gone = make(workspace, [("q", 9.0, "p", "u")], "lonely")
    other = make(workspace, [("r", 8.0, "p", "u")], "other")
    drop(workspace, "lonely", actor="mia")
    drop(workspace, "other", actor="mia")
    assert collect(workspace, dry_run=True).datasets == ["lonely", "other"]
    assert [e.kind for e in audit_of(workspace, "lonely")] == ["dataset_dropped"]
    done = collect(workspace, dataset="lonely", actor="ben")
    assert (done.versions, done.files) == ((gone.ref,), 1)
    line = audit_of(workspace, "lonely")[-1]
    assert (line.kind, line.actor) == ("dataset_collected", "ben")
    assert dict(line.payload) == {"versions": [gone.hash], "files": 1}
    assert rows_of(workspace, other)
    assert [e.kind for e in audit_of(workspace, "other")] == ["dataset_dropped"]
    assert collect(workspace, actor="mia").versions == (other.ref,), "what went before is not told again"
    assert collect(workspace).versions == ()
    assert len(audit_of(workspace, "lonely")) == 2
    with pytest.raises(NotFoundError, match="Did you mean 'lonely'"):
        collect(workspace, dataset="lonly")


def test_who_is_killed_while_collecting_has_said_what_he_was_about_to_do(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(workspace, ROWS, "lonely")
    drop(workspace, "lonely")
    with monkeypatch.context() as patch:
        patch.setattr(type(workspace.artifacts), "delete", _killed)
        with pytest.raises(KeyboardInterrupt):
            collect(workspace, actor="ben")
    assert [(e.kind, e.actor) for e in audit_of(workspace, "lonely")][-1:] == [("dataset_collected", "ben")]
    assert collect(workspace).files == 1


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("referrer", ["study", "source", "record", "journal", "bundle"])
def test_what_something_refers_to_is_kept(workspace: Workspace, referrer: str) -> None:
    version = make(workspace, ROWS, "kept")
    drop(workspace, "kept")
    if referrer == "study":
        study(workspace, "s", version)
    elif referrer == "source":
        settings = {"source": {"version": "0" * 64, "test_version": version.hash}}
        workspace.metadata.create_study(replace(example_study(), name="s", dataset_version="", settings=settings))
    elif referrer == "record":
        workspace.records.put("label_project", "p", {"data": {"version": version.hash}})
    elif referrer == "journal":
        workspace.journal.append("deploy/e", "case", {"from": version.hash})
    else:
        folder = workspace.path / "bundles" / "b"
        folder.mkdir(parents=True)
        (folder / "card.json").write_text(f'{{"lineage": {{"dataset_version": "{version.hash}"}}}}')
    done = collect(workspace)
    assert (done.files, done.kept) == (0, (version.ref,))
    assert rows_of(workspace, version) == ROWS


def test_rows_of_a_match_are_kept_as_long_as_its_version(workspace: Workspace) -> None:
    make(workspace, ROWS)
    chosen = match(workspace, "d", "key = 'a'").to_version(workspace, "chosen")
    rows = str(chosen.parameters["rows"])
    assert rows in artifacts_of(workspace, chosen)
    collect(workspace)
    assert workspace.artifacts.exists(rows)
    drop(workspace, "chosen")
    assert chosen.ref in collect(workspace).versions
    assert not workspace.artifacts.exists(rows)


def test_a_list_for_review_that_was_forgotten_leaves_the_rows_protected(workspace: Workspace) -> None:
    make(workspace, ROWS[:3])
    make(workspace, [(*row[:3], "v") for row in ROWS[:3]], "e")
    merged = merge(workspace, ["d", "e"], identity=["key"], rule="both", name="both")
    assert merged.review is not None
    forget(workspace, "key = 'b'")
    drop(workspace, "d")
    drop(workspace, "e")
    collect(workspace)
    assert len(rows_of(workspace, merged.version)) == 4


def test_histograms_and_verdicts_go_with_their_version_and_keep_none(workspace: Workspace) -> None:
    first = make(workspace, ROWS)
    second = make(workspace, ROWS[:3])
    version_drift(workspace, first.hash, second.hash)
    judge(workspace, second.hash, infer_suite(workspace, first.hash))
    assert collect(workspace).files == 0
    drop(workspace, second.hash)
    sketches = {r.key: str(r.body["artifact"]) for r in workspace.records.find("drift_sketch")}
    dry = collect(workspace, dry_run=True)
    assert {r.key for r in workspace.records.find("drift_sketch")} == set(sketches)
    done = collect(workspace)
    assert (done.versions, done.files) == ((second.ref,), dry.files)
    assert [r.key for r in workspace.records.find("drift_sketch")] == [f"d/{first.hash}"]
    assert workspace.records.find("version_gate") == []
    assert not workspace.artifacts.exists(sketches[f"d/{second.hash}"])
    assert version_drift(workspace, first.hash, first.hash).drifted == ()
    assert all(workspace.artifacts.exists(key) for key in sketch_artifacts(workspace))


def test_what_feature_groups_need_is_kept(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    make(workspace, ROWS)
    orphan = workspace.artifacts.put(render(load(workspace).slice(0, 2)))
    old = time.time() - 2 * 24 * 3600
    os.utime(artifact_path(workspace, orphan), (old, old))
    with monkeypatch.context() as patch:
        patch.setattr("tidemill.data.features.history.referenced_artifacts", lambda _: {orphan})
        assert collect(workspace).files == 0
    assert collect(workspace).files == 1


def test_words_of_histograms_and_findings_are_forgotten(workspace: Workspace) -> None:
    first = make(workspace, ROWS)
    second = make(workspace, [*ROWS, ("q", 9.0, "secret-q", "u")])
    version_drift(workspace, first.hash, second.hash)
    suite = infer_suite(workspace, first.hash)
    column = replace(suite.columns["key"], values=("a", "b", "c"), unseen_at_most=0.0, severity="error")
    judge(workspace, second.hash, replace(suite, columns={**suite.columns, "key": column}))
    assert "'q'" in str(workspace.records.find("version_gate")[0].body)
    forget(workspace, "key = 'q'")
    assert workspace.records.find("drift_sketch") == workspace.records.find("drift_grid") == []
    assert "'q'" not in str(workspace.records.find("version_gate")[0].body)
    assert workspace.records.find("version_gate")[0].body["blocked"]
    assert b"secret-q" not in bytes_of(workspace)
    assert version_drift(workspace, first.hash, second.hash).rows_after == len(ROWS)


def test_fragments_of_a_crashed_writer_go_when_they_are_old(workspace: Workspace) -> None:
    make(workspace, ROWS)
    table = load(workspace)
    orphan = workspace.artifacts.put(render(table.slice(0, 2)))
    foreign = workspace.artifacts.put(b"PAR1 of somebody else")
    assert collect(workspace).files == 0
    old = time.time() - 2 * 24 * 3600
    for key in (orphan, foreign):
        os.utime(artifact_path(workspace, key), (old, old))
    make(workspace, ROWS[:1], "other")
    assert collect(workspace, dataset="other").files == 0, "an orphan is of no dataset"
    done = collect(workspace, actor="ben")
    assert (done.files, done.orphans, done.datasets) == (1, 1, [])
    line = workspace.journal.read(AUDIT)[-1]
    assert (line.kind, line.actor, dict(line.payload)) == ("orphans_collected", "ben", {"files": 1})
    assert not workspace.artifacts.exists(orphan)
    assert workspace.artifacts.exists(foreign)


def test_blame_tells_versions_labels_and_models(workspace: Workspace) -> None:
    base = make(workspace, ROWS, parameters={"annotator": "import"})
    labelled = relabel(workspace, base.hash, np.array([1]), ["v"], annotator="mia", at=86400.0)
    child = select_version(workspace, labelled.hash, np.array([0]), operation="sample", parameters={}, name="s")
    study(workspace, "one", labelled), study(workspace, "two", child)
    found = blame(workspace, labelled.hash, row=1)
    assert dict(found.versions) == {base.ref: 1, labelled.ref: 1}
    assert found.studies == ("one",)
    assert [(x.value, x.annotator) for x in found.labels[0]] == [("u", "import"), ("v", "mia")]
    assert found.labels[0][1].at.startswith("1970-01-02")
    assert found.labels[0][1].version == labelled.ref
    assert blame(workspace, where="key = 'a'").rows == 2
    assert blame(workspace, where="key = 'a'").versions[child.ref] == 1


def test_a_tag_and_a_hash_name_the_same_version(workspace: Workspace) -> None:
    first = make(workspace, ROWS)
    make(workspace, ROWS[:3])
    tag(workspace, first.hash, "gold")
    assert find_version(workspace, "d@gold") == first


def load(workspace: Workspace):  # type: ignore[no-untyped-def]
    from tidemill.data.versions import load_version

    return load_version(workspace, "d")[0]
