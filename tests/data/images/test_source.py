"""Folders, archives, tables and arrays of images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tidemill.core.errors import DataError, NotFoundError
from tidemill.data.images.pictures import ArrayPictures, JoinedPictures, Unreadable, look
from tidemill.data.images.source import files_of, is_images, read_images


def put(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 4), value).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        put(tmp_path / "photos" / "cat" / f"{i}.png", i)
        put(tmp_path / "photos" / "dog" / f"{i}.PNG", 10 + i)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    put(tmp_path / "photos" / ".trash" / "gone.png")
    return tmp_path / "photos"


def test_class_folders_are_labels(folder: Path) -> None:
    found = read_images(folder)
    assert found.table["label"].to_pylist() == ["cat"] * 3 + ["dog"] * 3
    assert found.table["file"].to_pylist()[0] == "cat/0.png"
    assert [p[0, 0, 0] for p in look(found.pictures) if not isinstance(p, Unreadable)] == [0, 1, 2, 10, 11, 12]


def test_labels_take_the_name_of_the_target(folder: Path) -> None:
    assert "animal" in read_images(folder, "animal").table.column_names


def test_a_folder_around_everything_is_no_label(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "inside")
    (tmp_path / "outer").mkdir()
    (tmp_path / "inside").rename(tmp_path / "outer" / "inside")
    assert set(read_images(tmp_path / "outer").table["label"].to_pylist()) == {"cat", "dog"}


def test_images_without_folders_have_no_labels(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    assert read_images(tmp_path).table.column_names == ["file"]


def test_an_archive_is_read_in_place(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".png"):
            archive.write(each, Path("photos") / each.relative_to(folder))
        archive.writestr("__MACOSX/photos/cat/._0.png", b"")
    found = read_images(path)
    assert found.table["label"].to_pylist() == ["cat"] * 3 + ["dog"] * 3
    assert not any(isinstance(p, Unreadable) for p in look(found.pictures))


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match=r"x\.zip: The archive can't be opened"):
        read_images(tmp_path / "x.zip")


@pytest.mark.parametrize("place", ["beside", "folder", "archive"])
def test_a_table_finds_its_files(folder: Path, tmp_path: Path, place: str) -> None:
    table = tmp_path / "train_labels.csv"
    if place == "beside":
        table = folder / "train_labels.csv"
    elif place == "folder":
        folder.rename(tmp_path / "train")
    else:
        with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
            archive.write(folder / "cat" / "1.png", "cat/1.png")
    table.write_text("id,picture,species\n7,cat/1.png,tabby\n")
    found = read_images(table, "species")
    assert found.column == "picture"
    assert found.table["species"].to_pylist() == ["tabby"]
    assert next(iter(look(found.pictures))).shape == (4, 6, 3)  # type: ignore[union-attr]


def test_labels_for_missing_files_are_counted_and_named(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\ncat/0.png,a\ncat/9.png,b\n")
    found = read_images(folder / "labels.csv", "label")
    assert found.table.num_rows == 1
    assert "1 of 2 rows name files that are not there; left out: 'cat/9.png'" in found.notices[-1]


def test_who_answers_row_by_row_keeps_rows_without_a_file(folder: Path) -> None:
    (folder / "new.csv").write_text("n,file\n1,cat/0.png\n2,gone.png\n3,\n4,dog/1.PNG\n")
    found = read_images(folder / "new.csv", keep_missing=True)
    assert found.table["n"].to_pylist() == ["1", "2", "3", "4"]
    seen = list(look(found.pictures))
    assert [str(p) for p in seen if isinstance(p, Unreadable)] == [
        "gone.png: there is no such file",
        ": no file is named",
    ]
    assert not isinstance(seen[3], Unreadable)


def test_locked_images_lie_in_the_same_folder_or_beside_their_table(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("file,label\ncat/0.png,a\n")
    with pytest.raises(DataError, match="None of the 1 files"):
        read_images(tmp_path / "test.csv", "label")
    assert read_images(tmp_path / "test.csv", "label", images=folder, beside=True).table.num_rows == 1
    put(tmp_path / "own" / "x.png")
    (tmp_path / "own" / "test.csv").write_text("file,label\nx.png,a\n")
    assert read_images(tmp_path / "own" / "test.csv", "label", images=folder, beside=True).table.num_rows == 1
    with pytest.raises(DataError, match="None of the 1 files"):
        read_images(tmp_path / "own" / "test.csv", "label", images=folder)


def test_of_several_columns_the_one_called_like_a_file_names_the_images(folder: Path) -> None:
    (folder / "two.csv").write_text("thumb,image,label\ncat/0.png,dog/0.PNG,a\ncat/1.png,dog/1.PNG,b\n")
    assert read_images(folder / "two.csv", "label").column == "image"


def test_a_table_whose_files_are_all_missing_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\nx.png,a\ny.png,b\n")
    with pytest.raises(DataError, match=r"None of the 2 files .* first is 'x\.png'.*--images FOLDER"):
        read_images(tmp_path / "labels.csv", "label")


def test_an_unknown_target_offers_the_nearest(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,species\ncat/0.png,a\n")
    with pytest.raises(NotFoundError, match="Did you mean 'species'"):
        read_images(folder / "labels.csv", "specis")


def test_one_bad_file_ends_nothing(folder: Path) -> None:
    (folder / "cat" / "1.png").write_bytes(b"no image")
    (folder / "dog" / "2.PNG").write_bytes(b"")
    bad = [str(p) for p in look(read_images(folder).pictures) if isinstance(p, Unreadable)]
    assert bad == ["cat/1.png: it is no image of a known form", "dog/2.PNG: the file is empty"]


def test_what_is_about_images_is_told_apart(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.csv"
    names.write_text("file,label\n" + "".join(f"{i}.jpg,a\n" for i in range(30)))
    table = tmp_path / "table.csv"
    table.write_text("size,label\n" + "".join(f"{i},a\n" for i in range(30)))
    assert [is_images(p) for p in (folder, names, str(names))] == [True, True, True]
    assert not any(is_images(p) for p in (table, tmp_path / "none", "SELECT 1", {"x": [1]}, None, "a\0b"))


def test_arrays_are_images(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((3, 4, 5), np.uint8))
    assert read_images(path).table["file"].to_pylist() == ["0", "1", "2"]
    with pytest.raises(DataError, match="images, height, width"):
        read_images(np.zeros((3, 4)))


def test_lists_are_joined_and_taken_from() -> None:
    arrays = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    both = JoinedPictures.of(ArrayPictures(arrays[:2]), ArrayPictures(arrays[2:]))
    assert [int(p[0, 0, 0]) for p in look(both) if not isinstance(p, Unreadable)] == [0, 1, 2, 3, 4]
    some = both.take(np.array([4, 0])).take(np.array([0]))
    assert int(some.pixels(0)[0, 0, 0]) == 4
    assert list(some.names) == ["2"]


def test_a_table_whose_rows_are_long_is_not_about_images(tmp_path: Path) -> None:
    table = tmp_path / "wide.csv"
    table.write_text(",".join(f"c{i}" for i in range(5000)) + "\n" + (",".join(["0.125"] * 5000) + "\n") * 8)
    assert not is_images(table)


@pytest.mark.parametrize("way", ["absolute", "climbing", "linked"])
def test_names_in_a_table_do_not_lead_out_of_a_folder_where_they_must_not(tmp_path: Path, way: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for place in (inside, outside):
        place.mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / "a.png")
    (inside / "b.png").symlink_to(outside / "a.png")
    name = {"absolute": str(outside / "a.png"), "climbing": "../outside/a.png", "linked": "b.png"}[way]
    table = inside / "t.csv"
    table.write_text(f"file,label\na.png,x\n{name},y\n", encoding="utf-8")
    assert read_images(table).table.num_rows == 2
    confined = read_images(table, within=inside)
    assert confined.table["file"].to_pylist() == ["a.png"]
    assert "are not there" in confined.notices[-1]
    files = files_of("rows@1a2b", [name], inside, inside)
    assert not files.has(name)
    with pytest.raises(ValueError, match="lies outside of"):
        files.read(name)
