"""Versions on S3: written, read, merged, forgotten and collected as in a folder, and whole after a crash."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.versions.conftest import bag, make, rows_of

from tidemill.core.errors import DataError, WorkspaceError
from tidemill.data.versions import find_version, list_versions, load_version, scan
from tidemill.data.versions.collect import collect
from tidemill.data.versions.export import export
from tidemill.data.versions.forget import forget
from tidemill.data.versions.governance import drop
from tidemill.data.versions.incoming import INCOMING
from tidemill.data.versions.operations import (
    append,
    drop_duplicates,
    filter_version,
    import_images,
    merge,
    relabel,
    sample,
)
from tidemill.data.versions.verify import verify
from tidemill.store.workspace import Workspace

ROWS = [("a", 1.0, "p", "u"), ("b", None, "q", "v"), ("c", 2.5, None, None)]
MORE = [("d", 4.0, "p", "u"), ("a", 1.0, "p", "w")]


def later() -> dict[str, float]:
    """What makes a collector take everything for old."""
    return {"grace_s": 0.0, "now": time.time() + 3600}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i, name in enumerate(("cat/a.png", "cat/b.png", "dog/c.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (8, 8)) if i else np.zeros((8, 8))
        Image.fromarray(np.kron(pixels, np.ones((4, 4))).astype(np.uint8)).save(path)
    return tmp_path / "pictures"


def test_what_is_written_is_read_by_another_machine(on_s3: Workspace, tmp_path: Path) -> None:
    version = make(on_s3, ROWS)
    assert rows_of(on_s3, version) == ROWS
    other = Workspace.open(tmp_path / "elsewhere", database_url=f"sqlite:///{tmp_path / 's3' / 'metadata.db'}")
    with other:
        assert rows_of(other, "d") == ROWS
        assert [b.num_rows for b in scan(other, "d")] == [3]
    assert not (tmp_path / "s3" / "artifacts").exists()
    assert verify(on_s3, version) == []


def test_every_operation_works_and_an_export_says_the_same(on_s3: Workspace, tmp_path: Path) -> None:
    make(on_s3, ROWS)
    make(on_s3, MORE, "more")
    union = merge(on_s3, ["d", "more"], identity=["key"], name="all").version
    assert {r[0] for r in rows_of(on_s3, union)} == {"a", "b", "c", "d"}
    assert append(on_s3, "all", load_version(on_s3, "more")[0]).rows == 6
    assert relabel(on_s3, "all", np.array([0]), ["z"]).rows == 6
    assert drop_duplicates(on_s3, "all", by=["key"], name="once").rows == 4
    assert filter_version(on_s3, "all", "x > 3").rows == 2
    part = sample(on_s3, "all", size=3, seed=1)
    assert set(map(str, rows_of(on_s3, part))) <= set(map(str, rows_of(on_s3, "all")))
    out = export(on_s3, "d", tmp_path / "d.jsonl")
    assert len(out.read_text().splitlines()) == 3
    assert all(verify(on_s3, v) == [] for v in list_versions(on_s3))


def test_images_are_stored_once_and_go_with_the_last_version_that_names_them(on_s3: Workspace, pictures: Path) -> None:
    first = import_images(on_s3, "pets", pictures)
    second = import_images(on_s3, "same", pictures)
    keys = load_version(on_s3, "pets")[0]["image"].to_pylist()
    assert on_s3.artifacts.get(keys[2]) == (pictures / "dog" / "c.png").read_bytes()
    assert first.hash == second.hash
    assert on_s3.records.find(INCOMING) == []
    dogs = filter_version(on_s3, "pets", "label = 'dog'")
    for version in (first, second):
        drop(on_s3, f"{version.dataset}@{version.hash}")
    told = collect(on_s3, **later())
    assert [on_s3.artifacts.exists(k) for k in keys] == [False, False, True]
    assert told.files >= 2
    assert verify(on_s3, dogs) == []


def test_what_a_crash_left_is_found_by_its_age_and_what_is_needed_stays(
    on_s3: Workspace, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(on_s3, ROWS)
    kept = set(on_s3.artifacts.keys())

    def refuse(_: object) -> None:
        raise WorkspaceError("The database is away.")

    with monkeypatch.context() as patch:
        patch.setattr(on_s3.metadata, "put_dataset_version", refuse)
        for job in (lambda: make(on_s3, MORE, "lost"), lambda: import_images(on_s3, "pets", pictures)):
            with pytest.raises(WorkspaceError, match="away"):
                job()
    left = set(on_s3.artifacts.keys()) - kept
    assert len(left) == 5  # two fragments, three images
    assert collect(on_s3).orphans == 0  # they are young
    told = collect(on_s3, **later())
    assert told.orphans == 5
    assert set(on_s3.artifacts.keys()) == kept
    assert on_s3.records.find(INCOMING) == []
    assert rows_of(on_s3, "d") == ROWS


WRITER = """
import sys, pyarrow as pa
from tidemill.data.versions.operations import append
from tidemill.store.workspace import Workspace
with Workspace.open(sys.argv[1]) as workspace:
    for i in range(10_000):
        append(workspace, "d", pa.table({"key": [f"w{i}"], "x": [float(i)], "word": ["p"], "y": ["u"]}))
        print(i, flush=True)
"""


def test_a_killed_writer_leaves_whole_versions_on_s3(on_s3: Workspace) -> None:
    make(on_s3, ROWS)
    writer = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WRITER, str(on_s3.path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    promised = int(writer.stdout.readline()) + 1
    time.sleep(0.3)
    writer.kill()
    promised += len(writer.communicate(timeout=30)[0].splitlines())
    collect(on_s3, **later())
    for version in list_versions(on_s3):
        assert verify(on_s3, version) == []
    assert {f"w{i}" for i in range(promised)} <= {r[0] for r in rows_of(on_s3, "d")}


def test_an_erasure_leaves_no_bytes_on_s3(on_s3: Workspace) -> None:
    make(on_s3, ROWS)
    before = set(on_s3.artifacts.keys())
    assert forget(on_s3, "key = 'a'").rows == 1
    assert not before & set(on_s3.artifacts.keys())
    assert bag(rows_of(on_s3, "d")) == bag(ROWS[1:])


def test_a_damaged_fragment_on_s3_is_named(on_s3: Workspace) -> None:
    version = make(on_s3, ROWS)
    store = on_s3.artifacts
    (key,) = store.keys()
    store._fs.pipe_file(store._path(key), store.get(key)[:-1] + b"x")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=f"{key[:12]}.* is damaged") as caught:
        load_version(on_s3, version.hash)
    assert str(caught.value.where).startswith("s3://tidemill/")
    assert verify(on_s3, find_version(on_s3, "d"))
