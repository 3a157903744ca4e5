from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.search.conftest import MakeTable

from tidemill.core.budget import Budget
from tidemill.core.errors import OptionError, SearchError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.pack import pack
from tidemill.core.schema import take_rows
from tidemill.core.space import config_key
from tidemill.core.task import TaskKind
from tidemill.core.trial import TrialState
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.search import runner
from tidemill.search.evaluate import run_trial
from tidemill.search.events import Event
from tidemill.search.fit import run_search
from tidemill.search.settings import SearchSettings
from tidemill.search.study import HASTE, Study
from tidemill.store.workspace import Workspace

FOUR = Budget(trials=4, cpus=1)
SETTINGS = SearchSettings(folds=3, repeats=1, families=("lightgbm", "linear"))


def search(workspace: Workspace, make_table: MakeTable, kind: TaskKind, **more: object) -> Study:
    table, task = make_table(kind)
    options: dict[str, object] = {"budget": FOUR, "settings": SETTINGS, "executor": InProcessExecutor()}
    options |= more
    name = str(options.pop("name", "s"))
    objective = parse_objective(str(options.pop("objective", "auto")))
    return run_search(workspace, name, table, task, objective, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [TaskKind.BINARY, TaskKind.MULTICLASS, TaskKind.REGRESSION])
def test_a_search_ends_with_a_candidate_whose_recipe_answers_as_its_predictions_say(
    workspace: Workspace, make_table: MakeTable, kind: TaskKind
) -> None:
    study = search(workspace, make_table, kind)
    reopened = Study.open(workspace, "s")
    best = reopened.best
    assert reopened.record.state == "complete"
    assert len(reopened.whole) == 4
    assert best.weights == study.best.weights
    assert sum(best.weights.values()) == pytest.approx(1.0)
    table, _ = make_table(kind)
    assert table.columns_test is not None
    answers = reopened.recipe().predict(table.columns_test)
    kept = {n: p for n in best.weights if (p := reopened.test_predictions(n)) is not None}
    np.testing.assert_allclose(answers.scores, best.scores(kept), rtol=1e-5, atol=1e-6)


def test_out_of_fold_predictions_are_out_of_fold(workspace: Workspace, make_table: MakeTable) -> None:
    """With a target of pure noise nobody who hasn't seen a row can predict it."""
    table, task = make_table(TaskKind.REGRESSION)
    noise = replace(table, y=np.random.default_rng(0).normal(size=len(table.y)))
    study = run_search(
        workspace, "noise", noise, task, parse_objective("auto"), Budget(trials=3, cpus=1), SETTINGS,
        executor=InProcessExecutor(),
    )  # fmt: skip
    for scores in study.predictions().values():
        assert abs(np.corrcoef(scores[:, 0], noise.y)[0, 1]) < 0.3
    assert study.best.value > 0.9 * np.std(noise.y)


def test_a_new_objective_is_answered_without_training(workspace: Workspace, make_table: MakeTable) -> None:
    study = search(workspace, make_table, TaskKind.BINARY)
    before = len(workspace.metadata.trials("s"))
    begun = time.process_time()
    cheap = study.reobjective("minimize cost([[0,1],[5,0]]); params <= 2000")
    assert time.process_time() - begun < 4.0  # a second, and what a slow machine adds
    assert cheap.satisfied
    assert cheap.cost.params is not None
    assert cheap.cost.params <= 2000
    assert cheap.decision.kind == "cost"
    assert len(workspace.metadata.trials("s")) == before
    assert [e["kind"] for e in workspace.metadata.events("s")] == ["objective"]
    json.dumps(cheap.to_json())


def test_a_floor_for_a_class_or_a_slice_moves_the_decision(workspace: Workspace, make_table: MakeTable) -> None:
    study = search(workspace, make_table, TaskKind.BINARY)
    plain = study.candidate("maximize accuracy")
    strict = study.candidate("maximize accuracy; recall[yes] >= 0.97")
    sliced = study.candidate("maximize accuracy; recall[yes,region=north] >= 0.97")
    assert strict.satisfied
    assert sliced.satisfied
    assert strict.value <= plain.value
    assert strict.decision.threshold is not None
    assert strict.decision.threshold < 0.5


