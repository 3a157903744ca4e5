"""The main job on a table with columns of texts and an encoder: a study, a bundle and a report out."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.fusion.made import text_embedding
from tests.models.text.made import encoder, texts
from tests.models.text.test_folders import fake

import tidemill as tm
from tidemill.bundle.fusion.embedding import Embedding
from tidemill.bundle.fusion.runtime import FusedBundle
from tidemill.bundle.gaps import Gap
from tidemill.bundle.verify import verify
from tidemill.core.errors import DataError, NotFoundError, OptionError, SearchError, TidemillError
from tidemill.core.schema import SemanticType
from tidemill.models.fusion.features import TooSlowError
from tidemill.sdk import fusion
from tidemill.sdk.fit import fit_to_bundle
from tidemill.sdk.fusion import PreparedFused, prepare_fused
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import Prepared
from tidemill.store.workspace import Workspace

QUICK: dict[str, Any] = {"trials": 1, "families": ("linear",), "cpus": 1, "in_process": True}


def reviews(path: Path, count: int = 240) -> Path:
    """Write a table whose text tells the class, beside a number and a category that don't."""
    x, y = texts(count)
    rng = np.random.default_rng(0)
    x[5] = x[17] = ""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "city", "review", "animal"])
        for i, (text, label) in enumerate(zip(x, y, strict=True)):
            writer.writerow([f"{rng.normal():.3f}", ["Ulm", "Rom"][i % 2], text, "abc"[label]])
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reviews(tmp_path_factory.mktemp("fusion") / "reviews.csv")


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, ...]:
    """A folder that looks like an encoder's; what is opened is one that was written by hand."""

    def opened(column: str, folder: str, length: int) -> Embedding:
        return text_embedding(column, kept=None, flagged=False)

    monkeypatch.setattr(fusion, "opened", opened)
    monkeypatch.setattr(fusion, "need_text", lambda why: None)
    return (str(fake(tmp_path / "encoder")),)


def prepared(table: Path, tmp_path: Path, **words: Any) -> Prepared | PreparedFused:
    with Workspace.open(tmp_path / "w") as workspace:
        return prepare_fused(workspace, table, "animal", FitOptions(**{"trials": 1, **words}))


def test_columns_of_texts_become_numbers_beside_the_others(
    table: Path, tmp_path: Path, by_hand: tuple[str, ...]
) -> None:
    found = prepared(table, tmp_path, weights=by_hand)
    assert isinstance(found, PreparedFused)
    assert [c.name for c in found.schema.embedded] == ["review"]
    assert found.encoder.embeddings[0].flagged, "some texts are empty"
    x = found.encoded(found.train)
    assert x.shape == (len(found.train), len(found.encoder.features))
    assert {f.source for f in found.encoder.features} == {"age", "city", "review"}
    assert any("Column 'review' is read by the encoder 'words': 24 numbers, reduced to 20." in n for n in found.notices)
    assert np.isfinite(x).all()


