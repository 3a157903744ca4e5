"""A study as Python holds it: fitted, asked again, opened again, exported."""

from __future__ import annotations

import re
import shutil
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidemill as tm
from tidemill.core.errors import NotFoundError, OptionError, WorkspaceError
from tidemill.sdk.images import load_images
from tidemill.sdk.lines import load_lines
from tidemill.sdk.options import FitOptions
from tidemill.sdk.sources import Kept, load_source
from tidemill.sdk.studies import list_studies, open_study
from tidemill.sdk.texts import load_texts
from tidemill.store.workspace import Workspace

README = Path(__file__).resolve().parents[2] / "README.md"
QUICK: dict[str, Any] = {"trials": 3, "families": ("linear", "lightgbm"), "cpus": 1, "in_process": True}


def table(rows: int = 150) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    x, c = rng.normal(size=rows), rng.choice(["u", "v", "w"], rows)
    y = np.where(x + (c == "u") + 0.4 * rng.normal(size=rows) > 0.3, "yes", "no")
    return {"x": x.round(4).tolist(), "c": c.tolist(), "y": y.tolist()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def study(place: Path) -> Iterator[tm.Study]:
    with tm.fit(table(), "y", workspace=place, name="mine", test_size=0.3, **QUICK) as study:
        yield study


def test_an_unknown_option_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"There is no option 'objektive'\. Did you mean 'objective'"):
        tm.fit(table(), "y", workspace=tmp_path, objektive="maximize mcc")
    assert list(tmp_path.iterdir()) == []


def test_rows_may_be_sampled_before_all_are_used(tmp_path: Path) -> None:
    options = {**QUICK, "trials": 6, "families": ("lightgbm",)}
    with tm.fit(table(3000), "y", workspace=tmp_path, schedule="rows", **options) as study:
        assert study.search.record.settings["schedule"] == "rows"
        shares = {t.fidelity for t in study.search.trials()}
    assert 1.0 in shares  # who keeps up goes on to all rows
    with pytest.raises(OptionError, match="no schedule 'row'; choose full, rows or rungs"):
        tm.fit(table(), "y", workspace=tmp_path, schedule="row")


def test_the_best_is_on_the_leaderboard_s_side(study: tm.Study) -> None:
    board = study.leaderboard()
    assert [row["rank"] for row in board] == list(range(1, len(board) + 1))
    assert study.best.candidate.value >= max(row["roc_auc"] for row in board) - 0.02
    assert "Best for" in study.best.in_words()
    assert "locked test rows" in study.best.in_words()


def test_another_objective_trains_nothing_and_takes_no_time(study: tm.Study) -> None:
    before = study.search.trials()
    begin = time.process_time()
    other = study.reobjective("minimize cost([[0,1],[20,0]])")
    chosen = other.best
    assert time.process_time() - begin < 4  # a second, and what a slow machine adds
    assert study.workspace.metadata.trials("mine") == before
    assert chosen.metric == "cost"
    assert str(other.objective) != str(study.objective)
    # A missed "yes" costs twenty times a false one: few are missed.
    known = chosen.evidence()[-1]
    decided = chosen.candidate.decision.apply(known.scores.astype(float))
    assert decided[known.y == 1].mean() > 0.95
    assert decided.mean() >= known.scores.argmax(axis=1).mean()


def test_the_front_is_cheaper_at_every_step(study: tm.Study) -> None:
    front = study.pareto("size_bytes")
    assert front[0]["trial"] == study.leaderboard()[0]["trial"]
    sizes = [row["size_bytes"] for row in front]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    with pytest.raises(NotFoundError, match="latency_ms"):
        study.pareto("latency")


