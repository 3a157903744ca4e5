"""A bundle of a table with embedded columns: proven, whole, read again, run alone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.bundle.fusion.made import SAID, TASK, TEXT, VALUE, columns, make, objects, recipe, text_embedding

from tidemill.bundle.fusion.assemble import assemble_fused
from tidemill.bundle.fusion.embedding import Embedding, cost_of
from tidemill.bundle.fusion.parity import prove
from tidemill.bundle.fusion.parts import Rows
from tidemill.bundle.fusion.runtime import FusedBundle
from tidemill.bundle.netparity import MAX_DP
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.verify import verify
from tidemill.core.errors import BundleError, DataError, ParityError
from tidemill.core.schema import Column, Schema, SemanticType


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> FusedBundle:
    return make(tmp_path_factory.mktemp("bundle") / "animal.tm")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    rows = columns(1_100, seed=3)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["city", "id", TEXT, "age"])
        for i, (age, said, city) in enumerate(zip(*rows.values(), strict=True)):
            writer.writerow([city, i, said + "!" * (i % 7), "" if np.isnan(age) else repr(float(age))])
    return path


def test_the_folder_is_whole_and_opens_as_what_it_is(bundle: FusedBundle) -> None:
    assert verify(bundle.path) == []
    assert isinstance(Bundle.open(bundle.path), FusedBundle)
    parity = json.loads((bundle.path / "bundle.json").read_text())["parity"]
    assert (parity["rows"], parity["flips"]) == (48, 0)
    assert parity["max_abs_dp"] <= parity["bars"]["max_abs_dp"] == MAX_DP
    needed = (bundle.path / "requirements.txt").read_text()
    assert "tokenizers" in needed
    assert "pillow" not in needed
    assert '"review"\n    data_type: TYPE_INT64' in (bundle.path / "config.pbtxt").read_text()
    assert not bundle.schema.has_texts


def test_predictions_are_those_of_the_recipe_in_the_order_of_the_rows(bundle: FusedBundle) -> None:
    expected = recipe().predict(columns())
    given = {**columns()}
    assert np.abs(bundle.answer(given)["probabilities"] - expected.scores).max() <= MAX_DP
    assert expected.codes is not None
    assert bundle.predict_columns(given).tolist() == [TASK.classes[c] for c in expected.codes]
    assert bundle.predict_columns({name: values[:0] for name, values in given.items()}).shape == (0,)


def test_a_missing_text_is_an_empty_one_and_says_nothing(bundle: FusedBundle) -> None:
    rest = {"age": [1.0] * 4, "city": ["Ulm"] * 4}
    found = bundle.predict_proba({**rest, TEXT: ["", None, "  ", "red fox"]})
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert np.abs(found[0] - found[3]).max() > 1e-3


def test_text_and_other_columns_both_matter(bundle: FusedBundle) -> None:
    found = bundle.predict_proba({"age": [1.0] * 3, "city": ["Ulm", "Rom", "Ulm"], TEXT: ["red fox", "red fox", "a"]})
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_what_stands_beside_a_row_does_not_change_its_answer(bundle: FusedBundle) -> None:
    rows = columns(len(SAID))
    alone = [bundle.answer({n: v[i : i + 1] for n, v in rows.items()})["probabilities"] for i in range(len(SAID))]
    assert np.abs(bundle.answer(rows)["probabilities"] - np.concatenate(alone)).max() <= 1e-6


def test_columns_are_found_by_name(bundle: FusedBundle) -> None:
    with pytest.raises(DataError, match="'review'"):
        bundle.predict({"reviews": ["good"], "age": [1], "city": ["Ulm"]})


def test_the_program_beside_it_writes_the_same_bytes(bundle: FusedBundle, table: Path) -> None:
    ours, theirs = table.with_name("ours.csv"), table.with_name("theirs.csv")
    bundle.to_csv(table, ours)
    command = [sys.executable, str(bundle.path / "run.py"), str(table), str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    assert len(ours.read_text().splitlines()) == 1_101
    program = (bundle.path / "run.py").read_text()
    assert "from tidemill" not in program
    assert "import tidemill" not in program


def test_the_program_tells_wrong_input_in_words(bundle: FusedBundle, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "head.csv").write_text("age,review,city\n")
    (tmp_path / "age.csv").write_text("age,review,city\nold,red fox,Ulm\n")
    for given, words in (
        ("none.csv", "No such file"),
        (str(tmp_path / "other.csv"), "3 columns are missing: 'age', 'review', 'city'"),
        (str(tmp_path / "head.csv"), "no rows"),
        (str(tmp_path / "age.csv"), "Column 'age', row 1"),
    ):
        done = subprocess.run([sys.executable, str(bundle.path / "run.py"), given], capture_output=True, text=True)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_reader_that_was_changed_is_found_by_all(tmp_path: Path) -> None:
    made = make(tmp_path / "animal.tm")
    place = next((made.path / "readers").iterdir())
    place.write_bytes(place.read_bytes().replace(b'"fox"', b'"cat"'))
    assert place.relative_to(made.path).as_posix() in [f.path for f in verify(made.path)]
    with pytest.raises(BundleError, match="not the one that the graph was proven with"):
        Bundle.open(made.path).predict({"age": [1], "city": ["Ulm"], TEXT: ["red fox"]})


def test_values_are_proven_too(tmp_path: Path) -> None:
    made = make(tmp_path / "value.tm", VALUE)
    assert verify(made.path) == []
    assert made.predict_columns(columns()).shape == (48,)


def test_two_columns_of_texts_stand_in_one_graph(tmp_path: Path) -> None:
    from tests.bundle.fusion.made import SCHEMA

    from tidemill.core.schema import Column, Schema, SemanticType

    schema = Schema((*SCHEMA, Column("title", SemanticType.TEXT)))
    given = {**columns(), "title": objects(["a red fox", "sea"] * 24)}
    both = recipe(schema=schema, one=text_embedding(), two=text_embedding("title", kept=None, flagged=False))
    made = make(tmp_path / "two.tm", rows=Rows(given), made=both)
    assert verify(made.path) == []
    assert len(list((made.path / "readers").iterdir())) == 1, "columns that are read alike share a file"
    weights = onnx.load(made.model_path).graph.initializer
    assert [list(t.dims) for t in weights].count([32, 24]) == 1, "and an encoder"
    assert np.abs(made.answer(given)["probabilities"] - both.predict(given).scores).max() <= MAX_DP


def test_a_graph_that_answers_otherwise_is_never_written(tmp_path: Path) -> None:
    good = recipe(VALUE)
    assert prove(good, {"train": Rows(columns())}).report.ok
    with pytest.raises(ParityError, match=r"train \(row 1\) row 0: expected"):
        prove(recipe(VALUE, skew=1.0), {"train": Rows(columns())})
    with pytest.raises(ParityError, match="no row to prove"):
        prove(good, {"train": Rows({name: values[:0] for name, values in columns().items()})})


def test_a_number_of_an_embedding_that_is_given_is_taken_as_it_is() -> None:
    made = recipe()
    encoder = made.encoder
    (embedding,) = encoder.embeddings  # type: ignore[attr-defined]
    cells = columns()[TEXT]
    features = np.concatenate([embedding.bare.run(None, embedding.feed(cells[i : i + 1]))[0] for i in range(48)])
    empty = np.array([not cell for cell in cells])
    numbers = embedding.project(features, empty)
    assert np.allclose(encoder.transform({**columns(), TEXT: numbers}), encoder.transform(columns()), atol=1e-5,
                       equal_nan=True)  # fmt: skip


def test_an_encoder_of_two_columns_works_twice_and_is_kept_once() -> None:
    one = cost_of([text_embedding("a")])
    two = cost_of([text_embedding("a"), text_embedding("b")])
    projection = 24 + 24 * 4
    assert one.params == 32 * 24 + projection
    assert two.params == 32 * 24 + 2 * projection
    assert one.flops == 2 * 24 * 16 + 2 * 24 * 4
    assert two.flops == 2 * one.flops
    assert one.size_bytes is not None
    assert two.size_bytes is not None
    assert two.size_bytes < 2 * one.size_bytes
    assert two.size_bytes > one.size_bytes


def test_bytes_of_an_encoder_are_those_that_it_adds_to_the_graph() -> None:
    text, number = Column(TEXT, SemanticType.TEXT), Column("age", SemanticType.NUMBER)
    schema = Schema((number, text, Column("animal", SemanticType.TARGET)))
    sizes = [
        len(assemble_fused(recipe(schema=schema, e=text_embedding(kept=kept))).SerializeToString()) for kept in (2, 20)
    ]
    counted = [cost_of([text_embedding(kept=kept)]).size_bytes or 0 for kept in (2, 20)]
    models = 4 * 18 * 3  # the linear model behind has so many more numbers
    assert sizes[1] - sizes[0] == pytest.approx(counted[1] - counted[0] + models, abs=50)
    assert counted[0] == pytest.approx(sizes[0], abs=5_000)


def test_what_was_kept_before_encoders_were_counted_has_unknown_costs() -> None:
    counted = text_embedding()
    state = counted.checkpoint()
    assert cost_of([Embedding.restore(state)]) == cost_of([counted])
    older = {k: v for k, v in state.items() if k not in ("params", "work", "tokens", "row_ms")}
    cost = cost_of([Embedding.restore(older)])
    assert (cost.params, cost.flops, cost.latency_ms) == (None, None, None)
    assert cost.size_bytes == cost_of([counted]).size_bytes