def test_where_nothing_keeps_the_bounds_the_nearest_is_shown(workspace: Workspace, make_table: MakeTable) -> None:
    events: list[Event] = []
    study = search(
        workspace, make_table, TaskKind.BINARY, objective="maximize roc_auc; log_loss <= 0.0001", on_event=events.append
    )
    assert not study.best.satisfied
    assert any("nearest" in e.message for e in events if e.kind == "notice")
    gaps = [study.candidate(f"maximize roc_auc; log_loss <= {bound}").verdict.gap for bound in (0.0001, 10)]
    assert gaps[0] > gaps[1] == 0


def test_the_leaderboard_is_sorted_and_the_front_is_part_of_it(workspace: Workspace, make_table: MakeTable) -> None:
    study = search(workspace, make_table, TaskKind.MULTICLASS)
    rows = study.leaderboard()
    assert [r["rank"] for r in rows] == [1, 2, 3, 4]
    assert [r["loss"] for r in rows] == sorted(r["loss"] for r in rows)
    front = study.pareto()
    assert 0 < len(front) <= len(rows)
    assert rows[0]["trial"] in [r["trial"] for r in front]


def test_the_locked_slice_is_measured_once_for_each_objective(workspace: Workspace, make_table: MakeTable) -> None:
    study = search(workspace, make_table, TaskKind.REGRESSION)
    first = study.report_locked_slice()
    again = Study.open(workspace, "s").report_locked_slice()
    assert first["value"] == again["value"]
    study.reobjective("minimize mae")
    other = study.report_locked_slice("minimize mae")
    assert other["asked"] == first["asked"] + 1
    assert [e["kind"] for e in workspace.metadata.events("s")].count("locked_slice") == 2


def test_scores_of_a_trial_are_those_of_its_predictions(workspace: Workspace, make_table: MakeTable) -> None:
    study = search(workspace, make_table, TaskKind.MULTICLASS)
    for number, trial in study.whole.items():
        metric = get_metric("log_loss")
        value = metric(study.judge().y, study.predictions()[number], task=study.task)
        assert trial.scores["log_loss"] == pytest.approx(value)
        assert trial.cost.size_bytes
        assert trial.cost.latency_ms


def test_same_seed_same_trials_and_same_answer(workspace: Workspace, make_table: MakeTable) -> None:
    first = search(workspace, make_table, TaskKind.BINARY, name="one")
    second = search(workspace, make_table, TaskKind.BINARY, name="two")
    assert [config_key(t.config) for t in first.trials()] == [config_key(t.config) for t in second.trials()]
    assert [t.fold_scores for t in first.trials()] == [t.fold_scores for t in second.trials()]
    assert first.best.weights == second.best.weights


def test_what_a_time_limit_leaves_for_the_proof_bounds_the_studys_own_answer(
    workspace: Workspace, make_table: MakeTable
) -> None:
    free = search(workspace, make_table, TaskKind.REGRESSION, proof_rows=100)
    assert free.best.models[next(iter(free.best.weights))] == 3, "without a limit nobody hurries"
    hasty = pack({"batch_us": 1e-3})
    workspace.metadata.update_study("s", artifacts={HASTE: workspace.artifacts.put(hasty)})
    bound = Study.open(workspace, "s")
    assert list(bound.best.models.values()) == [1]
    assert set(bound.candidate("minimize mae").models.values()) == {3}, "another objective is asked at leisure"


def test_a_finished_study_can_be_given_more(workspace: Workspace, make_table: MakeTable) -> None:
    search(workspace, make_table, TaskKind.BINARY, budget=Budget(trials=2, cpus=1))
    done = {t.number: t.finished_at for t in Study.open(workspace, "s").trials()}
    more = search(workspace, make_table, TaskKind.BINARY, budget=Budget(trials=4, cpus=1), resume=True)
    assert len(more.trials()) == 4
    assert all(t.finished_at == done[t.number] for t in more.trials() if t.number in done)


