"""A bundle for images: proven, whole, read again, run alone."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tests.bundle.images.made import TASK, VALUE, make, pictures, recipe

from tidemill.bundle import manifest
from tidemill.bundle.gaps import Gap
from tidemill.bundle.images.encoder import IMAGE
from tidemill.bundle.images.parity import MAX_DP, prove
from tidemill.bundle.images.properties import PROPERTIES
from tidemill.bundle.images.runtime import ImageBundle
from tidemill.bundle.reference.file import NAME, read_reference
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.verify import verify
from tidemill.core.errors import BundleError, DataError, ParityError
from tidemill.data.images.pictures import ArrayPictures


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ImageBundle:
    return make(tmp_path_factory.mktemp("bundle") / "tone.tm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of two classes, one of them damaged."""
    root = tmp_path / "photos"
    for i, label in enumerate(["dark", "dark", "light", "light", "light"]):
        (root / label).mkdir(parents=True, exist_ok=True)
        tone = 20 * i if label == "dark" else 255 - 10 * i
        Image.new("RGB", (5 + i, 9), (tone, tone, tone)).save(root / label / f"{i}.png")
    (root / "dark" / "bad.png").write_bytes(b"cut off")
    return root


def test_the_folder_is_whole_and_opens_as_what_it_is(bundle: ImageBundle) -> None:
    assert verify(bundle.path) == []
    assert isinstance(Bundle.open(bundle.path), ImageBundle)
    parity = json.loads((bundle.path / "bundle.json").read_text())["parity"]
    assert (parity["rows"], parity["flips"]) == (12, 0)
    assert parity["max_abs_dp"] <= parity["bars"]["max_abs_dp"] == MAX_DP


def test_the_graph_takes_any_size_with_onnxruntime_alone(bundle: ImageBundle) -> None:
    run = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 1, 3), (3, 50, 20, 3)):
        label, probabilities = run.run(None, {"image": np.full(shape, 200, np.uint8)})
        assert probabilities.shape == (shape[0], 3)
        assert set(label) <= set(TASK.classes)


def test_predictions_are_those_of_the_recipe(bundle: ImageBundle) -> None:
    arrays = [pictures(seed=5).pixels(i) for i in range(5)]
    expected = recipe().predict({IMAGE: _objects(arrays)})
    assert np.abs(bundle.predict_proba(arrays) - expected.scores).max() <= MAX_DP
    assert bundle.predict(arrays).tolist() == [TASK.classes[c] for c in expected.codes]  # type: ignore[union-attr]
    assert bundle.predict(np.stack(arrays[:2])).shape == (2,)


def test_an_image_that_can_t_be_read_has_empty_cells_and_is_named(bundle: ImageBundle, folder: Path) -> None:
    out, told = folder.parent / "out.csv", []
    assert bundle.to_csv(folder, out, on_unreadable=told.append) == 6
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["file"] for r in rows] == sorted(r["file"] for r in rows)
    bad = [r for r in rows if r["prediction"] == ""]
    assert [r["file"] for r in bad] == ["dark/bad.png"]
    assert told == ["dark/bad.png: it is no image of a known form"]
    records = bundle.predict_records(folder)
    assert [r["prediction"] for r in records if r["file"] == "dark/bad.png"] == [None]
    with pytest.raises(DataError, match=r"dark/bad\.png: The image can't be read"):
        bundle.predict(folder)


def test_a_row_whose_file_is_missing_stays_and_is_named(bundle: ImageBundle, folder: Path) -> None:
    table, out, told = folder / "new.csv", folder.parent / "out.csv", []
    table.write_text("file\ndark/0.png\nnowhere.png\nlight/2.png\n")
    assert bundle.to_csv(table, out, on_unreadable=told.append) == 3
    with out.open(newline="") as file:
        assert [r["prediction"] == "" for r in csv.DictReader(file)] == [False, True, False]
    assert told == ["nowhere.png: there is no such file"]
    assert [r["prediction"] is None for r in bundle.predict_records(table, on_unreadable=told.append)] == [
        False, True, False
    ]  # fmt: skip
    assert len(told) == 2
    with pytest.raises(DataError, match=r"nowhere\.png: The image can't be read: there is no such file"):
        bundle.predict(table)


