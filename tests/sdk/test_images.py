"""The main job on images: class folders in; a study, a bundle and a report out. The digits come with scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tidemill as tm
from tidemill.core.errors import DataError, MissingExtraError, OptionError
from tidemill.core.task import TaskKind
from tidemill.sdk.images import CAPTURED, choose_encoder, prepare_images
from tidemill.sdk.options import FitOptions

QUICK: dict[str, Any] = {"trials": 1, "families": ("probe",), "cpus": 1, "in_process": True}


def digits(folder: Path, count: int = 240, first: int = 0, classes: int = 4) -> Path:
    """Write digits of 8 × 8 pixels into class folders."""
    from sklearn.datasets import load_digits

    found = load_digits(n_class=classes)
    for i in range(first, first + count):
        place = folder / str(found.target[i])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((found.images[i] * 255 / 16).astype(np.uint8)).save(place / f"{i:04d}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits(tmp_path_factory.mktemp("digits") / "photos")


def test_preparation_leaves_out_and_names_what_can_t_be_read(tmp_path: Path) -> None:
    root = digits(tmp_path / "photos", 60)
    (root / "0" / "bad.png").write_bytes(b"no image")
    cut = (root / "1" / "0001.png").read_bytes()
    (root / "1" / "cut.png").write_bytes(cut[: len(cut) // 2])
    found = prepare_images(root, None, FitOptions())
    assert len(found.y) == 60
    assert found.x.shape == (60, 1, 8, 8)
    assert any("2 of 62 images can't be read and are left out: 0/bad.png" in n for n in found.notices)
    assert found.task.classes == ("0", "1", "2", "3")
    assert found.task.kind is TaskKind.MULTICLASS
    assert not found.mirrored
    assert sorted([*found.train, *found.test]) == list(range(60))


def test_classes_that_look_like_numbers_are_classes(tmp_path: Path) -> None:
    for i in range(60):  # more values than a set of classes usually has
        (tmp_path / str(i % 30)).mkdir(exist_ok=True)
        Image.new("L", (8, 8), i).save(tmp_path / str(i % 30) / f"{i}.png")
    assert prepare_images(tmp_path, None, FitOptions(test_size=0.0)).task.n_classes == 30


def test_values_are_learned_from_a_table_of_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["file,brightness"]
    for i in range(40):
        Image.new("L", (8, 8), i * 6).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{i * 6 + rng.normal():.3f}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    found = prepare_images(tmp_path / "labels.csv", "brightness", FitOptions())
    assert found.task.kind is TaskKind.REGRESSION


def test_images_of_every_form_stand_in_one_study(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tones = rng.integers(0, 256, (9, 7)).astype(np.uint8)
    colour = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    forms = {
        "grey.png": (Image.fromarray(tones), {}),
        "alpha.png": (Image.fromarray(np.dstack([colour, tones])), {}),
        "deep.png": (Image.fromarray(tones.astype(np.uint16) * 257), {}),
        "print.tif": (Image.new("CMYK", (9, 7), (0, 10, 200, 5)), {}),
        "turned.jpg": (Image.fromarray(colour), {"exif": turned}),
        "pixel.png": (Image.new("RGB", (1, 1), (1, 2, 3)), {}),
        "large.png": (Image.new("RGB", (3000, 40), (9, 8, 7)), {}),
        "palette.gif": (Image.fromarray(tones).convert("P"), {}),
    }
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for name, (image, words) in forms.items():
            image.save(tmp_path / "photos" / label / name, **words)
    found = prepare_images(tmp_path / "photos", None, FitOptions(test_size=0.0))
    assert len(found.y) == 2 * len(forms)
    assert not any("can't be read" in n for n in found.notices)
    sizes = dict(zip(found.table.pictures.names, found.columns["width"].tolist(), strict=True))
    assert (sizes["a/turned.jpg"], sizes["a/pixel.png"], sizes["a/large.png"]) == (9, 1, 3000)


def test_a_class_that_stands_in_the_test_alone_is_left_out_and_told(tmp_path: Path) -> None:
    train = digits(tmp_path / "train", 60, classes=3)
    test = digits(tmp_path / "test", 40, first=60, classes=4)
    strange = len(list((test / "3").iterdir()))
    found = prepare_images(train, None, FitOptions(test=test))
    assert found.task.classes == ("0", "1", "2")
    assert len(found.test) == 40 - strange
    words = f"{strange} of 40 images have a target that is no known class ({strange}: '3'), and are left out: '3/"
    assert any(words in n for n in found.notices)


def table_of(folder: Path, place: Path, count: int = 60) -> Path:
    """A table that names digits of a folder, beside a number and a text."""
    rows = sorted(digits(folder, count).glob("*/*.png"))
    place.write_text(
        "price,said,file,digit\n"
        + "".join(f"{i % 7}.5,sold as seen {i},{p.relative_to(folder)},d{p.parent.name}\n" for i, p in enumerate(rows))
    )
    return place


def test_columns_that_a_model_for_images_does_not_see_are_named(tmp_path: Path) -> None:
    table = table_of(tmp_path / "photos", tmp_path / "photos" / "ads.csv")
    (told,) = [n for n in prepare_images(table, "digit", FitOptions()).notices if "left out" in n]
    assert told.startswith("2 columns are left out, because a model for images sees the image alone: 'price', 'said'.")
    assert "say --kind table-classification or table-regression" in told
    table.write_text(table.read_text().replace("price,said", "capture.at,capture.reason"))
    assert not any("left out" in n for n in prepare_images(table, "digit", FitOptions()).notices)
    table.write_text(table.read_text().replace("capture.at,capture.reason", "price,said"))
    asked = prepare_images(table, "digit", FitOptions(kind="image-classification"))
    (told,) = [n for n in asked.notices if "left out" in n]
    assert "--weights" not in told, "whoever said so needs no advice"


def test_columns_of_captured_images_begin_as_endpoints_write_them() -> None:
    capture = pytest.importorskip("tidemill.deploy.watch.capture", reason="serving is an extra", exc_type=ImportError)
    assert capture.META == CAPTURED


def test_test_images_lie_where_a_person_said(tmp_path: Path) -> None:
    table = table_of(tmp_path / "photos", tmp_path / "train.csv")
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:41]) + "\n")
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *lines[41:]]) + "\n")
    words = FitOptions(images=tmp_path / "photos", test=tmp_path / "test.csv", kind="image-classification")
    assert len(prepare_images(table, "digit", words).test) > 0


def test_a_backbone_sees_larger_images_and_a_line_says_what_it_does_not_see(tmp_path: Path) -> None:
    from tests.sdk.test_fusion import image_weights

    for label in "ab":
        for i in range(20):
            (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (300, 200 + i), (i, 99, 7)).save(tmp_path / "photos" / label / f"{i}.png")
    folder = image_weights(tmp_path / "vit")

    def prepared(side: object, **words: Any) -> Any:
        (tmp_path / "vit" / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": side}))
        return prepare_images(tmp_path / "photos", None, FitOptions(test_size=0.0, weights=(folder,), **words))

    assert prepare_images(tmp_path / "photos", None, FitOptions()).x.shape[2:] == (64, 64)
    assert prepared(96).x.shape[2:] == (96, 96), "as it was made for"
    assert prepared([112, 112]).x.shape[2:] == (112, 112)
    large = prepared(224)
    assert large.x.shape[2:] == (128, 128), "a processor has its bounds"
    assert any("was made for 224: --image-size 224 shows it more" in n for n in large.notices)
    assert not any("--image-size" in n for n in prepared(224, image_size=224).notices)
    small = digits(tmp_path / "small", 40)
    found = prepare_images(small, None, FitOptions(test_size=0.0, weights=(folder,)))
    assert found.x.shape[2:] == (8, 8), "images have no more than their own pixels"
    assert not any("--image-size" in n for n in found.notices)


def test_copies_and_contradictions_are_found(tmp_path: Path) -> None:
    for i in range(40):
        for label in ("a", "b"):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("L", (8, 8), 5 * i).save(tmp_path / label / f"{i}.png")
    codes = {f.code for f in prepare_images(tmp_path, None, FitOptions(test_size=0.3)).findings}
    assert {"image_with_two_labels", "image_twice", "image_in_train_and_test"} <= codes


def test_size_and_colour_are_chosen_by_the_images() -> None:
    from tidemill.data.images.pictures import ArrayPictures

    rng = np.random.default_rng(0)
    colour = ArrayPictures([rng.integers(0, 256, (30 + i, 20, 3)).astype(np.uint8) for i in range(5)])
    assert choose_encoder(colour).shape == (3, 32, 32)
    assert choose_encoder(colour, 48).shape == (3, 48, 48)
    assert choose_encoder(ArrayPictures(rng.integers(0, 256, (2, 300, 200)).astype(np.uint8))).shape == (1, 64, 64)


def test_wrong_input_is_told_in_words(tmp_path: Path, folder: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("L", (8, 8)).save(flat / "a.png")
    with pytest.raises(DataError, match="The images have no labels"):
        prepare_images(flat, None, FitOptions())
    with pytest.raises(OptionError, match="for tables, not for images: --time-column"):
        prepare_images(folder, None, FitOptions(time_column="t"))
    with pytest.raises(OptionError, match="4 to 1024 pixels"):
        FitOptions(image_size=2)
    for label in ("a", "b"):
        (tmp_path / "all" / label).mkdir(parents=True)
        (tmp_path / "all" / label / "x.png").write_bytes(b"no")
    with pytest.raises(DataError, match="None of the images can be read"):
        prepare_images(tmp_path / "all", None, FitOptions())


def test_without_torch_it_says_what_to_install(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.train import extra

    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'torch' is needed to learn from images.*tidemill\[deep\]"):
        tm.fit(folder, workspace=tmp_path / "w", **QUICK)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def study(place: Path, folder: Path) -> Any:
    pytest.importorskip("torch", reason="a fit on images trains nets")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")
    test = digits(place.parent / "locked", 60, first=240)
    with tm.fit(folder, test=test, workspace=place / "w", name="digits", **QUICK) as study:
        yield study


def test_a_study_of_images_is_like_any_other(study: Any) -> None:
    board = study.leaderboard()
    assert board[0]["family"] == "probe"
    assert board[0]["log_loss"] < 0.5
    assert board[0]["params"] > 0
    assert board[0]["latency_ms"] > 0
    other = study.reobjective("maximize accuracy; params <= 1e7")
    assert other.best.candidate.satisfied
    assert study.best.candidate.verdict.value == pytest.approx(board[0]["log_loss"], rel=0.5)


def test_its_bundle_answers_as_the_net_and_its_report_stands_alone(study: Any, place: Path, folder: Path) -> None:
    from tidemill.bundle.verify import verify

    bundle = study.best.export(place / "digits.tm")
    assert verify(place / "digits.tm") == []
    assert bundle.evaluate(place.parent / "locked")["accuracy"] >= 0.9
    assert bundle.predict(folder).dtype == np.int64, "labels have the type that they had"
    parity = json.loads((place / "digits.tm" / "bundle.json").read_text())["parity"]
    assert parity["flips"] == 0
    assert parity["max_abs_dp"] <= 1e-4
    assert parity["rows"] == len(study.search.covered_rows) + 60
    page = study.report(place / "report.html", bundle=bundle).read_text()
    assert "The model sees the image" in page


def test_a_study_is_opened_and_exported_later_from_what_the_workspace_keeps(
    study: Any, place: Path, tmp_path: Path
) -> None:
    from tidemill.sdk.studies import open_study

    before = study.best.export(tmp_path / "a.tm").model_path.read_bytes()
    with open_study("digits", place / "w") as opened:
        assert opened.modality.name == "image"
        assert np.array_equal(opened.prepared.x, study.prepared.x)
        assert np.array_equal(opened.prepared.y, study.prepared.y)
        after = opened.best.export(tmp_path / "b.tm").model_path.read_bytes()
    assert before == after


def test_a_study_goes_on_where_it_was(study: Any, place: Path) -> None:
    options = {**QUICK, "trials": 2, "families": None}
    with tm.fit(None, workspace=place / "w", resume="digits", **options) as more:
        assert len(more.search.trials()) == 2
        assert {t.family for t in more.search.trials()} == {"probe"}
