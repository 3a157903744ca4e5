"""The command line on images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.sdk.test_images import digits

from tidemill.cli.main import run


@pytest.mark.parametrize("command", ["list", "show", "check"])
def test_the_pool_has_a_face(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"list": [], "show": ["linear"], "check": ["linear"]}[command]
    assert run(["pool", command, *words]) == 0
    assert "linear" in capsys.readouterr().out
    assert run(["pool", command, *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_what_a_check_of_the_pool_did_not_try_has_no_tick(capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason="without it the whole family is not tried")
    assert run(["pool", "check", "backbone/Swin", "linear"]) == 0
    swin, linear = capsys.readouterr().out.splitlines()
    assert swin.startswith("– backbone/Swin: not tried: ")
    assert linear.startswith("✓ linear: ")


@pytest.mark.slow
def test_a_folder_of_photos_becomes_a_bundle_that_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="a fit on images trains nets")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")
    photos = digits(tmp_path / "photos", 150)
    (photos / "0" / "bad.png").write_bytes(b"no image")
    bundle, workspace = tmp_path / "digits.tm", ["--workspace", str(tmp_path / "w")]
    fit = ["fit", str(photos), "--trials", "1", "--family", "probe", "--cpus", "1", "--out", str(bundle), "--json"]
    assert run([*fit, *workspace]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any("1 of 151 images can't be read" in e.get("message", "") for e in said)
    assert Path(said[-1]["report"]).is_file()
    assert run(["verify", str(bundle)]) == 0
    out = tmp_path / "out.csv"
    capsys.readouterr()
    assert run(["predict", str(bundle), str(photos), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "151 rows written" in told.out
    assert "not read: 0/bad.png: it is no image of a known form" in told.err
    assert out.read_text().splitlines()[0] == "file,prediction,proba_0,proba_1,proba_2,proba_3"
    assert run(["evaluate", str(bundle), str(photos), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.9


def test_what_is_not_read_or_measured_is_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.bundle.images.made import make

    bundle, photos, table = str(make(tmp_path / "tone.tm").path), tmp_path / "photos", tmp_path / "new.csv"
    photos.mkdir()
    for i in range(3):
        Image.new("L", (4, 4), 80 * i).save(photos / f"{i}.png")
    table.write_text("file,tone\n0.png,dark\ngone.png,dark\n1.png,zebra\n2.png,light\n")
    assert run(["predict", bundle, str(table)]) == 2
    assert "say --images FOLDER" in capsys.readouterr().err
    place = ["--images", str(photos)]
    assert run(["predict", bundle, str(table), *place]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 5
    assert told.err.splitlines() == ["not read: gone.png: there is no such file", "1 image can't be read."]
    assert run(["predict", bundle, str(table), *place, "--json"]) == 0
    told = capsys.readouterr()
    assert [row["prediction"] is None for row in json.loads(told.out)] == [False, True, False, False]
    assert "not read: gone.png" in told.err
    assert run(["predict", bundle, str(table), *place, "--json", "--out", str(tmp_path / "out.csv")]) == 0
    assert json.loads(capsys.readouterr().out)["not_read"] == ["gone.png: there is no such file"]
    assert run(["evaluate", bundle, str(table), *place, "--json"]) == 0
    told = capsys.readouterr()
    counted = [(gap["count"], gap["of"], gap["first"]) for gap in json.loads(told.out)["gaps"]]
    assert counted == [(1, 3, ["gone.png: there is no such file"]), (1, 4, ["1.png"])]
    assert "1 of 4 images have a target that is no known class (1: 'zebra') and are left out: 1.png." in told.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "FOLDER", "--family", "resnet99"], "Did you mean 'resnet9'"),
        (["fit", "FOLDER", "--schedule", "rows"], "for tables, not for images: --schedule"),
        (["fit", "FOLDER", "--image-size", "2"], "4 to 1024 pixels"),
        (["fit", "FOLDER", "--weights", "nowhere", "--trials", "1"], "There are no weights at"),
    ],
)
def test_wrong_words_are_told(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="without it the extra is what is told")
    photos = digits(tmp_path / "photos", 40)
    given = [str(photos) if w == "FOLDER" else w for w in words]
    assert run([*given, "--workspace", str(tmp_path / "w"), "--cpus", "1"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
