"""The main job on texts: a table with one text in; a study, a bundle and a report out."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.text.made import encoder, texts

import tidemill as tm
from tidemill.core.errors import DataError, MissingExtraError, NotFoundError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.core.task import TaskKind
from tidemill.sdk.options import FitOptions
from tidemill.sdk.texts import prepare_texts

QUICK: dict[str, Any] = {"trials": 1, "families": ("ngrams",), "cpus": 1, "in_process": True}
CLASSIFY: dict[str, Any] = {"kind": "text-classification"}


def reviews(path: Path, count: int = 240, seed: int = 0, more: tuple[tuple[str, str], ...] = ()) -> Path:
    """Write a table with texts of three classes."""
    x, y = texts(count, seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "review", "animal"])
        writer.writerows([i, text, "abc"[label]] for i, (text, label) in enumerate(zip(x, y, strict=True)))
        writer.writerows([count + i, text, label] for i, (text, label) in enumerate(more))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reviews(tmp_path_factory.mktemp("texts") / "reviews.csv")


def test_preparation_finds_the_text_and_counts_what_can_t_be_told(tmp_path: Path) -> None:
    more = (("", "a"), ("NA", "b"), ("fox " * 6_000, "a"), ("a fox", ""))
    found = prepare_texts(reviews(tmp_path / "r.csv", 60, more=more), "animal", FitOptions(**CLASSIFY))
    assert found.column == "review"
    assert found.schema.has_texts
    assert found.task.kind is TaskKind.MULTICLASS
    assert len(found.texts) == 63
    assert any("2 of 63 texts are empty or missing" in n for n in found.notices)
    assert any("1 of 63 texts have more than 20,000 characters" in n for n in found.notices)
    assert any("no target 'animal' (1)" in n for n in found.notices)
    assert found.properties["words"].max() == 6_000
    assert sorted([*found.train, *found.test]) == list(range(63))


def test_stars_are_classes_or_values_as_a_person_says(tmp_path: Path) -> None:
    x, y = texts(80)
    lines = [
        "said,stars",
        *(f"{text},{label + 0.5 * (i % 9)}" for i, (text, label) in enumerate(zip(x, y, strict=True))),
    ]
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n")
    assert (
        prepare_texts(tmp_path / "s.csv", "stars", FitOptions(kind="text-regression")).task.kind.value == "regression"
    )
    classes = prepare_texts(tmp_path / "s.csv", "stars", FitOptions(**CLASSIFY)).task
    assert classes.kind is TaskKind.MULTICLASS


def test_copies_contradictions_and_rare_classes_are_found(tmp_path: Path) -> None:
    same = tuple(("the same fox again", "ab"[i % 2]) for i in range(40))
    found = prepare_texts(
        reviews(tmp_path / "r.csv", 60, more=(*same, ("only one", "d"), ("and two", "d"))), "animal",
        FitOptions(test_size=0.3, **CLASSIFY),
    )  # fmt: skip
    codes = {f.code for f in found.findings}
    assert {"text_with_two_labels", "text_in_train_and_test", "few_texts_of_a_class"} <= codes


def test_a_class_that_only_the_test_knows_is_told(table: Path, tmp_path: Path) -> None:
    test = reviews(tmp_path / "t.csv", 30, seed=5, more=(("a strange bird", "z"),))
    found = prepare_texts(table, "animal", FitOptions(test=test, **CLASSIFY))
    assert any("1 of 31 rows have a target that is no known class (1: 'z')" in n for n in found.notices)
    assert len(found.test) == 30


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"time_column": "id"}, OptionError, "not for texts: --time-column"),
        ({"schedule": "rungs"}, OptionError, "encoders alone can pause"),
        ({"weights": ("nowhere",)}, NotFoundError, "There are no weights at 'nowhere'"),
    ],
)
def test_wrong_words_are_told(table: Path, tmp_path: Path, words: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        tm.fit(table, "animal", workspace=tmp_path / "w", **{**QUICK, **CLASSIFY, **words})


def test_a_table_that_holds_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Every text of the column 'said' is empty"):
        prepare_texts({"said": ["", "NA"] * 20, "y": ["a", "b"] * 20}, "y", FitOptions(**CLASSIFY))
    with pytest.raises(OptionError, match="Which column is to be predicted"):
        tm.fit({"said": ["x"]}, workspace=tmp_path / "w", **CLASSIFY)


def test_without_the_extra_it_says_what_to_install(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill.models.text import extra

    monkeypatch.setattr(extra, "need_torch", lambda why: None)
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needed to begin from trained encoders.*tidemill\[text\]"):
        tm.fit(table, "animal", workspace=tmp_path / "w", weights=("e",), **{**QUICK, **CLASSIFY})


def test_a_text_that_stands_alone_is_learned_from_as_texts(table: Path, tmp_path: Path) -> None:
    from tidemill.sdk.modality.choose import modality_asked
    from tidemill.store.workspace import Workspace

    beside = tmp_path / "beside.csv"
    rows = table.read_text(encoding="utf-8").splitlines()
    beside.write_text("\n".join([rows[0] + ",n", *(f"{r},{i % 9}.5" for i, r in enumerate(rows[1:]))]) + "\n")
    frame = {"said": texts(60)[0].tolist(), "y": ["a", "b", "c"] * 20}
    cases: list[tuple[Any, str, dict[str, Any], str]] = [
        (table, "animal", {}, "text"),
        (table, "animal", CLASSIFY, "text"),
        (table, "animal", {"kind": "multiclass"}, "text"),
        (table, "animal", {"kind": "table-classification"}, "table"),
        (table, "animal", {"types": {"review": SemanticType.CATEGORY}}, "table"),
        (table, "animal", {"families": ("lightgbm",)}, "table"),
        (table, "animal", {"families": ("ngrams",)}, "text"),
        (table, "animal", {"schedule": "rows"}, "table"),
        (table, "animal", {"keep_all_features": True}, "table"),
        (beside, "animal", {}, "table"),
        (beside, "animal", CLASSIFY, "text"),
        (beside, "animal", {"types": {"n": SemanticType.IGNORED}}, "text"),
        (frame, "y", {}, "text"),
        (table, "no such column", {}, "table"),
        (tmp_path / "none.csv", "animal", {}, "table"),
    ]
    with Workspace.open(tmp_path / "w") as workspace:
        for source, target, words, name in cases:
            assert modality_asked(workspace, source, target, FitOptions(**words))[0].name == name, words


def test_a_version_of_a_table_is_told_apart_like_its_file(table: Path, tmp_path: Path) -> None:
    from tidemill.sdk.modality.choose import modality_asked
    from tidemill.store.workspace import Workspace

    with tm.fit(table, "animal", workspace=tmp_path / "w", **QUICK) as study:
        assert study.modality.name == "text"
    with Workspace.open(tmp_path / "w") as workspace:
        assert modality_asked(workspace, "reviews", None, FitOptions())[0].name == "text"
        modality, asked = modality_asked(workspace, "reviews", None, FitOptions(kind="table-classification"))
        assert (modality.name, asked.target, asked.options.kind) == ("table", "animal", "multiclass")


def test_a_name_of_the_hub_is_an_encoder_like_its_folder(table: Path, tmp_path: Path) -> None:
    from tidemill.sdk.modality.choose import modality_asked
    from tidemill.store.workspace import Workspace

    # Texts that look like names of classes are texts where there is an encoder of texts.
    short = {"said": ["red fox", "blue whale", "green frog"] * 20, "y": ["a", "b", "c"] * 20}
    with Workspace.open(tmp_path / "w") as workspace:
        for weights, name in (((), "table"), (("nobody/an-encoder",), "text"), (("nowhere",), "fused")):
            assert modality_asked(workspace, short, "y", FitOptions(weights=weights))[0].name == name


def test_weights_of_an_encoder_choose_texts_where_there_is_nothing_else(tmp_path: Path) -> None:
    from tests.models.text.test_folders import fake

    from tidemill.sdk.modality.choose import modality_asked
    from tidemill.store.workspace import Workspace

    weights = (str(fake(tmp_path / "e")),)
    x, y = texts(60)
    only = {"said": x.tolist(), "y": y.tolist()}
    with Workspace.open(tmp_path / "w") as workspace:
        assert modality_asked(workspace, only, "y", FitOptions(weights=weights))[0].name == "text"
        beside = {**only, "n": np.random.default_rng(0).normal(size=60).tolist()}
        assert modality_asked(workspace, beside, "y", FitOptions(weights=weights))[0].name == "fused"
        asked = FitOptions(weights=weights, **CLASSIFY)
        assert modality_asked(workspace, beside, "y", asked)[0].name == "text"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def study(place: Path, table: Path) -> Any:
    test = reviews(place / "locked.csv", 60, seed=9)
    with tm.fit(table, "animal", test=test, workspace=place / "w", name="reviews", **QUICK, **CLASSIFY) as study:
        yield study


def test_a_study_of_texts_is_like_any_other(study: Any) -> None:
    board = study.leaderboard()
    assert board[0]["family"] == "ngrams"
    assert board[0]["log_loss"] < 0.7
    assert board[0]["params"] > 0
    assert board[0]["latency_ms"] > 0
    assert study.reobjective("maximize accuracy; params <= 1e6").best.candidate.satisfied


def test_its_bundle_answers_as_the_model_and_its_report_stands_alone(study: Any, place: Path, table: Path) -> None:
    from tidemill.bundle.verify import verify

    bundle = study.best.export(place / "reviews.tm")
    assert verify(place / "reviews.tm") == []
    assert bundle.evaluate(place / "locked.csv")["accuracy"] >= 0.9
    parity = json.loads((place / "reviews.tm" / "bundle.json").read_text())["parity"]
    assert parity["flips"] == 0
    assert parity["rows"] == len(study.search.covered_rows) + 60
    page = study.report(place / "report.html", bundle=bundle).read_text()
    assert "The model sees the text" in page
    bundle.to_csv(table, place / "ours.csv")
    command = [sys.executable, str(place / "reviews.tm" / "run.py"), str(table), str(place / "theirs.csv")]
    subprocess.run(command, check=True)
    assert (place / "ours.csv").read_bytes() == (place / "theirs.csv").read_bytes()


def test_a_study_is_opened_and_exported_later_from_what_the_workspace_keeps(
    study: Any, place: Path, tmp_path: Path
) -> None:
    from tidemill.sdk.studies import open_study

    before = study.best.export(tmp_path / "a.tm").model_path.read_bytes()
    with open_study("reviews", place / "w") as opened:
        assert opened.modality.name == "text"
        assert opened.prepared.texts.tolist() == study.prepared.texts.tolist()
        after = opened.best.export(tmp_path / "b.tm").model_path.read_bytes()
    assert before == after


def test_a_study_goes_on_where_it_was(study: Any, place: Path, tmp_path: Path) -> None:
    options = {**QUICK, "trials": 2, "families": None}
    own = shutil.copytree(place / "w", tmp_path / "w")  # other tests look at the study as it was
    with tm.fit(None, workspace=own, resume="reviews", **options) as more:
        assert len(more.search.trials()) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_encoders_are_searched_and_shipped_in_one_graph(table: Path, tmp_path: Path) -> None:
    for package in ("torch", "transformers", "tokenizers", "onnxscript"):
        pytest.importorskip(package, reason="encoders need the extra `text`")
    from tidemill.bundle.verify import verify

    weights = (str(encoder(tmp_path / "bert")),)
    words = {**QUICK, "families": None, "trials": 3, "weights": weights, "objective": "minimize log_loss"}
    with tm.fit(table, "animal", workspace=tmp_path / "w", **words, **CLASSIFY) as study:
        families = [trial.family for trial in study.search.trials()]
        assert families == ["ngrams", "sentence", "encoder"]
        assert {trial.state.value for trial in study.search.trials()} == {"complete"}
        bundle = study.reobjective("minimize log_loss").best.export(tmp_path / "m.tm")
        (tmp_path / "bert").rename(tmp_path / "gone")  # the bundle stands alone
        assert verify(bundle.path) == []
        assert bundle.evaluate(table)["accuracy"] > 0.8
        (tmp_path / "in.csv").write_text("review\nthe red fox\n")
        command = [sys.executable, str(bundle.path / "run.py"), str(tmp_path / "in.csv"), str(tmp_path / "out.csv")]
        subprocess.run(command, check=True)
        assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("a,")


def test_a_study_of_texts_is_a_beginning_for_another(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="encoders need the extra `text`")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")
    place, heard = tmp_path / "w", []
    words = {**QUICK, "families": ("sentence",), "workspace": place}
    with tm.fit(table, "animal", weights=(str(encoder(tmp_path / "bert")),), name="first", **words) as study:
        assert study.modality.name == "text"
        assert study.search.trials()[0].state.value == "complete"
    shutil.rmtree(tmp_path / "bert")
    with tm.fit(table, "animal", weights=("first",), name="next", on_event=heard.append, **words) as study:
        assert study.modality.name == "text"
        (trial,) = study.search.trials()
        assert trial.state.value == "complete"
        folder = Path(str(trial.config["sentence.weights"]))
        assert (place / "scratch").resolve() in folder.resolve().parents
        assert folder.name == "first"
    told = [e.message for e in heard if e.kind == "notice"]
    assert sum("The encoder 'first' was trained by a study of this workspace, with answers" in t for t in told) == 1
    shutil.rmtree(place / "scratch")
    with tm.fit(None, workspace=place, resume="next", trials=2, cpus=1, in_process=True) as more:
        assert len(more.search.trials()) == 2
        assert folder.is_dir()
    columns = {"a": [1, 2, 3, 4] * 9, "y": ["p", "q"] * 18}
    tm.fit(columns, "y", name="numbers", **{**words, "families": ("linear",)}).close()
    with pytest.raises(DataError, match="The study 'numbers' is not about texts"):
        tm.fit(table, "animal", weights=("numbers",), kind="text-classification", **words)
