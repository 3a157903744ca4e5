"""A bundle that reads lines: proven, whole, read again, run alone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tests.bundle.lines.made import WORDS, line_of, make, pictures, recipe

from tidemill.bundle.gaps import Gap
from tidemill.bundle.images.properties import PROPERTIES
from tidemill.bundle.lines.parity import prove
from tidemill.bundle.lines.runtime import LineBundle
from tidemill.bundle.netparity import MAX_DP
from tidemill.bundle.reference.file import read_reference
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.verify import verify
from tidemill.core.errors import DataError, OptionError, ParityError
from tidemill.data.images.pictures import ArrayPictures


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> LineBundle:
    return make(tmp_path_factory.mktemp("bundle") / "stripes.tm")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Four lines, one of them damaged, with transcripts, one of them absent."""
    for i, word in enumerate(("a", "aß", "ßß")):
        Image.fromarray(line_of(word)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"cut off")
    path = tmp_path / "lines.csv"
    path.write_text("file,text\n0.png,a\n1.png,aa\nbad.png,ß\n2.png,\n", encoding="utf-8")
    return path


def test_the_folder_is_whole_and_opens_as_what_it_is(bundle: LineBundle) -> None:
    assert verify(bundle.path) == []
    assert isinstance(Bundle.open(bundle.path), LineBundle)
    parity = json.loads((bundle.path / "bundle.json").read_text())["parity"]
    assert (parity["rows"], parity["flips"]) == (len(WORDS), 0)
    assert parity["max_abs_dp"] <= parity["bars"]["max_abs_dp"] == MAX_DP
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert "Reads `text`, a line of text, from an image" in card
    assert "texts that differ: 0" in card
    assert "Figures are of texts of the best path (greedy decoding)" in card
    assert {m.name for m in bundle.spec.metrics} == {"cer", "exact", "cer_nocase", "exact_nocase"}


def test_the_graph_takes_any_size_with_onnxruntime_alone(bundle: LineBundle) -> None:
    run = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 1, 3), (3, 50, 20, 3), (2, 8, 4000, 3)):
        prediction, confidence = run.run(None, {"image": np.full(shape, 255, np.uint8)})
        assert prediction.tolist() == [""] * shape[0]
        assert confidence.shape == (shape[0],)


def test_it_reads_what_stands_there(bundle: LineBundle) -> None:
    assert bundle.predict([pictures().pixels(i) for i in range(len(WORDS))]).tolist() == list(WORDS)
    with pytest.raises(OptionError, match="A recognition has no probabilities"):
        bundle.predict_proba(np.zeros((1, 8, 8), np.uint8))


def test_what_can_t_be_read_has_empty_cells_and_is_named(bundle: LineBundle, table: Path) -> None:
    out, told = table.parent / "out.csv", []
    assert bundle.to_csv(table, out, on_unreadable=told.append) == 4
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["prediction"] for r in rows] == ["a", "aß", "", "ßß"]
    assert [r["confidence"] == "" for r in rows] == [False, False, True, False]
    assert told == ["bad.png: it is no image of a known form"]
    records = bundle.predict_records(table)
    assert [r["prediction"] for r in records] == ["a", "aß", None, "ßß"]
    assert 0.5 < records[0]["confidence"] <= 1


def test_it_is_measured_on_lines_with_transcripts(bundle: LineBundle, table: Path) -> None:
    found = bundle.evaluate(table)
    assert found["exact"] == 0.5
    assert found["cer"] == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="no transcript 'text'"):
        bundle.evaluate(np.zeros((2, 4, 4), np.uint8))


def test_what_is_not_measured_is_counted_and_named(bundle: LineBundle, table: Path) -> None:
    gaps: list[Gap] = []
    bundle.evaluate(table, on_gap=gaps.append)
    assert list(map(str, gaps)) == [
        "1 of 3 images can't be read and are left out: bad.png: it is no image of a known form.",
        "1 of 4 lines have no transcript and are left out: 2.png.",
    ]
    table.rename(table.parent.parent / "far.csv")
    with pytest.raises(DataError, match="None of the 4 files"):
        bundle.evaluate(table.parent.parent / "far.csv")
    assert bundle.evaluate(table.parent.parent / "far.csv", images=table.parent)["exact"] == 0.5


def test_the_program_beside_it_writes_the_same_bytes(bundle: LineBundle, table: Path) -> None:
    ours, theirs = table.parent / "ours.csv", table.parent / "theirs.csv"
    bundle.to_csv(table, ours)
    command = [sys.executable, str(bundle.path / "run.py"), str(table), str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    assert "not read: bad.png: it is no image" in done.stderr


def test_a_graph_that_reads_otherwise_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"validation \(\d\) row \d: expected"):
        make(tmp_path / "wrong.tm", skew=40.0)
    assert not (tmp_path / "wrong.tm").exists()


def test_without_an_image_nothing_is_proven() -> None:
    with pytest.raises(ParityError, match="no image to prove"):
        prove(recipe(), {"validation": ArrayPictures([])})


def test_the_reference_tells_how_lines_look_and_how_sure_the_answers_are(bundle: LineBundle) -> None:
    held = read_reference(bundle.path)
    assert held is not None
    assert [c.name for c in held.features] == list(PROPERTIES)
    assert [c.name for c in held.predictions] == ["prediction", "confidence"]


def test_another_text_in_the_golden_rows_is_found() -> None:
    from tidemill.bundle.verify import _differences

    wanted = {"prediction": np.array(["a"], dtype=object), "confidence": np.float32([0.9])}
    assert _differences(wanted, dict(wanted), MAX_DP) == []
    for other in ({"prediction": np.array(["b"], dtype=object)}, {"confidence": np.float32([0.8])}):
        assert _differences(wanted, {**wanted, **other}, MAX_DP) != []
