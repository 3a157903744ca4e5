"""Folders of real images: labels by folder, table and COCO; stored once; near copies found; relabelled by overlay."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import data_folder

from tidemill.core.errors import DataError
from tidemill.core.schema import SemanticType
from tidemill.data.versions import load_version, manifest_of
from tidemill.data.versions.export import export
from tidemill.data.versions.operations import (
    drop_duplicates,
    filter_version,
    import_images,
    merge,
    relabel_by_key,
    sample,
)
from tidemill.data.versions.verify import verify
from tidemill.store.workspace import Workspace

COUNT = 300


def real(name: str) -> Path:
    root = data_folder()
    if root is None or not (root / name).exists():
        pytest.skip(f"the open data has no {name}; set TIDEMILL_DATA to its folder")
    return root / name


def unpack(name: str, into: Path, count: int = COUNT) -> Path:
    """Unpack the first images of an open set into a folder for each class."""
    with zipfile.ZipFile(real(f"image/{name}") / "train.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith((".png", ".jpg")))
        step = max(1, len(names) // count)
        for member in names[::step][:count]:
            archive.extract(member, into)
    return into


def labels_of(name: str) -> dict[str, str]:
    with (real(f"image/{name}") / "train_labels.csv").open(newline="") as file:
        return {row["file"]: row["label"] for row in csv.DictReader(file)}


def test_digits_take_their_label_from_the_folder_or_from_the_table_alike(workspace: Workspace, tmp_path: Path) -> None:
    folder = unpack("mnist", tmp_path / "mnist")
    wanted = labels_of("mnist")
    root = folder if (folder / next(iter(wanted))).parent.is_dir() else next(p for p in folder.iterdir() if p.is_dir())
    by_folder = import_images(workspace, "digits", root)
    rows = load_version(workspace, "digits")[0].to_pylist()
    assert len(rows) == COUNT
    assert {r["file"]: r["label"] for r in rows} == {r["file"]: wanted[r["file"]] for r in rows}
    assert {(r["width"], r["height"]) for r in rows} == {(28.0, 28.0)}
    assert by_folder.schema["label"].type is SemanticType.TARGET
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((r["file"], r["label"]) for r in rows)])
    import_images(workspace, "same", root, labels=tmp_path / "labels.csv")
    assert load_version(workspace, "same")[0].to_pylist() == rows
    count = len(workspace.artifacts.keys())
    import_images(workspace, "again", root)
    assert len(workspace.artifacts.keys()) == count  # the images, and the fragment too
    assert verify(workspace, by_folder) == []


def test_text_lines_keep_their_transcripts_letter_by_letter(workspace: Workspace, tmp_path: Path) -> None:
    folder = real("ocr/early_printed_lines")
    import_images(workspace, "lines", folder, labels=folder / "train_labels.csv")
    with (folder / "train_labels.csv").open(newline="", encoding="utf-8") as file:
        wanted = {row["file"]: row["text"].strip() for row in csv.DictReader(file)}
    rows = load_version(workspace, "lines")[0].to_pylist()
    got = {r["file"]: r["label"] for r in rows if r["label"] is not None}
    assert got == wanted
    assert len(rows) > len(wanted)  # the test images are there, too, without a label
    part = filter_version(workspace, "lines", "label like '%ſ%'")
    assert part.rows == sum("ſ" in text for text in wanted.values())
    out = export(workspace, part.hash, tmp_path / "hf", form="huggingface")
    assert (out / "data" / "train-00000-of-00001.parquet").stat().st_size > 10_000


def test_boxes_of_coco_lie_beside_real_images(workspace: Workspace, tmp_path: Path) -> None:
    folder = real("ocr/uw3_50lines")
    files = sorted(p.relative_to(folder).as_posix() for p in (folder / "train").glob("*.png"))
    sizes = {}
    for name in files:
        with Image.open(folder / name) as image:
            sizes[name] = image.size
    found = {
        "images": [{"id": i, "file_name": f, "width": sizes[f][0], "height": sizes[f][1]} for i, f in enumerate(files)],
        "categories": [{"id": 1, "name": "line"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, *sizes[f]]} for i, f in enumerate(files)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(found))
    import_images(workspace, "boxed", folder, labels=tmp_path / "coco.json")
    rows = {r["file"]: r for r in load_version(workspace, "boxed")[0].to_pylist()}
    for file in files:
        (box,) = json.loads(rows[file]["boxes"])
        assert box["bbox"][2:] == [rows[file]["width"], rows[file]["height"]]
        assert rows[file]["label"] == "line"


def test_near_copies_of_photographs_are_found_and_other_photographs_stay(workspace: Workspace, tmp_path: Path) -> None:
    folder = unpack("cifar10", tmp_path / "photos")
    originals = sorted(folder.rglob("*.jpg"))
    for number, path in enumerate(originals[:60]):
        with Image.open(path) as opened:
            image = opened.copy()
        copy = path.with_name(f"zz-{path.stem}-copy.jpg")
        (image.resize((64, 64)) if number % 2 else image).save(copy, quality=70)
    import_images(workspace, "photos", folder)
    exact = drop_duplicates(workspace, "photos", by=["image"], name="exact")
    assert exact.rows >= COUNT + 50
    near = drop_duplicates(workspace, "photos", by=["image"], near=True, name="near")
    left = load_version(workspace, near.hash)[0]["file"].to_pylist()
    copies = [f for f in left if "-copy" in f]
    assert len(copies) <= 3
    assert len(left) - len(copies) >= 0.95 * COUNT


def test_a_relabel_of_images_is_an_overlay_and_no_image_is_written_again(workspace: Workspace, tmp_path: Path) -> None:
    folder = unpack("mnist", tmp_path / "mnist", count=120)
    base = import_images(workspace, "digits", folder, annotator="mia")
    before = set(workspace.artifacts.keys())
    table = load_version(workspace, "digits")[0].select(["file"]).slice(0, 5)
    fixed = relabel_by_key(workspace, "digits", table.append_column("label", [["7"] * 5]), ["file"], annotator="ben")
    assert len(set(workspace.artifacts.keys()) - before) == 1
    assert load_version(workspace, fixed.hash)[0]["label"].to_pylist()[:5] == ["7"] * 5
    assert {p.fragment for p in manifest_of(workspace, fixed).parts} == {
        p.fragment for p in manifest_of(workspace, base).parts
    }
    few = sample(workspace, fixed.hash, way="balanced", size=40, name="few")
    assert merge(workspace, [base.hash, fixed.hash]).version.hash == fixed.hash
    assert len(set(load_version(workspace, few.hash)[0]["label"].to_pylist())) == 10


def test_a_folder_with_a_torn_image_names_it_and_keeps_nothing(workspace: Workspace, tmp_path: Path) -> None:
    folder = unpack("cifar10", tmp_path / "photos", count=20)
    torn = sorted(folder.rglob("*.jpg"))[7]
    torn.write_bytes(torn.read_bytes()[:20])
    with pytest.raises(DataError, match="no image that can be read") as caught:
        import_images(workspace, "photos", folder)
    assert str(caught.value.where) == str(torn)
    assert workspace.artifacts.keys() == []


def test_an_image_that_is_cut_off_in_the_middle_is_told_where_its_pixels_are_asked(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Its head is whole, so the import can't know; looking for near copies reads the pixels."""
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(picture, "png")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(picture.getvalue()[: len(picture.getvalue()) // 2])
    import_images(workspace, "cut", tmp_path / "p")
    with pytest.raises(DataError, match="no image that can be read"):
        drop_duplicates(workspace, "cut", by=["image"], near=True)
