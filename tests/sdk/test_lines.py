"""The main job on lines of text: a table of images and transcripts in; a study, a bundle and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.models.recognition.made import drawn, table, words

import tidemill as tm
from tidemill.cli.main import run
from tidemill.core import transcripts
from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.task import TaskKind
from tidemill.data.images.pictures import ArrayPictures
from tidemill.sdk.fit import fit_to_bundle
from tidemill.sdk.lines import choose_encoder, known_lengths, prepare_lines
from tidemill.sdk.options import FitOptions

QUICK: dict[str, Any] = {"trials": 1, "families": ("crnn",), "cpus": 1, "in_process": True, "kind": "text-recognition"}


def texts_of(y: np.ndarray[Any, Any]) -> list[str]:
    return transcripts.to_texts(y)


def test_what_can_t_be_used_is_left_out_counted_and_named(tmp_path: Path) -> None:
    path = table(tmp_path, [*words(30), "", "7"])
    (tmp_path / "bad.png").write_bytes(b"no image")
    with path.open("a", encoding="utf-8") as file:
        file.write("bad.png,12\ngone.png,12\n")
    found = prepare_lines(path, "text", FitOptions(test_size=0.0))
    assert found.task.kind is TaskKind.RECOGNITION
    assert texts_of(found.y) == [*words(30), "7"]
    told = " ".join(found.notices)
    assert "1 of 34 rows name files that are not there; left out: 'gone.png'" in told
    assert "1 of 33 images can't be read and are left out: bad.png: it is no image" in told
    assert "1 of 32 lines have no transcript, and are left out: 'lines0030.png'" in told
    assert any(f.code == "rare_character" and "'7'" in f.message for f in found.findings)
    assert found.columns["file"].tolist()[-1] == "lines0031.png"


def test_transcripts_of_one_length_are_seen_and_said(tmp_path: Path) -> None:
    found = prepare_lines(table(tmp_path, [f"{n:03d}" for n in range(120)]), "text", FitOptions(test_size=0.0))
    assert "All transcripts have 3 characters: a search by beams (--decode beam) reads no others." in found.notices


@pytest.mark.parametrize(
    ("texts", "lengths"),
    [
        (["AB1", "CD2"] * 60, (3,)),
        (["AB1", "CD12"] * 60, (3, 4)),
        (["AB1", "CD12", "EF123"] * 60, ()),
        (["AB1"] * 120 + ["CD12"], ()),
        (["AB1"] * 99, ()),
    ],
)
def test_lengths_are_known_where_they_are_few_and_sure(texts: list[str], lengths: tuple[int, ...]) -> None:
    assert known_lengths(transcripts.to_codes(texts)) == lengths


def test_lines_of_any_size_become_one_height(tmp_path: Path) -> None:
    path = table(tmp_path, words(12))
    Image.new("L", (1, 1)).save(tmp_path / "lines0000.png")
    Image.new("RGB", (6000, 20), (9, 9, 9)).save(tmp_path / "lines0001.png")
    Image.new("L", (30, 2000)).save(tmp_path / "lines0002.png")
    found = prepare_lines(path, "text", FitOptions(test_size=0.0))
    assert {line.shape[0] for line in found.x} == {32}
    assert max(line.shape[1] for line in found.x) == 2048
    assert any("lines are squeezed into 2,048 pixels" in n for n in found.notices)


def test_lines_that_are_too_short_for_their_text_are_told(tmp_path: Path) -> None:
    path = table(tmp_path, words(12))
    Image.new("L", (16, 32), 255).save(tmp_path / "lines0000.png")
    path.write_text(path.read_text().replace(f"lines0000.png,{words(12)[0]}", "lines0000.png,11223"))
    found = prepare_lines(path, "text", FitOptions(test_size=0.0))
    assert any("1 of 12 lines have more characters than can be read along their width" in n for n in found.notices)


def test_characters_that_training_never_saw_are_told(tmp_path: Path) -> None:
    train, test = table(tmp_path / "a", words(20)), table(tmp_path / "b", ["0x", "11"])
    found = prepare_lines(train, "text", FitOptions(test=test))
    assert any("1 characters stand in 1 of 2 locked lines and in no training line" in n for n in found.notices)
    assert len(found.test) == 2
    same = prepare_lines(train, "text", FitOptions(test=train))
    assert any(f.code == "image_in_train_and_test" for f in same.findings)


def test_transcripts_are_composed_and_trimmed(tmp_path: Path) -> None:
    path = table(tmp_path, ["a\u0308 b", "  00012 ", "NA", "null"])
    found = prepare_lines(path, "text", FitOptions(test_size=0.0))
    assert texts_of(found.y) == ["\u00e4 b", "00012", "NA", "null"]


def test_case_counts_nothing_where_that_is_said(tmp_path: Path) -> None:
    path = table(tmp_path, ["aB", "\u00c4 B", "\u00df"])
    found = prepare_lines(path, "text", FitOptions(test_size=0.0, ignore_case=True))
    assert texts_of(found.y) == ["ab", "\u00e4 b", "\u00df"]
    assert found.task.ignores_case
    assert not prepare_lines(path, "text", FitOptions(test_size=0.0)).task.ignores_case


def test_the_height_is_chosen_by_the_lines() -> None:
    for height, chosen in ((20, 32), (40, 32), (48, 48), (200, 48)):
        assert choose_encoder(ArrayPictures(np.zeros((2, height, 90)))).height == chosen
    assert choose_encoder(ArrayPictures(np.zeros((2, 20, 90))), 24).height == 24
    with pytest.raises(OptionError, match="at least 16 pixels"):
        choose_encoder(ArrayPictures(np.zeros((2, 20, 90))), 8)


def test_wrong_questions_are_told(tmp_path: Path) -> None:
    path = table(tmp_path, words(10))
    with pytest.raises(OptionError, match="Which column holds what stands in the lines"):
        prepare_lines(path, None, FitOptions())
    with pytest.raises(NotFoundError, match="Did you mean 'text'"):
        prepare_lines(path, "texd", FitOptions())
    with pytest.raises(DataError, match="no column with names of image files"):
        prepare_lines(path, "file", FitOptions())
    (tmp_path / "x").mkdir()
    drawn("1").save(tmp_path / "x" / "1.png")
    with pytest.raises(DataError, match="class folders"):
        prepare_lines(tmp_path, "text", FitOptions())
    empty = table(tmp_path / "empty", [""] * 5)
    with pytest.raises(DataError, match="No line has a transcript"):
        prepare_lines(empty, "text", FitOptions())
    columns = {"a": [1, 2, 3, 4] * 9, "y": ["p", "q"] * 18}
    with pytest.raises(OptionError, match="not from the columns of a table"):
        tm.fit(columns, "y", workspace=tmp_path / "w", kind="recognition", trials=1)


def test_how_texts_are_decoded_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    columns = {"a": [1, 2, 3, 4] * 9, "y": ["p", "q"] * 18}
    with pytest.raises(OptionError, match="Only what reads lines of text is decoded"):
        tm.fit(columns, "y", workspace=tmp_path / "w", trials=1, decode="beam")
    with pytest.raises(OptionError, match="beam:WIDTH"):
        tm.fit(table(tmp_path, words(10)), "text", workspace=tmp_path / "w", decode="bean", **QUICK)


@pytest.mark.slow
def test_a_fit_leaves_a_study_that_is_reported_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="a fit on lines trains nets")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")
    from tidemill.models.recognition.families._trained import TrainedFamily

    for name, value in (("epochs", (5, 5)), ("width", 8)):
        monkeypatch.setattr(TrainedFamily, name, value)
    path = table(tmp_path / "lines", words(60, "01aB"))
    test = table(tmp_path / "test", [word.upper() for word in words(12, "01ab", seed=4)])
    with tm.fit(path, "text", workspace=tmp_path / "w", name="read", test=test, ignore_case=True, **QUICK) as study:
        assert str(study.objective) == "minimize cer"
        bundle = study.best.export(tmp_path / "read.tm")
        report = study.report(tmp_path / "report.html", bundle=bundle).read_text(encoding="utf-8")
        kept = study.best.evidence()
        searched = study.best.export(tmp_path / "beam.tm", decode="beam:5")
        told = study.report(tmp_path / "beam.html", bundle=searched).read_text(encoding="utf-8")
        assert study.describe()["decoding"] == study.describe_trial(0)["decoding"] == "greedy"
        assert study.leaderboard()[0]["decoding"] == study.best.to_json()["decoding"] == "greedy"
        assert "figures of texts of the best path" in study.best.in_words()
    assert searched.spec.decode["width"] == 5
    (measured,) = [m.value for m in searched.spec.metrics if (m.source, m.name) == ("test", "cer")]
    assert searched.evaluate(test)["cer"] == pytest.approx(measured)
    assert "Figures are of texts searched for by beams of 5" in (searched.path / "README.md").read_text()
    assert "searched for by beams of 5" in told
    assert "searched for by beams of 5" not in report
    assert "Their texts are those of the best path." in report
    assert "What it reads wrongly" in report
    assert "Characters that it confuses" in report
    assert "Character error rate" in report
    assert "wholly right on" in report
    assert bundle.evaluate(test)["cer"] == pytest.approx(study.search.report_locked_slice()["value"])
    assert kept[0].source == "test"
    assert kept[0].y.max() < ord("c"), "case counts nothing here"
    assert not any(text != text.lower() for text in bundle.predict(test))
    again = FitOptions(trials=0, decode="beam:3")
    result = fit_to_bundle(None, None, out=tmp_path / "again.tm", options=again, resume="read",
                           workspace=tmp_path / "w", report=False)  # fmt: skip
    result.study.close()
    assert len(result.study.search.trials()) == 1
    told = result.in_words()
    assert "Texts of the bundle are searched for by beams of 3: cer " in told
    assert "on locked test rows, cer " in told
    place = ["--workspace", str(tmp_path / "w"), "--out", str(tmp_path / "other.tm"), "--json"]
    assert run(["reobjective", "read", "--objective", "maximize exact", "--decode", "beam:4", *place]) == 0
    assert [tm.load(tmp_path / name).spec.decode["width"] for name in ("again.tm", "other.tm")] == [3, 4]
    with tm.fit(None, workspace=tmp_path / "w", resume="read", trials=2, cpus=1, in_process=True) as more:
        assert len(more.search.trials()) == 2
        assert more.task.ignores_case
    words_of = {**QUICK, "weights": ("read",)}
    with tm.fit(path, "text", workspace=tmp_path / "w", name="next", **words_of) as other:
        assert "scratch" in other.search.trials()[0].config["crnn.weights"]