def test_the_projection_sees_training_rows_alone(table: Path, tmp_path: Path, by_hand: tuple[str, ...],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(fusion, "MOST_NUMBERS", 3)
    monkeypatch.setattr(fusion, "_LEAST_NUMBERS", 3)
    found = prepared(table, tmp_path, weights=by_hand)
    assert isinstance(found, PreparedFused)
    (embedding,) = found.encoder.embeddings
    assert embedding.kept == 3
    numbers = found.numbers["review"][found.train]
    filled = numbers[:, -1] == 0
    assert np.abs(numbers[filled, :3].mean(axis=0)).max() < 1e-4, "the middle of the training rows"
    assert np.abs(found.numbers["review"][found.test, :3].mean(axis=0)).max() > 1e-4
    assert not numbers[~filled, :3].any()


@pytest.mark.parametrize("what", ["nowhere", "no texts", "no time"])
def test_where_nothing_can_be_embedded_the_table_is_a_plain_one_and_a_line_says_why(
    table: Path, tmp_path: Path, by_hand: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    words: dict[str, Any] = {"weights": by_hand}
    if what == "nowhere":
        words["weights"] = ("nowhere",)
    elif what == "no texts":
        words["types"] = fusion_types()
    else:

        def late(*given: Any) -> None:
            raise TooSlowError(1000.0)

        monkeypatch.setattr(fusion, "features_of", late)
        words["time"] = "60s"
    found = prepared(table, tmp_path, **words)
    assert isinstance(found, Prepared)
    line = {
        "nowhere": "There are no weights of an encoder of texts: 'review' is treated as it would be without.",
        "no texts": "No column of the table holds texts",
        "no time": "Column 'review' stays as it was: its encoder would take 1000 s, and a fit of 60 s has 40% for",
    }[what]
    assert sum(line in notice for notice in found.notices) == 1


ENCODER = 32 * 24
"""Numbers of the encoder by hand."""


def test_a_bound_that_the_encoders_alone_break_is_told_before_any_cell_is_read(
    table: Path, tmp_path: Path, by_hand: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion, "features_of", None)
    with pytest.raises(OptionError, match="alone break a bound: 'words' of column 'review' take 768 of params <= 700"):
        prepared(table, tmp_path, weights=by_hand, objective="maximize accuracy; params <= 700")


def test_a_bound_that_holds_says_what_the_encoders_take_of_it(
    table: Path, tmp_path: Path, by_hand: tuple[str, ...]
) -> None:
    found = prepared(table, tmp_path, weights=by_hand, objective="maximize accuracy; params <= 1e5; flops <= 1e6")
    assert isinstance(found, PreparedFused)
    (embedding,) = found.encoder.embeddings
    assert 4 <= embedding.tokens < 16, "a usual text"
    assert embedding.row_ms is not None
    taken = ENCODER + 24 + 24 * 20
    assert found.encoder.cost.params == taken
    assert any(f"'words' of column 'review' take {taken:,} of params <= 100000; " in n for n in found.notices)


@pytest.mark.parametrize(("room", "told"), [(1, "refused before training"), (100_000, "")])
def test_bounds_count_the_encoders_of_columns(
    table: Path, tmp_path: Path, by_hand: tuple[str, ...], room: int, told: str
) -> None:
    encoders = ENCODER + 24 + 24 * 20
    words: dict[str, Any] = {**QUICK, "weights": by_hand, "workspace": tmp_path / "w"}
    objective = f"maximize accuracy; params <= {encoders + room}; size_bytes <= 1MB"
    if told:
        with pytest.raises(SearchError, match=told):
            tm.fit(table, "animal", objective=objective, **words)
        return
    with tm.fit(table, "animal", objective=objective, **words) as study:
        (row,) = study.leaderboard()
        (trial,) = study.search.whole.values()
        assert row["params"] == trial.cost.params + encoders
        assert row["flops"] > trial.cost.flops
        assert study.describe_trial(trial.number)["cost"]["params"] == row["params"]
        assert study.pareto("flops") == [row]
        bundle = study.best.export(tmp_path / "out.tm")
        assert encoders < bundle.info.cost["params"] <= row["params"]
        assert bundle.info.cost["flops"] > 0
        asked = study.reobjective(f"maximize accuracy; params <= {encoders}")
        assert not asked.best.candidate.satisfied


def photos(folder: Path, count: int = 90) -> Path:
    """Write a table that names photos, whose colour tells the class, beside a number that doesn't."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "photos.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "photo", "animal"])
        for i in range(count):
            pixels = rng.integers(0, 60, (8 + i % 2, 10, 3)).astype(np.uint8)
            pixels[..., i % 3] += 150
            Image.fromarray(pixels).save(folder / f"{i}.png")
            writer.writerow([f"{rng.normal():.3f}", {7: "", 8: "gone.png"}.get(i, f"{i}.png"), "abc"[i % 3]])
    (folder / "9.png").write_bytes(b"broken")
    return folder / "photos.csv"


def image_weights(folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "vit"}')
    (folder / "model.safetensors").write_bytes(b"0" * 16)
    return str(folder)


def test_columns_that_name_images_become_numbers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bundle.fusion.made import image_embedding

    from tidemill.sdk.bundles import predict_to_csv

    monkeypatch.setattr(fusion, "opened_images", lambda column, folder: image_embedding(column, flagged=False))
    monkeypatch.setattr(fusion, "need_text", lambda why: None)
    table, weights = photos(tmp_path / "data"), image_weights(tmp_path / "vit")
    options = FitOptions(**QUICK, weights=(weights,), test_size=0.3)
    result = fit_to_bundle(table, "animal", out=tmp_path / "out.tm", options=options, workspace=tmp_path / "w")
    bundle = tm.load(tmp_path / "out.tm")
    assert isinstance(bundle, FusedBundle)
    assert verify(bundle.path) == []
    assert "pillow" in (bundle.path / "requirements.txt").read_text()
    told = next(n for n in bundle.info.notes if "can't be read" in n)
    assert told.startswith("2 of 90 images of column 'photo' can't be read and count as missing: gone.png")
    assert "9.png: it is no image of a known form" in told

    with pytest.raises(TidemillError, match="The image can't be read") as error:
        bundle.predict(table)
    assert error.value.where == "gone.png"
    unread: list[str] = []
    predict_to_csv(bundle.path, table, tmp_path / "ours.csv", on_unreadable=unread.append)
    assert [line.partition(":")[0] for line in unread] == ["gone.png", "9.png"]
    command = [sys.executable, str(bundle.path / "run.py"), str(table), str(tmp_path / "theirs.csv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "theirs.csv").read_bytes() == (tmp_path / "ours.csv").read_bytes()
    assert done.stderr.count("not read:") == 2
    lines = (tmp_path / "ours.csv").read_text().splitlines()[1:]
    right = sum(line[0] == "abc"[i % 3] for i, line in enumerate(lines))
    assert right >= 85, "the colour tells the class"
    (table.parent / "few.csv").write_text("".join(table.read_text().splitlines(keepends=True)[:7]))
    assert bundle.evaluate(table.parent / "few.csv")["accuracy"] > 0.5
    gaps: list[Gap] = []
    far = tmp_path / "far.csv"
    far.write_bytes(table.read_bytes())
    assert bundle.evaluate(far, images=table.parent, on_gap=gaps.append)["accuracy"] > 0.9
    (gap,) = gaps
    assert str(gap).startswith("2 of 90 images can't be read and count as missing: 9.png: it is no image")
    assert gap.named[1] == "gone.png: there is no such file"
    assert len(bundle.predict_records(far, images=table.parent, on_unreadable=unread.append)) == 90
    assert len(unread) == 4
    assert bundle.predict(table.parent / "few.csv", images=table.parent).shape == (6,)
    result.study.close()

    # The images are in the workspace: the study is exported again where the files are gone.
    for file in (tmp_path / "data").glob("*.png"):
        file.unlink()
    from tidemill.sdk.studies import open_study

    with open_study(result.study.name, tmp_path / "w") as study:
        again = study.best.export(tmp_path / "again.tm")
        assert (again.path / "1/model.onnx").read_bytes() == (bundle.path / "1/model.onnx").read_bytes()
        assert again.spec.parity["rows"] == bundle.spec.parity["rows"] == 90


def test_images_beside_columns_are_embedded_and_images_alone_are_not(tmp_path: Path) -> None:
    from tidemill.sdk.modality.choose import modality_asked

    table, weights = photos(tmp_path / "data", 30), (image_weights(tmp_path / "vit"),)
    alone = tmp_path / "data" / "alone.csv"
    alone.write_text("photo,animal\n" + "\n".join(f"{i}.png,{'abc'[i % 3]}" for i in range(30)) + "\n")
    with Workspace.open(tmp_path / "w") as workspace:
        for source, options, name in (
            (table, FitOptions(weights=weights), "fused"),
            (table, FitOptions(weights=("nobody/an-encoder",)), "fused"),
            (table, FitOptions(), "image"),
            (table, FitOptions(weights=weights, kind="image-classification"), "image"),
            (alone, FitOptions(weights=weights), "image"),
            (alone, FitOptions(), "image"),
            (table, FitOptions(kind="table-classification"), "fused"),
            (with_texts(table), FitOptions(), "fused"),
            (with_texts(table), FitOptions(families=("quicknet",)), "image"),
            (with_texts(table), FitOptions(image_size=16), "image"),
            (sparse(table), FitOptions(), "fused"),
            (sparse(table), FitOptions(types={"photo": SemanticType.CATEGORY}), "table"),
        ):
            assert modality_asked(workspace, source, "animal", options)[0].name == name


def with_texts(table: Path) -> Path:
    """The same table with a column of texts."""
    lines = table.read_text().splitlines()
    words = "of animals that were seen near the river"
    said = [f"{line},The {i}th {words} on day {i * i}." for i, line in enumerate(lines)]
    path = table.parent / "said.csv"
    path.write_text("\n".join([f"{lines[0]},said", *said[1:]]))
    return path


def sparse(table: Path) -> Path:
    """The same table, without a photo in two rows of three."""
    lines = table.read_text().splitlines()
    rows = [line.replace(f",{i}.png,", ",,") if i % 3 else line for i, line in enumerate(lines[1:])]
    path = table.parent / "sparse.csv"
    path.write_text("\n".join([lines[0], *rows]))
    return path


def test_names_of_images_that_are_not_there_are_names(tmp_path: Path) -> None:
    from tidemill.sdk.modality.choose import modality_asked

    table = photos(tmp_path / "data", 30)
    for file in table.parent.glob("*.png"):
        file.unlink()
    with Workspace.open(tmp_path / "w") as workspace:
        for source in (sparse(table), table):
            asked = FitOptions(kind="table-classification")
            assert modality_asked(workspace, source, "animal", asked)[0].name == "table"
            asked = FitOptions(kind="table-classification", images=tmp_path / "nowhere")
            assert modality_asked(workspace, source, "animal", asked)[0].name == "fused", "a person says where they are"
    found = prepared(table, tmp_path, weights=("nowhere",))
    assert isinstance(found, Prepared)
    told = next(n for n in found.notices if n.startswith("Column 'photo' stays as it was: None of the files"))
    assert "say --images FOLDER" in told
    with pytest.raises(DataError, match="None of the files that the column 'photo' names"):
        prepared(table, tmp_path)
    with pytest.raises(DataError, match="There is no such folder"):
        prepared(table, tmp_path, images=tmp_path / "nowhere", weights=("nowhere",))


def test_without_weights_images_are_seen_through_patches_of_their_own(tmp_path: Path) -> None:
    for package in ("torch", "onnxscript"):
        pytest.importorskip(package, reason="patches are drawn and exported by PyTorch")
    table = photos(tmp_path / "data")
    options = FitOptions(**QUICK, kind="table-classification", test_size=0.3)
    result = fit_to_bundle(table, "animal", out=tmp_path / "out.tm", options=options, workspace=tmp_path / "w")
    bundle = tm.load(tmp_path / "out.tm")
    assert isinstance(bundle, FusedBundle)
    assert verify(bundle.path) == []
    assert any("'photo' is read by the encoder 'patches'" in note for note in bundle.info.notes)
    assert any("There are no weights of an encoder of images: those of 'photo'" in note for note in bundle.info.notes)
    assert bundle.evaluate(table, images=table.parent, on_gap=lambda gap: None)["accuracy"] > 0.9, "the colour tells"
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    from tidemill.sdk.bundles import predict_to_csv

    predict_to_csv(bundle.path, table, ours, on_unreadable=lambda line: None)
    done = subprocess.run([sys.executable, str(bundle.path / "run.py"), str(table), str(theirs)], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    result.study.close()

    # Images and encoder are in the workspace: the study goes on where the files are gone.
    for file in table.parent.glob("*.png"):
        file.unlink()
    with tm.fit(None, resume=result.study.name, workspace=tmp_path / "w", trials=2, in_process=True) as study:
        assert study.modality.name == "fused"
        assert len(study.search.whole) >= 2


@pytest.mark.parametrize(
    ("what", "line"),
    [("black", "No training image of column 'photo' shows anything"), ("broken", "None of the images")],
)
def test_images_that_show_nothing_are_refused_where_patches_would_be_drawn(
    tmp_path: Path, what: str, line: str
) -> None:
    for package in ("torch", "onnxscript"):
        pytest.importorskip(package, reason="patches are drawn and exported by PyTorch")
    from PIL import Image

    table = photos(tmp_path / "data", 30)
    for file in table.parent.glob("*.png"):
        if what == "black":
            Image.new("RGB", (10, 8)).save(file)
        else:
            file.write_bytes(b"broken")
    with pytest.raises(DataError, match=line):
        prepared(table, tmp_path)


def test_without_torch_names_of_images_stay_names_and_a_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill.sdk import column_patches

    monkeypatch.setattr(column_patches, "find_spec", lambda name: None)
    found = prepared(photos(tmp_path / "data", 30), tmp_path)
    assert isinstance(found, Prepared)
    assert any("pip install 'tidemill[deep]'" in notice for notice in found.notices)


def test_a_name_of_the_hub_stands_for_its_folder_whatever_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {"some/vit": image_weights(tmp_path / "vit"), "some/bert": str(fake(tmp_path / "bert"))}
    monkeypatch.setattr(fusion, "find_folder", folders.__getitem__)
    told: list[str] = []
    assert fusion._folders(["some/vit", "some/bert"], told.append) == (folders["some/bert"], folders["some/vit"])
    assert told == []

    def broken(name: str) -> str:
        raise NotFoundError("There is no network.")

    monkeypatch.setattr(fusion, "find_folder", broken)
    assert fusion._folders(["some/vit"], told.append) == (None, None)
    assert told == ["There is no network."]


def test_a_table_that_names_images_which_are_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "need_text", lambda why: None)
    table = photos(tmp_path / "data", 30)
    for file in (tmp_path / "data").glob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="None of the files that the column 'photo' names is there"):
        prepared(table, tmp_path, weights=(image_weights(tmp_path / "vit"),))


def fusion_types() -> dict[str, Any]:
    return {"review": SemanticType.CATEGORY}


def test_a_fit_gives_a_bundle_that_stands_alone(table: Path, tmp_path: Path, by_hand: tuple[str, ...]) -> None:
    workspace = tmp_path / "w"
    result = fit_to_bundle(
        table, "animal", out=tmp_path / "out.tm", options=FitOptions(**{**QUICK, "trials": 2}, weights=by_hand),
        workspace=workspace,
    )  # fmt: skip
    bundle = tm.load(tmp_path / "out.tm")
    assert isinstance(bundle, FusedBundle)
    assert verify(bundle.path) == []
    assert bundle.evaluate(table)["accuracy"] > 0.9, "the text tells the class"
    assert "is read by the encoder 'words'" in (bundle.path / "README.md").read_text()
    assert result.report is not None
    assert "is read by the encoder" in result.report.read_text()
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    bundle.to_csv(table, ours)
    done = subprocess.run([sys.executable, str(bundle.path / "run.py"), str(table), str(theirs)], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    result.study.close()

    # Its encoder is in the ledger: a study goes on and is exported without the weights.
    with tm.fit(None, resume=result.study.name, workspace=workspace, trials=3, in_process=True) as study:
        assert study.modality.name == "fused"
        again = study.best.export(tmp_path / "again.tm")
        assert np.array_equal(again.predict(table), bundle.predict(table)) or len(study.search.whole) > 2


def test_without_weights_a_table_stays_what_it_was(table: Path, tmp_path: Path) -> None:
    from tidemill.sdk.modality.choose import modality_asked

    with Workspace.open(tmp_path / "w") as workspace:
        assert modality_asked(workspace, table, "animal", FitOptions())[0].name == "table"
        weights = (str(fake(tmp_path / "e")),)
        assert modality_asked(workspace, table, "animal", FitOptions(weights=weights))[0].name == "fused"
        asked = FitOptions(weights=weights, kind="text-classification")
        assert modality_asked(workspace, table, "animal", asked)[0].name == "text"


def test_a_plain_table_loads_no_torch(table: Path, tmp_path: Path) -> None:
    code = (
        "import sys, tidemill as tm\n"
        f"tm.fit({str(table)!r}, 'animal', workspace={str(tmp_path / 'w')!r}, trials=1, families=('linear',),"
        " in_process=True).close()\n"
        "print([m for m in sys.modules if m in ('torch', 'tidemill.models.fusion.encoder', 'tokenizers')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_a_trained_encoder_is_opened_exported_and_held_against_pytorch(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = encoder(tmp_path / "encoder")
    options = FitOptions(**{**QUICK, "trials": 2}, weights=(str(folder),))
    result = fit_to_bundle(table, "animal", out=tmp_path / "out.tm", options=options, workspace=tmp_path / "w")
    bundle = tm.load(tmp_path / "out.tm")
    assert verify(bundle.path) == []
    assert any("encoder 'encoder': 32 numbers" in note for note in bundle.info.notes)
    candidate = result.study.best.candidate
    assert result.study.search.shared.size_bytes < bundle.info.cost["size_bytes"] < candidate.cost.size_bytes
    assert candidate.cost.latency_ms is not None
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    bundle.to_csv(table, ours)
    done = subprocess.run([sys.executable, str(bundle.path / "run.py"), str(table), str(theirs)], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    result.study.close()
