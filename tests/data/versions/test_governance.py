"""Tags, facts, roles, retention, the log of it all, exports and pictures."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.data.versions.conftest import make, rows_of

from tidemill.core.errors import DataError, MissingExtraError, NotFoundError, OptionError, WorkspaceError
from tidemill.core.schema import SemanticType
from tidemill.data.versions import find_version, list_versions, load_version
from tidemill.data.versions.diff import diff
from tidemill.data.versions.export import export
from tidemill.data.versions.governance import (
    Role,
    audit_of,
    check_access,
    drop,
    expire,
    facts_of,
    inherit,
    say,
    tag,
    tags_of,
    untag,
)
from tidemill.data.versions.lineage import draw_html, draw_svg, draw_text, log
from tidemill.data.versions.operations import drop_duplicates, import_images, import_media, merge, relabel, sample
from tidemill.data.versions.verify import verify
from tidemill.store.workspace import Workspace

ROWS = [("a", 1.0, "p", "u"), ("b", None, 'q, "r"', "v"), ("c", 2.5, None, None)]


def test_a_dataset_without_roles_is_open(workspace: Workspace) -> None:
    make(workspace, ROWS)
    for role in Role:
        check_access(workspace, "d", "anybody", role)


def test_roles_are_held_and_refusals_written_down(workspace: Workspace) -> None:
    make(workspace, ROWS)
    say(workspace, "d", owner="mia", roles={"ben": "writer", "*": "reader"}, actor="mia")
    check_access(workspace, "d", "mia", Role.OWNER)
    check_access(workspace, "d", "ben", Role.WRITER)
    check_access(workspace, "d", "eve", Role.READER)
    with pytest.raises(OptionError, match=r"eve may not.*'writer'.*mia"):
        check_access(workspace, "d", "eve", Role.WRITER)
    say(workspace, "d", roles={"*": None})
    with pytest.raises(OptionError):
        check_access(workspace, "d", "eve", Role.READER)
    assert [(e.kind, e.actor) for e in audit_of(workspace, "d")][:2] == [
        ("dataset_described", "mia"),
        ("dataset_refused", "eve"),
    ]


def test_facts_add_up(workspace: Workspace) -> None:
    make(workspace, ROWS)
    say(workspace, "d", owner="mia", pii={"key": "person"})
    say(workspace, "d", description="what it is", pii={"word": "note"}, retention_days=30.0)
    facts = facts_of(workspace, "d")
    assert (facts.owner, facts.description, facts.retention_days) == ("mia", "what it is", 30.0)
    assert facts.pii == {"key": "person", "word": "note"}
    with pytest.raises(NotFoundError, match="'kye'"):
        say(workspace, "d", pii={"kye": "person"})
    with pytest.raises(OptionError, match="role 'king'"):
        say(workspace, "d", roles={"eve": "king"})
    with pytest.raises(NotFoundError, match="'d'"):
        say(workspace, "dd", owner="x")


def test_a_dataset_with_roles_keeps_somebody_who_may_change_them(workspace: Workspace) -> None:
    make(workspace, ROWS)
    with pytest.raises(OptionError, match="nobody could change"):
        say(workspace, "d", roles={"ben": "reader"})
    say(workspace, "d", roles={"ben": "owner", "eve": "reader"})
    with pytest.raises(OptionError, match="nobody could change"):
        say(workspace, "d", roles={"ben": None})
    say(workspace, "d", owner="mia", roles={"ben": None})
    assert facts_of(workspace, "d").roles == {"eve": Role.READER}


def test_tags_move_and_go(workspace: Workspace) -> None:
    first, second = make(workspace, ROWS), make(workspace, ROWS[:2])
    tag(workspace, first.hash, "gold")
    tag(workspace, second.hash, "gold")
    assert tags_of(workspace, "d") == {"gold": second.hash}
    with pytest.raises(OptionError, match="tagged 'gold'"):
        drop(workspace, "d@gold")
    untag(workspace, "d", "gold")
    with pytest.raises(NotFoundError):
        untag(workspace, "d", "gold")
    for bad in ("abcd", "a@b", " ", "a/b"):
        with pytest.raises(OptionError, match="A tag"):
            tag(workspace, "d", bad)


def test_old_versions_expire_but_for_the_newest_and_the_tagged(workspace: Workspace) -> None:
    day = 86400.0
    old = [make(workspace, ROWS[:i], at=i * day) for i in (1, 2)]
    newest = make(workspace, ROWS, at=3 * day)
    assert expire(workspace, "d", now=100 * day) == []
    say(workspace, "d", retention_days=10)
    tag(workspace, old[0].hash, "gold")
    assert expire(workspace, "d", now=100 * day) == [old[1]]
    assert list_versions(workspace, "d") == [old[0], newest]


def test_the_log_draws_every_version_and_edge(workspace: Workspace) -> None:
    a, b = make(workspace, ROWS, "a"), make(workspace, ROWS[:1], "b")
    union = merge(workspace, ["a", "b"], name="<c>").version
    sample(workspace, "<c>", size=2, name="s")
    make(workspace, ROWS[:2], "alone")
    assert {n.version.dataset for n in log(workspace, "a")} == {"a", "<c>", "s"}
    nodes = log(workspace)
    text = draw_text(nodes)
    for v in (a, b, union):
        assert text.count(v.hash[:12]) == 1
    root = ElementTree.fromstring(draw_svg(nodes))
    names = [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 3
    assert union.ref in names
    assert "<script" not in draw_html(nodes, "<script>")
    with pytest.raises(NotFoundError, match="'alone'"):
        log(workspace, "alne")


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_an_export_says_the_same(workspace: Workspace, tmp_path: Path, form: str) -> None:
    make(workspace, ROWS)
    out = export(workspace, "d", tmp_path / f"d.{form}")
    if form == "parquet":
        got = [tuple(r.values()) for r in pq.read_table(out).to_pylist()]
    elif form == "csv":
        with out.open(newline="") as file:
            got = [(k, float(x) if x else None, w or None, y or None) for k, x, w, y in list(csv.reader(file))[1:]]
    else:
        got = [tuple(json.loads(line).values()) for line in out.read_text().splitlines()]
    assert got == ROWS
    assert list(tmp_path.glob(".d*")) == []


def test_the_layout_of_hugging_face(workspace: Workspace, tmp_path: Path) -> None:
    make(workspace, ROWS)
    folder = export(workspace, "d", tmp_path / "hf", form="huggingface")
    table = pq.read_table(folder / "data" / "train-00000-of-00001.parquet")
    assert [tuple(r.values()) for r in table.to_pylist()] == ROWS
    told = json.loads(table.schema.metadata[b"huggingface"])
    assert told["info"]["features"]["x"] == {"dtype": "float64", "_type": "Value"}
    assert (folder / "README.md").read_text().startswith("---\nconfigs:")
    with pytest.raises(OptionError, match="already"):
        export(workspace, "d", folder, form="huggingface")


def test_exports_that_make_no_sense(workspace: Workspace, tmp_path: Path) -> None:
    make(workspace, ROWS)
    with pytest.raises(OptionError, match="tells no format"):
        export(workspace, "d", tmp_path / "d.xyz")
    with pytest.raises(OptionError, match="no format 'xml'"):
        export(workspace, "d", tmp_path / "d.xml", form="xml")
    with pytest.raises(NotFoundError, match="'key'"):
        export(workspace, "d", tmp_path / "d.csv", without=["kye"])


def test_without_its_extra_delta_says_what_to_install(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(workspace, ROWS)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(MissingExtraError, match="deltalake"):
        export(workspace, "d", tmp_path / "delta", form="delta")


def test_a_diff_tells_columns_labels_and_shifts(workspace: Workspace) -> None:
    rows = [(f"k{i}", float(i % 7), "p", "u") for i in range(400)]
    base = make(workspace, rows, "a")
    relabel(workspace, base.hash, np.array([1, 2]), ["v", "w"], name="b")
    found = diff(workspace, "a", "b").to_json()
    assert found["labels"]["changed"] == 2
    assert found["labels"]["moves"][0] == {"before": "u", "after": "v", "rows": 1}
    moved = make(workspace, [(k, (x or 0) + 20, w, y) for k, x, w, y in rows], "c")
    found = diff(workspace, "a", "c", key=["key"]).to_json()
    assert found["rows"] == {"a": 400, "b": 400, "removed": 400, "added": 400, "common": 0}
    assert found["shifts"][0]["column"] == "x"
    assert found["shifts"][0]["stability_index"] > 0.25
    assert moved.rows == 400


# ------------------------------------------------------------------------------------------------------------- images


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four images in two folders; two are the same bytes, one the same scene in another size."""
    folder = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 255, (8, 8)), np.ones((8, 8))).astype(np.uint8)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene).save(folder / "cat/a.png")
    Image.fromarray(scene).save(folder / "cat/b.png")
    Image.fromarray(scene).resize((32, 32)).save(folder / "dog/c.png")
    Image.fromarray(255 - scene).save(folder / "dog/d.png")
    return folder