def test_files_of_a_table_may_lie_elsewhere(bundle: ImageBundle, folder: Path, tmp_path: Path) -> None:
    table, ours, theirs = tmp_path / "far.csv", tmp_path / "ours.csv", tmp_path / "theirs.csv"
    table.write_text("file,tone\ndark/0.png,dark\nlight/2.png,light\n")
    with pytest.raises(DataError, match="None of the 2 files"):
        bundle.predict(table)
    assert bundle.predict(table, images=folder).shape == (2,)
    assert len(bundle.predict_records(table, images=folder)) == 2
    assert "accuracy" in bundle.evaluate(table, images=folder)
    bundle.to_csv(table, ours, images=folder)
    done = run_program(bundle, table, theirs, "--images", folder)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    done = run_program(bundle, table)
    assert done.returncode == 2
    assert "None of the files that the table names is in" in done.stderr
    assert "--images FOLDER" in done.stderr


def test_it_is_measured_on_labelled_images(bundle: ImageBundle, folder: Path) -> None:
    found = bundle.evaluate(folder)
    assert 0 <= found["accuracy"] <= 1
    with pytest.raises(DataError, match="no label 'tone'"):
        bundle.evaluate(np.zeros((2, 4, 4), np.uint8))


@pytest.mark.parametrize("source", ["folder", "table", "array", "image"])
def test_the_program_beside_it_writes_the_same_bytes(bundle: ImageBundle, folder: Path, source: str) -> None:
    given = folder
    if source == "table":
        given = folder / "names.csv"
        given.write_text("n,file\n1,dark/0.png\n2,dark/bad.png\n3,light/2.png\n")
    elif source == "array":
        given = folder / "x.npy"
        np.save(given, np.random.default_rng(2).integers(0, 256, (5, 6, 7)).astype(np.uint8))
    elif source == "image":
        given = folder / "light" / "2.png"
    ours, theirs = folder.parent / "ours.csv", folder.parent / "theirs.csv"
    bundle.to_csv(given, ours)
    command = [sys.executable, str(bundle.path / "run.py"), str(given), str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    assert ("not read: dark/bad.png: it is no image" in done.stderr) == (source in ("folder", "table"))
    assert not re.search(r"^\s*(from|import) tidemill", (bundle.path / "run.py").read_text(), re.MULTILINE)


def test_what_is_not_measured_is_counted_and_named(bundle: ImageBundle, folder: Path) -> None:
    (folder / "zebra").mkdir()
    Image.new("RGB", (5, 5)).save(folder / "zebra" / "1.png")
    gaps: list[Gap] = []
    bundle.evaluate(folder, on_gap=gaps.append)
    assert list(map(str, gaps)) == [
        "1 of 6 images can't be read and are left out: dark/bad.png: it is no image of a known form.",
        "1 of 7 images have a target that is no known class (1: 'zebra') and are left out: zebra/1.png.",
    ]
    assert gaps[1].to_json()["first"] == ["zebra/1.png"]
    (folder / "labels.csv").write_text("file,tone\ndark/0.png,dark\ngone.png,light\nlight/2.png,\n")
    gaps.clear()
    bundle.evaluate(folder / "labels.csv", on_gap=gaps.append)
    assert [gap.named for gap in gaps] == [("gone.png: there is no such file",), ("light/2.png",)]
    assert "no target 'tone' (1)" in str(gaps[1])


def test_the_program_finds_the_names_where_the_bundle_does(bundle: ImageBundle, folder: Path) -> None:
    table, ours, theirs = folder / "t.csv", folder.parent / "ours.csv", folder.parent / "theirs.csv"
    table.write_text("n,said,photo\n1,dark.,dark/0.png\n2,light,light/2.png\n3,short\n")
    done = run_program(bundle, table, theirs)
    assert done.returncode == 0, done.stderr
    with theirs.open(newline="") as file:
        assert [r["file"] for r in csv.DictReader(file)] == ["dark/0.png", "light/2.png", ""]
    table.write_text("n,said,photo\n1,dark.,dark/0.png\n2,light,light/2.png\n3,short,\n")
    bundle.to_csv(table, ours)
    run_program(bundle, table, theirs)
    assert theirs.read_bytes() == ours.read_bytes()
    (folder / "none.csv").write_text("id,said\n1,dark\n2,light\n")
    done = run_program(bundle, folder / "none.csv")
    assert done.returncode == 2
    assert "No column names image files ('id', 'said')" in done.stderr
    with pytest.raises(DataError, match="no column with names of image files"):
        bundle.predict(folder / "none.csv")


def run_program(bundle: ImageBundle, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(bundle.path / "run.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_tells_wrong_input_in_words(bundle: ImageBundle, tmp_path: Path) -> None:
    for given, words in (("none.png", "no such file"), (str(tmp_path), "There are no images")):
        command = [sys.executable, str(bundle.path / "run.py"), given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_values_are_proven_too(tmp_path: Path) -> None:
    made = make(tmp_path / "value.tm", VALUE, channels=1)
    assert verify(made.path) == []
    assert made.predict(np.zeros((2, 3, 3), np.uint8)).shape == (2,)


def test_a_graph_that_answers_otherwise_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"validation \(0\) row 0: expected"):
        make(tmp_path / "wrong.tm", VALUE, skew=1.0)
    assert not (tmp_path / "wrong.tm").exists()


def test_without_an_image_nothing_is_proven(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="no image to prove"):
        prove(recipe(), {"validation": ArrayPictures([])})


def test_one_flipped_byte_is_found(tmp_path: Path) -> None:
    made = make(tmp_path / "tone.tm")
    path = made.path / "run.py"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    assert [f.path for f in verify(made.path)] == ["run.py"]


def test_a_bundle_of_images_that_can_t_be_read_is_refused(tmp_path: Path) -> None:
    from tidemill.bundle.images.write import write_image_bundle

    class Bad(ArrayPictures):
        def pixels(self, place: int) -> np.ndarray:
            raise ValueError("gone")

        def take(self, places: np.ndarray) -> ArrayPictures:
            return Bad([self.arrays[int(i)] for i in places])

    with pytest.raises(BundleError, match="None of the images can be read"):
        write_image_bundle(tmp_path / "x.tm", recipe(), tables={"validation": Bad([np.zeros((2, 2))])})


def _objects(arrays: list[np.ndarray]) -> np.ndarray:
    out = np.empty(len(arrays), dtype=object)
    for i, each in enumerate(arrays):
        out[i] = each
    return out


def test_the_bundle_says_how_images_and_answers_looked(bundle: ImageBundle, tmp_path: Path) -> None:
    held = read_reference(bundle.path)
    assert held is not None
    assert {c.name: c.rows for c in held.features} == dict.fromkeys(PROPERTIES, 12)
    assert all(c.input == "" for c in held.features), "no input of the graph carries them"
    widths = next(c for c in held.features if c.name == "width")
    assert (widths.edges[0], widths.edges[-1]) == (1.0, 40.0)
    assert [c.name for c in held.predictions] == ["label", "confidence"]
    assert held.source == "out_of_fold"
    value = read_reference(make(tmp_path / "value.tm", VALUE).path)
    assert value is not None
    assert [c.name for c in value.predictions] == ["prediction"]


def test_a_reference_of_other_columns_is_found(tmp_path: Path) -> None:
    made = make(tmp_path / "tone.tm")
    path = made.path / NAME
    told = json.loads(path.read_text())
    told["features"] = told["features"][1:]
    path.write_text(json.dumps(told))
    files = {str(p.relative_to(made.path)): p.read_bytes() for p in made.path.rglob("*") if p.is_file()}
    del files[manifest.NAME]
    entries = {n: manifest.FileEntry(len(d), hashlib.sha256(d).hexdigest()) for n, d in files.items()}
    (made.path / manifest.NAME).write_bytes(manifest.render(entries))
    assert any("other columns" in f.message for f in verify(made.path) if f.path == NAME)
