"""The main job with several labels a row: a table of texts or images in; a study, a bundle and a report out."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.models.text.made import texts

import tidemill as tm
from tidemill.bundle.verify import verify
from tidemill.core.errors import DataError, NotFoundError, ObjectiveError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.core.task import TaskKind
from tidemill.sdk.images import prepare_images
from tidemill.sdk.options import FitOptions
from tidemill.sdk.texts import prepare_texts

TEXTS: dict[str, Any] = {"kind": "text-multilabel", "families": ("ngrams",), "cpus": 1, "in_process": True, "trials": 2}
IMAGES: dict[str, Any] = {**TEXTS, "kind": "image-multilabel", "families": ("probe",), "trials": 1}
LABELS = ("animal", "boat", "sea")


def rows(count: int = 260, seed: int = 0) -> list[tuple[str, tuple[str, ...]]]:
    """Texts of two kinds joined: one label, two, or none."""
    x, first = texts(count, seed)
    more, second = texts(count, seed + 1)
    out: list[tuple[str, tuple[str, ...]]] = []
    for i in range(count):
        a, b = int(first[i]), int(second[(i + i // 3) % count])
        said = f"{x[i]} {more[(i + i // 3) % count]}"
        out.append(("the old and small", ()) if i % 9 == 0 else (said, tuple(sorted({LABELS[a], LABELS[b]}))))
    return out


def reviews(path: Path, count: int = 260, seed: int = 0, separator: str = ";", more: tuple[Any, ...] = ()) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "review", "tags"])
        for i, (text, labels) in enumerate([*rows(count, seed), *more]):
            writer.writerow([i, text, json.dumps(labels) if separator == "json" else separator.join(labels)])
    return path


def photos(folder: Path, count: int = 120, seed: int = 0) -> Path:
    """Bright squares in the places of their labels, and a table that names them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "tags", *LABELS])
        for i in range(count):
            stands = rng.random(3) < 0.45
            x = rng.integers(0, 90, (12, 12, 3))
            for k in np.flatnonzero(stands):
                x[4 * k : 4 * k + 4, 4:8] += 140
            Image.fromarray(x.astype(np.uint8)).save(folder / f"{i:03d}.png")
            labels = [LABELS[k] for k in np.flatnonzero(stands)]
            writer.writerow([f"{i:03d}.png", "|".join(labels), *stands.astype(int)])
    return folder / "photos.csv"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("multilabel")


@pytest.fixture(scope="module")
def table(place: Path) -> Path:
    return reviews(place / "reviews.csv")


@pytest.fixture(scope="module")
def study(place: Path, table: Path) -> Iterator[Any]:
    test = reviews(place / "locked.csv", 80, seed=9)
    words = {**TEXTS, "objective": "maximize f1_micro"}
    with tm.fit(table, "tags", test=test, workspace=place / "w", name="tagged", **words) as study:
        yield study


@pytest.mark.parametrize("separator", [";", "|", ", ", "json"])
def test_cells_are_read_however_they_are_written(tmp_path: Path, separator: str) -> None:
    found = prepare_texts(reviews(tmp_path / "r.csv", 90, separator=separator), "tags", FitOptions(**TEXTS))
    assert found.task.kind is TaskKind.MULTILABEL
    assert found.task.classes == LABELS
    assert found.y.shape == (90, 3)
    wanted = [[int(label in labels) for label in LABELS] for _, labels in rows(90)]
    assert found.y.tolist() == wanted
    assert any("10 of 90 rows have no label" in notice for notice in found.notices)
    said = any("taken apart at" in notice for notice in found.notices)
    assert said == (separator != "json")
    assert sorted([*found.train, *found.test]) == list(range(90))


def test_columns_of_0_and_1_are_a_target_too(tmp_path: Path) -> None:
    with (tmp_path / "r.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", *LABELS])
        writer.writerows([text, *(int(label in labels) for label in LABELS)] for text, labels in rows(90))
    found = prepare_texts(tmp_path / "r.csv", ",".join(LABELS), FitOptions(**TEXTS))
    assert found.task.classes == LABELS
    assert found.column == "review"
    assert found.y.tolist() == [[int(label in labels) for label in LABELS] for _, labels in rows(90)]
    with tm.fit(tmp_path / "r.csv", ",".join(LABELS), workspace=tmp_path / "w", **{**TEXTS, "trials": 1}) as study:
        bundle = study.best.export(tmp_path / "m.tm")
    assert bundle.evaluate(tmp_path / "r.csv")["f1_micro"] > 0.8