def test_images_take_their_folder_as_label_and_equal_ones_are_one_blob(workspace: Workspace, pictures: Path) -> None:
    version = import_images(workspace, "pets", pictures, annotator="mia")
    rows = load_version(workspace, "pets")[0].to_pylist()
    assert [r["label"] for r in rows] == ["cat", "cat", "dog", "dog"]
    assert [(r["width"], r["height"]) for r in rows] == [(64, 64), (64, 64), (32, 32), (64, 64)]
    assert rows[0]["image"] == rows[1]["image"]
    assert workspace.artifacts.get(rows[2]["image"]) == (pictures / "dog/c.png").read_bytes()
    assert version.schema["label"].type is SemanticType.TARGET
    assert import_images(workspace, "again", pictures, annotator="mia").hash == version.hash
    assert verify(workspace, version) == []
    workspace.artifacts.delete(rows[2]["image"])
    assert verify(workspace, version)


def test_near_images_are_duplicates(workspace: Workspace, pictures: Path) -> None:
    import_images(workspace, "pets", pictures)
    left = load_version(workspace, drop_duplicates(workspace, "pets", by=["image"], near=True, name="near").hash)[0]
    assert left["file"].to_pylist() == ["cat/a.png", "dog/d.png"]
    exact = load_version(workspace, drop_duplicates(workspace, "pets", by=["image"]).hash)[0]
    assert exact.num_rows == 3