def test_a_study_is_opened_again_with_its_rows(study: tm.Study, place: Path, tmp_path: Path) -> None:
    with open_study("mine", place) as again:
        prepared, versions = load_source(again.workspace, "mine", FitOptions())
        np.testing.assert_array_equal(prepared.train, study.prepared.train)
        np.testing.assert_array_equal(prepared.test, study.prepared.test)
        np.testing.assert_array_equal(prepared.y, study.prepared.y)
        assert prepared.schema == study.prepared.schema
        assert prepared.task == study.task
        for name, values in study.prepared.columns.items():
            np.testing.assert_array_equal(prepared.columns[name], values)
        assert versions["version"] == study.describe()["dataset_version"]
        bundle = again.best.export(tmp_path / "again.tm")
    first = study.best.export(tmp_path / "first.tm")
    assert bundle.model_path.read_bytes() == first.model_path.read_bytes()
    np.testing.assert_array_equal(tm.load(tmp_path / "again.tm").predict(table()), bundle.predict(table()))


def test_a_test_table_is_found_again(tmp_path: Path) -> None:
    rows = table()
    with tm.fit(rows, "y", workspace=tmp_path, test=table(60), **{**QUICK, "trials": 1}) as study:
        name, test = study.name, study.prepared.columns_test
    with open_study(name, tmp_path) as again:
        assert test is not None
        assert again.prepared.columns_test is not None
        np.testing.assert_array_equal(again.prepared.columns_test["x"], test["x"])


def test_studies_are_listed_and_named_after_their_data(study: tm.Study, place: Path) -> None:
    listed = list_studies(place)
    assert [row["study"] for row in listed] == ["mine"]
    assert listed[0]["state"] == "complete"
    assert listed[0]["trials"] == 3


def test_every_trial_tells_all(study: tm.Study) -> None:
    facts = study.describe_trial(0)
    assert facts["state"] == "complete"
    assert facts["config"]["family"] == facts["trial"].partition("-")[0]
    assert len(facts["fold_scores"]) == facts["folds"]
    with pytest.raises(NotFoundError):
        study.describe_trial(77)


def test_what_a_study_keeps_stands_over_the_options_of_the_next_fit(study: tm.Study) -> None:
    kept = Kept.of(study.workspace, "mine", "data", training=False)
    given = FitOptions(seed=9, test="other.csv", kind="regression", families=("linear",))
    found = kept.options(given)
    assert (found.seed, found.kind) == (kept.source["options"]["seed"], kept.source["options"]["kind"])
    assert found.test is None, "the locked rows are those that were kept"
    assert found.families == ("linear",), "what is not kept is as it was given"
    assert kept.options(given, kind="regression").kind == "regression", "but for what a modality says itself"
    assert kept.versions["version"] == study.describe()["dataset_version"]


def test_a_study_without_a_source_says_so(study: tm.Study, tmp_path: Path) -> None:
    from dataclasses import replace

    own = shutil.copytree(study.workspace.path, tmp_path / "w")  # other tests count the studies
    with Workspace.open(own) as workspace:
        workspace.metadata.create_study(replace(study.search.record, name="bare", settings={}))
        loads = {"data": load_source, "images": load_images, "lines": load_lines, "texts": load_texts}
        for noun, load in loads.items():
            with pytest.raises(WorkspaceError, match=f"does not say which {noun}"):
                load(workspace, "bare", FitOptions())
    with open_study("bare", own) as opened:
        assert opened.leaderboard() == []


@pytest.mark.slow
def test_the_readme_s_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    rows = table(300)
    lines = ["x,c,income"] + [f"{x},{c},{y}" for x, c, y in zip(*rows.values(), strict=True)]
    for name in ("train.csv", "new.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"X": np.array(rows["x"]).reshape(-1, 1), "y": rows["y"]}
    exec(textwrap.dedent(block[1]).replace("60s", "15s"), scope)  # the page itself is what is tested
    assert len(scope["answers"]) == 300
    assert scope["smaller"].best.candidate.satisfied
    assert scope["classifier"].score(scope["X"], scope["y"]) > 0.6
    scope["study"].close()