def test_a_study_with_several_labels_is_like_any_other(study: Any) -> None:
    board = study.leaderboard()
    assert board[0]["family"] == "ngrams"
    assert board[0]["f1_micro"] > 0.9
    assert study.best.candidate.decision.kind == "thresholds"
    again = study.reobjective("maximize lrap; params <= 1e6")
    assert again.best.candidate.satisfied
    assert again.best.candidate.value > 0.9
    scores = again.best.candidate.scores(study.search.predictions())
    assert scores.shape[1] == 3
    with pytest.raises(ObjectiveError, match="'accuracy' does not fit a multilabel task"):
        study.reobjective("maximize accuracy")


def test_its_bundle_answers_as_the_model_and_its_report_has_a_table_by_label(study: Any, place: Path) -> None:
    bundle = study.best.export(place / "tagged.tm")
    assert verify(bundle.path) == []
    parity = json.loads((bundle.path / "bundle.json").read_text())["parity"]
    assert parity["flips"] == 0
    assert parity["max_abs_dp"] <= 1e-4
    assert bundle.evaluate(place / "locked.csv")["f1_micro"] > 0.9
    bundle.to_csv(place / "locked.csv", place / "ours.csv")
    command = [sys.executable, str(bundle.path / "run.py"), str(place / "locked.csv"), str(place / "theirs.csv")]
    subprocess.run(command, check=True)
    assert (place / "ours.csv").read_bytes() == (place / "theirs.csv").read_bytes()
    with (place / "ours.csv").open(newline="") as file:
        answered = list(csv.DictReader(file))
    assert list(answered[0]) == ["prediction", *(f"proba_{label}" for label in LABELS)]
    assert {""} < {row["prediction"] for row in answered}
    assert any(";" in row["prediction"] for row in answered)
    page = study.report(place / "report.html", bundle=bundle).read_text()
    assert "How well it does on each label" in page
    assert all(label in page for label in LABELS)
    assert "of the rows all labels are right" in page


def test_a_study_is_opened_again_from_what_the_workspace_keeps(study: Any, place: Path, tmp_path: Path) -> None:
    from tidemill.sdk.studies import open_study

    before = study.best.export(tmp_path / "a.tm").model_path.read_bytes()
    with open_study("tagged", place / "w") as opened:
        assert opened.prepared.y.tolist() == study.prepared.y.tolist()
        assert opened.prepared.task == study.prepared.task
        assert opened.best.export(tmp_path / "b.tm").model_path.read_bytes() == before


def test_a_study_goes_on_where_it_was(study: Any, place: Path) -> None:
    words = {**TEXTS, "trials": 3, "families": None, "kind": None}
    with tm.fit(None, workspace=place / "w", resume="tagged", **words) as more:
        assert len(more.search.trials()) == 3


def test_an_ensemble_is_a_mean_of_probabilities(place: Path, table: Path) -> None:
    words = {**TEXTS, "trials": 4, "objective": "minimize log_loss"}
    with tm.fit(table, "tags", workspace=place / "e", **words) as study:
        chosen = study.best.candidate
        parts = study.search.predictions()
        mean = sum(weight * parts[n].astype(float) for n, weight in chosen.weights.items())
        assert np.allclose(chosen.scores(parts), mean, atol=1e-6)
        assert chosen.stack is None
        bundle = study.best.export(place / "e.tm")
        assert verify(bundle.path) == []


def test_labels_that_only_the_test_knows_are_told(table: Path, tmp_path: Path) -> None:
    test = reviews(tmp_path / "t.csv", 30, seed=5, more=(("a strange bird", ("bird", "sea")),))
    found = prepare_texts(table, "tags", FitOptions(test=test, **TEXTS))
    assert any("1 labels of the test rows are not learned" in n and "'bird' (1)" in n for n in found.notices)
    assert len(found.test) == 31
    assert found.y[-1].tolist() == [0, 0, 1]