def test_labels_from_a_table(workspace: Workspace, pictures: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label,who\ncat/a.png,tabby,mia\ndog/d.png,poodle,ben\n")
    import_images(workspace, "pets", pictures, labels=labels)
    rows = {r["file"]: r for r in load_version(workspace, "pets")[0].to_pylist()}
    assert (rows["cat/a.png"]["label"], rows["dog/c.png"]["label"]) == ("tabby", None)
    assert rows["dog/d.png"]["who"] == "ben"
    labels.write_text("file,label\ncat/z.png,tabby\n")
    with pytest.raises(DataError, match=r"'cat/z.png'.*Did you mean"):
        import_images(workspace, "pets", pictures, labels=labels)
    labels.write_text("file,label\ncat/a.png,x\ncat/a.png,y\n")
    with pytest.raises(DataError, match="stands twice"):
        import_images(workspace, "pets", pictures, labels=labels)


def test_labels_from_coco(workspace: Workspace, pictures: Path, tmp_path: Path) -> None:
    labels = tmp_path / "coco.json"
    found = {
        "images": [{"id": 1, "file_name": "cat/a.png"}, {"id": 2, "file_name": "dog/d.png"}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 2, "category_id": 7, "bbox": [0, 0, 5, 5]},
            {"id": 3, "image_id": 2, "category_id": 8, "bbox": [5, 5, 5, 5]},
        ],
    }
    labels.write_text(json.dumps(found))
    import_images(workspace, "pets", pictures, labels=labels)
    rows = {r["file"]: r for r in load_version(workspace, "pets")[0].to_pylist()}
    assert rows["cat/a.png"]["label"] == "cat"
    assert rows["dog/d.png"]["label"] is None
    assert len(json.loads(rows["dog/d.png"]["boxes"])) == 2
    labels.write_text("{}")
    with pytest.raises(DataError, match="no COCO file"):
        import_images(workspace, "pets", pictures, labels=labels)