def test_however_little_time_there_is_one_trial_is_tried(
    workspace: Workspace, make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FIRST_S", 60.0)  # this machine may be slow
    study = search(workspace, make_table, TaskKind.BINARY, budget=Budget(time_s=0.02, cpus=1))
    assert [t.number for t in workspace.metadata.trials("s") if t.state is TrialState.COMPLETE] == [0]
    assert study.best.weights == {0: 1.0}


def test_a_search_without_a_single_whole_trial_says_why(
    workspace: Workspace, make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FIRST_S", 0.0)
    with pytest.raises(SearchError, match="came to an end"):
        search(workspace, make_table, TaskKind.BINARY, budget=Budget(time_s=0.02, cpus=1))
    assert workspace.metadata.get_study("s").state == "failed"
    states = {t.state for t in workspace.metadata.trials("s")}
    assert states <= {TrialState.FAILED}


def test_time_ordered_rows_are_never_predicted_from_later_ones(workspace: Workspace, make_table: MakeTable) -> None:
    table, task = make_table(TaskKind.REGRESSION)
    ordered = replace(table, time=np.arange(len(table.y), dtype=np.float64))
    study = run_search(
        workspace, "t", ordered, task, parse_objective("auto"), Budget(trials=2, cpus=1), SETTINGS,
        executor=InProcessExecutor(),
    )  # fmt: skip
    rows = study.covered_rows
    assert rows.min() > 0
    assert all(len(p) == len(rows) for p in study.predictions().values())
    assert study.recipe().predict(take_rows(table.columns, np.arange(3))).scores.shape == (3, 1)


def test_wrong_settings_are_told_together() -> None:
    with pytest.raises(OptionError, match=r"folds.*lag"):
        SearchSettings(folds=1, lag=0)


def test_a_name_that_is_taken_is_refused_and_the_study_left_alone(workspace: Workspace, make_table: MakeTable) -> None:
    search(workspace, make_table, TaskKind.BINARY, budget=Budget(trials=1, cpus=1))
    with pytest.raises(OptionError, match="s"):
        search(workspace, make_table, TaskKind.BINARY, budget=Budget(trials=1, cpus=1))
    assert workspace.metadata.get_study("s").state == "complete"


def test_with_rows_as_fidelity_a_config_starts_on_a_share_of_them(workspace: Workspace, make_table: MakeTable) -> None:
    table, task = make_table(TaskKind.REGRESSION, n=40_000)  # type: ignore[call-arg]
    settings = SearchSettings(folds=2, repeats=1, families=("linear",), schedule="rows")
    study = run_search(
        workspace, "rows", table, task, parse_objective("auto"), Budget(trials=3, cpus=1), settings,
        executor=InProcessExecutor(),
    )  # fmt: skip
    raced = [t for t in study.trials() if t.origin != "baseline"]
    assert raced
    assert all("fold1@0.25" in t.scores for t in raced)
    assert study.best.value < np.std(table.y)


def test_a_model_that_does_far_more_than_the_measured_one_is_measured_too(
    workspace: Workspace, make_table: MakeTable
) -> None:
    """What is fixed in the measurement of a small model would be multiplied."""
    table, task = make_table(TaskKind.REGRESSION)
    objective, lines = parse_objective("minimize rmse"), table.splits(task, table.settled(SETTINGS))
    config = table.space(task, SETTINGS).default(family="lightgbm")
    with table.assigned(workspace.path / "x", task, objective, lines) as assignment:
        first = run_trial(config=config, assignment=assignment, seed=0, probe=True)
        again = [run_trial(config=config, assignment=assignment, seed=0, measured=n) for n in (1, 10**9, None)]
    assert first["probe"] is not None
    assert [r["probe"] is not None for r in again] == [True, False, False]