def test_rare_labels_and_contradictions_are_found(tmp_path: Path) -> None:
    twice = tuple(("the same fox again", (LABELS[i % 2],)) for i in range(20))
    rare = (("one more", ("rare", "sea")), ("and another", ("rare",)), ("only here", ("once",)))
    found = prepare_texts(reviews(tmp_path / "r.csv", 90, more=(*twice, *rare)), "tags", FitOptions(**TEXTS))
    assert {"text_with_two_labels", "few_texts_of_a_class"} <= {f.code for f in found.findings}
    assert "once" not in found.task.classes
    assert any("1 label stands in a single row" in notice and "'once'" in notice for notice in found.notices)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"positive": "sea"}, OptionError, "no positive class"),
        ({"objective": "maximize roc_auc[sea]"}, ObjectiveError, "can't be asked of one class"),
        ({"objective": "maximize mcc"}, ObjectiveError, "'mcc' does not fit a multilabel task"),
        (
            {"kind": "multilabel", "families": None, "types": {"review": SemanticType.CATEGORY}},
            OptionError,
            "not from the columns of a table",
        ),
        ({"kind": "table-classification", "families": None, "separator": ";"}, OptionError, "several labels a row"),
        ({"kind": "text-classification", "separator": ";"}, OptionError, "--separator, without --kind text-multilabel"),
        ({"separator": ""}, OptionError, "A separator must be a sign"),
    ],
)
def test_wrong_words_are_told(table: Path, tmp_path: Path, words: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        tm.fit(table, "tags", workspace=tmp_path / "w", **{**TEXTS, **words})


def test_a_target_that_is_not_there_or_empty_is_told(table: Path) -> None:
    with pytest.raises(NotFoundError, match=r"'tag'.*Did you mean 'tags'"):
        prepare_texts(table, "tag", FitOptions(**TEXTS))
    nothing = {"said": [f"a text {i}" for i in range(40)], "tags": [""] * 40}
    with pytest.raises(DataError, match="No row has a label in 'tags'"):
        prepare_texts(nothing, "tags", FitOptions(**TEXTS))


@pytest.fixture(scope="module")
def pictures(place: Path) -> Path:
    return photos(place / "photos")


def test_images_are_prepared_from_a_column_or_several(pictures: Path) -> None:
    one = prepare_images(pictures, "tags", FitOptions(**IMAGES))
    several = prepare_images(pictures, ",".join(LABELS), FitOptions(**IMAGES))
    assert one.task.classes == several.task.classes == LABELS
    assert np.array_equal(one.y, several.y)
    assert any("taken apart at '|'" in notice for notice in one.notices)
    assert one.y.dtype == np.int8


@pytest.mark.timeout(300)
def test_images_with_several_labels_are_searched_and_shipped(place: Path, pictures: Path) -> None:
    for package in ("torch", "onnxscript"):
        pytest.importorskip(package, reason="nets need the extra `deep`")
    words = {**IMAGES, "objective": "maximize f1_macro"}
    with tm.fit(pictures, "tags", workspace=place / "wi", name="photos", **words) as study:
        assert study.leaderboard()[0]["f1_macro"] > 0.8
        bundle = study.best.export(place / "photos.tm")
        page = study.report(place / "photos.html", bundle=bundle).read_text()
    assert "How well it does on each label" in page
    assert verify(bundle.path) == []
    assert bundle.evaluate(pictures)["f1_macro"] > 0.8
    bundle.to_csv(pictures, place / "ours-i.csv")
    command = [sys.executable, str(bundle.path / "run.py"), str(pictures), str(place / "theirs-i.csv")]
    subprocess.run(command, check=True)
    assert (place / "ours-i.csv").read_bytes() == (place / "theirs-i.csv").read_bytes()
    from tidemill.sdk.studies import open_study

    with open_study("photos", place / "wi") as opened:
        assert opened.prepared.task.classes == LABELS
        assert opened.prepared.y.shape == (120, 3)


@pytest.mark.parametrize("several", [False, True])
def test_a_dataset_version_is_a_source_too(tmp_path: Path, several: bool) -> None:
    from tidemill.sdk.data.keep import add
    from tidemill.sdk.studies import open_study

    table = reviews(tmp_path / "r.csv", 90, separator="|")
    if several:
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["review", *LABELS])
            writer.writerows([text, *(int(label in labels) for label in LABELS)] for text, labels in rows(90))
    add(table, name="kept", target=None if several else "tags", workspace=tmp_path / "w")
    target = ",".join(LABELS) if several else None  # the version knows its target
    with tm.fit("kept", target, workspace=tmp_path / "w", name="s", **{**TEXTS, "trials": 1}) as study:
        wanted = study.prepared.y.tolist()
        assert study.task.classes == LABELS
    with open_study("s", tmp_path / "w") as opened:
        assert opened.prepared.y.tolist() == wanted
        assert opened.best.export(tmp_path / "m.tm").evaluate(table)["f1_micro"] > 0.8