def test_folders_that_hold_no_images(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        import_images(workspace, "x", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        import_images(workspace, "x", tmp_path / "empty")
    (tmp_path / "empty" / "bad.png").write_text("no image")
    with pytest.raises(DataError, match=r"no image that can be read"):
        import_images(workspace, "x", tmp_path / "empty")


# ------------------------------------------------------------------------------------------------------- first format


def test_versions_of_the_first_format_still_load_and_can_be_built_upon(workspace: Workspace) -> None:
    table = pa.table({"x": [1.0, 2.0, None], "y": ["u", "v", "u"]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    kinds = [("x", "number"), ("y", "target")]
    none = {"unit": None, "reason": None, "missing": 0.0, "distinct": None, "low": None, "high": None}
    workspace.metadata.put_dataset_version(
        {
            "hash": "ab" * 32,
            "dataset": "old",
            "created_at": 1.0,
            "rows": 3,
            "schema": [{"name": n, "type": k, **none} for n, k in kinds],
            "artifacts": {"table": workspace.artifacts.put(sink.getvalue().to_pybytes()), "profile": "cd" * 32},
        }
    )
    old = find_version(workspace, "old")
    assert rows_of(workspace, old) == [(1.0, "u"), (2.0, "v"), (None, "u")]
    newer = relabel(workspace, "old", np.array([0]), ["w"])
    assert [r[1] for r in rows_of(workspace, newer)] == ["w", "v", "u"]
    assert merge(workspace, [old.hash, newer.hash]).version.hash == newer.hash
    assert sample(workspace, old.hash, size=2).rows == 2
    assert verify(workspace, old) == []


def test_a_delta_table_reads_back_the_same_rows(workspace: Workspace, tmp_path: Path) -> None:
    delta = pytest.importorskip("deltalake")
    make(workspace, ROWS)
    place = export(workspace, "d", tmp_path / "table", form="delta", without=["word"])
    table = delta.DeltaTable(str(place))
    assert table.version() == 0
    read = pa.table(table.to_pyarrow_table())
    assert read.column_names == ["key", "x", "y"]
    assert sorted(map(tuple, (r.values() for r in read.to_pylist()))) == sorted((k, x, y) for k, x, _, y in ROWS)
    with pytest.raises(OptionError, match="already"):
        export(workspace, "d", tmp_path / "table", form="delta")


def test_a_delta_table_that_fails_half_way_is_not_left_behind(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = pytest.importorskip("deltalake")
    make(workspace, ROWS)

    def fail(*_: object, **__: object) -> None:
        raise delta.exceptions.DeltaError("disk full")

    monkeypatch.setattr(delta, "write_deltalake", fail)
    with pytest.raises(WorkspaceError, match="disk full"):
        export(workspace, "d", tmp_path / "table", form="delta")
    assert [p.name for p in tmp_path.iterdir()] == ["workspace"]


# ---------------------------------------------------------------------------------------- what is made of a dataset


def test_what_is_made_of_datasets_is_no_more_open_than_the_least_open_of_them(workspace: Workspace) -> None:
    make(workspace, ROWS, "a")
    make(workspace, ROWS[:2], "b")
    say(workspace, "a", owner="mia", roles={"ben": "writer", "eve": "reader"}, pii={"key": "person"})
    say(workspace, "b", owner="ben", roles={"mia": "reader"}, pii={"word": "note"})
    union = merge(workspace, ["a", "b"], name="c").version
    facts = inherit(workspace, union, actor="ben")
    assert facts is not None
    assert facts == facts_of(workspace, "c")
    assert (facts.owner, facts.pii) == ("ben", {"key": "person", "word": "note"})
    assert facts.roles == {"ben": Role.WRITER, "mia": Role.READER}  # eve may not see b
    assert facts.role_of("eve") is None
    say(workspace, "c", roles={"eve": "reader"})
    assert inherit(workspace, sample(workspace, "c", size=1, name="c"), actor="zoe") is None
    assert facts_of(workspace, "c").owner == "ben"


def test_of_open_datasets_open_ones_are_made(workspace: Workspace) -> None:
    make(workspace, ROWS, "a")
    assert inherit(workspace, sample(workspace, "a", size=2, name="s"), actor="zoe") is None
    assert facts_of(workspace, "s").role_of("anybody") is Role.OWNER
    say(workspace, "a", pii={"key": "person"})
    facts = inherit(workspace, sample(workspace, "a", size=1, name="t"), actor="zoe")
    assert facts is not None
    assert (facts.owner, facts.pii) == ("", {"key": "person"})


def test_nobody_who_acts_leaves_a_dataset_open(workspace: Workspace) -> None:
    make(workspace, ROWS, "a")
    say(workspace, "a", owner="mia", roles={"ben": "reader"})
    facts = inherit(workspace, sample(workspace, "a", size=2, name="s"), actor="")
    assert facts is not None
    assert facts.role_of("anybody") is None


# ------------------------------------------------------------------------------------------- recordings and documents


def test_recordings_and_documents_are_blobs_as_images_are(workspace: Workspace, tmp_path: Path) -> None:
    for kind, ending in (("audio", ".wav"), ("document", ".pdf")):
        folder = tmp_path / kind
        for i, name in enumerate(("cat/a", "cat/b", "dog/c")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}{ending}").write_bytes(b"same" if i < 2 else b"other one")
        (folder / "cat" / "notes.txt").write_text("left out")
        version = import_media(workspace, kind, folder, annotator="mia")
        rows = load_version(workspace, kind)[0].to_pylist()
        assert [(r["file"], r["size_bytes"], r["label"]) for r in rows] == [
            (f"cat/a{ending}", 4.0, "cat"), (f"cat/b{ending}", 4.0, "cat"), (f"dog/c{ending}", 9.0, "dog"),
        ]  # fmt: skip
        assert rows[0][kind] == rows[1][kind]
        assert workspace.artifacts.get(rows[2][kind]) == b"other one"
        assert verify(workspace, version) == []
        assert drop_duplicates(workspace, kind, by=[kind], near=True).rows == 2
        out = export(workspace, version.hash, tmp_path / f"{kind}-hf", form="huggingface")
        cells = pq.read_table(out / "data" / "train-00000-of-00001.parquet")[kind].to_pylist()
        assert cells[2]["bytes"] == b"other one"
        drop(workspace, f"{kind}@{version.hash}")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,words,speaker\ncat/a.wav,hello there,mia\n")
    import_media(workspace, "said", tmp_path / "audio", labels=labels)
    first = load_version(workspace, "said")[0].to_pylist()[0]
    assert (first["label"], first["speaker"]) == ("hello there", "mia")


def test_a_folder_is_of_one_kind_but_for_a_stray_page(workspace: Workspace, pictures: Path, tmp_path: Path) -> None:
    for i in range(11):
        (pictures / "cat" / f"{i}.png").write_bytes((pictures / "dog" / "d.png").read_bytes())
    (pictures / "README.md").write_text("# Pets")
    assert import_media(workspace, "pets", pictures).rows == 15
    (pictures / "cat" / "x.wav").write_bytes(b"miaow")
    with pytest.raises(DataError, match="15 of the kind 'image' and 1 of the kind"):
        import_media(workspace, "pets", pictures)
    with pytest.raises(DataError, match="no such folder"):
        import_media(workspace, "x", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images, recordings or documents"):
        import_media(workspace, "x", tmp_path / "empty")
    (tmp_path / "a.wav").write_bytes(b"miaow")
    (tmp_path / "coco.json").write_text("{}")
    (tmp_path / "sound").mkdir()
    (tmp_path / "a.wav").rename(tmp_path / "sound" / "a.wav")
    with pytest.raises(DataError, match="for images"):
        import_media(workspace, "x", tmp_path / "sound", labels=tmp_path / "coco.json")
