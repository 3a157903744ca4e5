"""A bundle for texts: proven, whole, read again, run alone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.bundle.texts.made import COLUMN, SAID, TASK, VALUE, make, objects, recipe

from tidemill.bundle.netparity import MAX_DP
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.texts.parity import prove
from tidemill.bundle.texts.readers import READERS, Reader, stored_readers
from tidemill.bundle.texts.runtime import TextBundle
from tidemill.bundle.verify import verify
from tidemill.core.errors import BundleError, DataError, MissingExtraError, ParityError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TextBundle:
    return make(tmp_path_factory.mktemp("bundle") / "mood.tm")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n", COLUMN, "mood"])
        writer.writerows([i, text, "good"] for i, text in enumerate([*SAID, "naïve\n🙂", "NA"] * 120))
    return path


def test_the_folder_is_whole_and_opens_as_what_it_is(bundle: TextBundle) -> None:
    assert verify(bundle.path) == []
    assert isinstance(Bundle.open(bundle.path), TextBundle)
    parity = json.loads((bundle.path / "bundle.json").read_text())["parity"]
    assert (parity["rows"], parity["flips"]) == (len(SAID), 0)
    assert parity["max_abs_dp"] <= parity["bars"]["max_abs_dp"] == MAX_DP
    assert len(bundle.readers) == 2, "parts that read alike share a reader"
    assert "tokenizers" in (bundle.path / "requirements.txt").read_text()
    assert "TYPE_INT64" in (bundle.path / "config.pbtxt").read_text()


def test_predictions_are_those_of_the_recipe_in_the_order_of_the_rows(bundle: TextBundle) -> None:
    expected = recipe().predict({COLUMN: objects(SAID)})
    assert np.abs(bundle.predict_proba({COLUMN: SAID}) - expected.scores).max() <= MAX_DP
    assert expected.codes is not None
    assert bundle.predict({COLUMN: SAID}).tolist() == [TASK.classes[c] for c in expected.codes]
    assert bundle.predict_columns({COLUMN: objects([])}).shape == (0,)


def test_a_missing_text_is_an_empty_one(bundle: TextBundle) -> None:
    found = bundle.predict_proba({COLUMN: ["", None, "NA"]})
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_what_stands_beside_a_text_does_not_change_its_answer(bundle: TextBundle) -> None:
    alone = np.concatenate([bundle.predict_proba({COLUMN: [text]}) for text in SAID])
    assert np.abs(bundle.predict_proba({COLUMN: SAID * 9})[: len(SAID)] - alone).max() <= 1e-6


def test_the_column_is_found_by_name(bundle: TextBundle) -> None:
    with pytest.raises(DataError, match="'review'"):
        bundle.predict({"reviews": ["good"]})


def test_it_is_measured_on_labelled_texts(bundle: TextBundle, table: Path) -> None:
    assert 0 <= bundle.evaluate(table)["accuracy"] <= 1


def test_the_program_beside_it_writes_the_same_bytes(bundle: TextBundle, table: Path) -> None:
    ours, theirs = table.with_name("ours.csv"), table.with_name("theirs.csv")
    bundle.to_csv(table, ours)
    command = [sys.executable, str(bundle.path / "run.py"), str(table), str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    program = (bundle.path / "run.py").read_text()
    assert "from tidemill" not in program
    assert "import tidemill" not in program


def test_the_program_tells_wrong_input_in_words(bundle: TextBundle, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "head.csv").write_text(f"{COLUMN},b\n")
    for given, words in (
        ("none.csv", "No such file"),
        (str(tmp_path / "other.csv"), "1 column is missing: 'review'"),
        (str(tmp_path / "head.csv"), "no rows"),
    ):
        command = [sys.executable, str(bundle.path / "run.py"), given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_reader_that_was_changed_is_found_by_all(tmp_path: Path) -> None:
    made = make(tmp_path / "mood.tm")
    place = next((made.path / "readers").iterdir())
    place.write_bytes(place.read_bytes().replace(b"awful", b"lawful"))
    assert [f.path for f in verify(made.path)] == [place.relative_to(made.path).as_posix()]
    with pytest.raises(BundleError, match="not the one that the graph was proven with"):
        Bundle.open(made.path).predict({COLUMN: ["good"]})
    (tmp_path / "in.csv").write_text(f"{COLUMN},b\ngood,1\n")
    command = [sys.executable, str(made.path / "run.py"), str(tmp_path / "in.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not the file that the model was made with" in done.stderr


def test_values_are_proven_too(tmp_path: Path) -> None:
    made = make(tmp_path / "value.tm", VALUE)
    assert verify(made.path) == []
    assert made.predict({COLUMN: SAID}).shape == (len(SAID),)


def test_a_graph_that_answers_otherwise_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"validation \('good'\) row 0: expected"):
        make(tmp_path / "wrong.tm", VALUE, skew=1.0)
    assert not (tmp_path / "wrong.tm").exists()


def test_without_a_text_nothing_is_proven() -> None:
    with pytest.raises(ParityError, match="no text to prove"):
        prove(recipe(), COLUMN, {"validation": objects([])})


def test_readers_that_are_gone_are_told(tmp_path: Path) -> None:
    reader = Reader.of_grams("words", 1, 1, ["a"])
    with pytest.raises(BundleError, match="The readers of the texts can't be opened"):
        stored_readers({READERS: json.dumps([reader.entry])}, tmp_path)
    with pytest.raises(BundleError, match="The readers of the texts can't be opened"):
        stored_readers({}, tmp_path)


def test_without_tokenizers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'tokenizers' is needed to read texts.*tidemill\[text\]"):
        Reader.of_tokens("{}", 8).read(["a"])


def test_a_server_is_told_what_reads_its_texts(bundle: TextBundle) -> None:
    from tidemill.deploy.engine.facts import read_facts

    encoding = read_facts(bundle.path).encoding
    assert encoding is not None
    assert set(encoding.files) == {reader.file for reader in bundle.readers}
