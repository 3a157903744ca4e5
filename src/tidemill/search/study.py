"""A study as people see it: its trials, what is best, and what would be best under another objective."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.parts import EncoderPart, Recipe
from tidemill.core.errors import SearchError
from tidemill.core.frames import Frames
from tidemill.core.objective import Objective, parse_objective
from tidemill.core.pack import unpack
from tidemill.core.schema import Schema
from tidemill.core.task import Task
from tidemill.core.trial import FREE, Cost, StudyRecord, Trial
from tidemill.search import ranking
from tidemill.search.board import is_whole
from tidemill.search.candidate import Candidate
from tidemill.search.combine import combine, renamed
from tidemill.search.ensembles.greedy import GreedyEnsembler
from tidemill.search.judge import Judge, Verdict
from tidemill.search.ledger import FRAMES, TEST_FRAMES, TRUTH, Truth, get_frames, get_predictions
from tidemill.search.lines.beams import BeamReader
from tidemill.search.modality import FUSED, Modality, modality_of
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import covered
from tidemill.store.workspace import Workspace

ENCODER, SCHEMA = "encoder", "schema"
"""Names of the study's artifacts that hold its encoder and its schema."""
HASTE = "haste"
"""Name of the artifact that holds what a time limit left for the proof; see `Study.best`."""


class Study:
    """One search, read from the ledger; nothing is trained here.

    Parameters
    ----------
    workspace : Workspace
        Where the ledger is.
    record : StudyRecord
        The study's entry.
    """

    def __init__(self, workspace: Workspace, record: StudyRecord) -> None:
        self.workspace = workspace
        self.record = record
        self.task = Task.from_json(record.task)
        self.objective = parse_objective(record.objective).resolve(self.task)
        self._oof: dict[int, NDArray[np.float32]] = {}
        self._frames: dict[int, Frames] = {}
        self._candidates: dict[str, Candidate] = {}

    @classmethod
    def open(cls, workspace: Workspace, name: str) -> Study:
        """Open a study by name; raises `NotFoundError` with the nearest names."""
        return cls(workspace, workspace.metadata.get_study(name))

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {self.task.kind.value}, {str(self.objective)!r})"

    @property
    def name(self) -> str:
        """Unique in the workspace."""
        return self.record.name

    @cached_property
    def truth(self) -> Truth:
        """Targets and slices of all rows."""
        return Truth.unpack(self.workspace.artifacts.get(self.record.artifacts[TRUTH]))

    @cached_property
    def modality(self) -> Modality:
        """What its rows are: of a table, or images."""
        return modality_of(self.record.settings)

    @cached_property
    def encoder(self) -> EncoderPart:
        """From raw columns to what the models were trained on."""
        return self.modality.restore_encoder(unpack(self.workspace.artifacts.get(self.record.artifacts[ENCODER])))

    @cached_property
    def shared(self) -> Cost:
        """What every model costs beside its own: the encoders of columns, where there are any."""
        if self.modality.name != FUSED:
            return FREE
        encoder: Any = self.encoder
        found: Cost = encoder.cost
        return found

    @cached_property
    def schema(self) -> Schema:
        """The columns."""
        return Schema.from_json(unpack(self.workspace.artifacts.get(self.record.artifacts[SCHEMA])))

    @cached_property
    def _trials(self) -> list[Trial]:
        return list(self.workspace.metadata.trials(self.name))

    def trials(self) -> list[Trial]:
        """All trials by number, failed and rejected ones included."""
        return list(self._trials)

    @property
    def whole(self) -> dict[int, Trial]:
        """Trials whose models can be shipped, by number."""
        return {t.number: t for t in self._trials if is_whole(t)}

    # ---------------------------------------------------------------------------------------------- predictions

    def predictions(self) -> Mapping[int, NDArray[np.float32]]:
        """Out-of-fold scores of all whole trials, rows as in `covered_rows`."""
        for number, trial in self.whole.items():
            if number not in self._oof:
                self._oof[number] = get_predictions(self.workspace.artifacts, trial.artifacts["oof"]).scores
        return self._oof

    def test_predictions(self, number: int) -> NDArray[np.float32] | None:
        """Scores of a trial on the locked test slice; None where there is none."""
        key = self.whole[number].artifacts.get("test")
        return None if key is None else get_predictions(self.workspace.artifacts, key).scores

    def frames(self, numbers: Collection[int]) -> dict[int, Frames]:
        """What nets that read said of the lines of `predictions`, of those of some trials of which it is kept."""
        for number in numbers:
            key = self.whole[number].artifacts.get(FRAMES)
            if number not in self._frames and key is not None:
                self._frames[number] = get_frames(self.workspace.artifacts, key)
        return {n: self._frames[n] for n in numbers if n in self._frames}

    def test_frames(self, numbers: Collection[int]) -> dict[int, Frames]:
        """The same of the locked test slice."""
        known = {n: self.whole[n].artifacts.get(TEST_FRAMES) for n in numbers}
        return {n: get_frames(self.workspace.artifacts, key) for n, key in known.items() if key is not None}

    def test_scores(self, candidate: Candidate) -> NDArray[np.float64]:
        """Scores of a candidate on the locked test slice, of which there must be one."""
        found = {n: self.test_predictions(n) for n in candidate.weights}
        kept = {n: p for n, p in found.items() if p is not None}
        return candidate.scores(kept, self.test_frames(candidate.weights))

    @cached_property
    def covered_rows(self) -> NDArray[np.int64]:
        """Positions of the training rows that have out-of-fold predictions."""
        return np.flatnonzero(covered(self.truth.splits))

    def judge(self, objective: Objective | None = None) -> Judge:
        """Who knows the truth of the out-of-fold predictions."""
        truth, rows = self.truth, self.covered_rows
        return Judge(
            objective=self.objective if objective is None else objective,
            task=self.task,
            y=truth.y[rows],
            columns={name: values[rows] for name, values in truth.columns.items()},
            weight=None if truth.weight is None else truth.weight[rows],
            seed=int(self.record.settings.get("seed", 0)),
        )

    # ------------------------------------------------------------------------------------------------ questions

    @property
    def best(self) -> Candidate:
        """The candidate for the study's own objective."""
        return self.candidate()

    def candidate(self, objective: Objective | str | None = None, beams: BeamReader | None = None) -> Candidate:
        """Choose and weigh trials for an objective, from what is known already.

        Parameters
        ----------
        objective : Objective or str, optional
            Default is the study's own.
        beams : BeamReader, optional
            How transcripts are going to be searched for, where it isn't the best path that counts.

        Raises
        ------
        SearchError
            Where no trial came to an end.
        """
        wanted = self._objective(objective)
        key = f"{wanted}|{len(self.whole)}|{(beams.width, beams.lengths) if beams else ''}"
        if key not in self._candidates:
            settings = SearchSettings.from_json(self.record.settings)
            ensembler = GreedyEnsembler(settings.ensemble_rounds, seed=settings.seed)
            chosen = combine(
                list(self.whole.values()), self.predictions(), self.judge(wanted), ensembler,
                settings.ensemble_size_bytes, self._most_us(wanted), self.shared, self.frames, beams,
            )  # fmt: skip
            self._candidates[key] = renamed(chosen, {n: t.name for n, t in self.whole.items()})
        return self._candidates[key]

    def _most_us(self, objective: Objective) -> float:
        """What the time limit left for the proof; another objective is asked later, when time is not short."""
        key = self.record.artifacts.get(HASTE)
        if key is None or str(objective) != str(self.objective):
            return float("inf")
        return float(unpack(self.workspace.artifacts.get(key))["batch_us"])

    def reobjective(self, objective: Objective | str) -> Candidate:
        """Answer another objective without training, and note that the question was asked.

        The more often rows are asked which model they like best, the less their answer is worth; the number of
        questions stands in the study's events and beside every report.
        """
        wanted = self._objective(objective)
        chosen = self.candidate(wanted)
        self.workspace.metadata.log_event(
            self.name, "objective", {"objective": str(wanted), "value": chosen.value, "satisfied": chosen.satisfied}
        )
        return chosen

    def leaderboard(self, objective: Objective | str | None = None) -> list[dict[str, Any]]:
        """Trials under an objective, best first; those that keep its constraints before the others."""
        judge = self.judge(self._objective(objective))
        return ranking.leaderboard(list(self.whole.values()), self.predictions(), judge, self.shared)

    def pareto(self, objective: Objective | str | None = None) -> list[dict[str, Any]]:
        """Rows of the leaderboard that no other trial beats in loss, latency, size and parameters at once."""
        return ranking.pareto(self.leaderboard(objective))

    def report_locked_slice(self, objective: Objective | str | None = None) -> dict[str, Any]:
        """Measure the candidate of an objective on the locked test slice, once.

        A second call for the same objective and candidate returns what the first found.

        Raises
        ------
        SearchError
            Where the study has no test slice.
        """
        wanted = self._objective(objective)
        chosen = self.candidate(wanted)
        events = self.workspace.metadata.events(self.name)
        mine = {"objective": str(wanted), "members": {str(n): w for n, w in chosen.weights.items()}}
        for event in events:
            if event["kind"] == "locked_slice" and all(event["payload"].get(k) == v for k, v in mine.items()):
                return dict(event["payload"])
        verdict = self._on_test(chosen)
        payload = {
            **mine,
            "metric": wanted.metric,
            "value": verdict.value,
            "satisfied": verdict.gap == 0,
            "constraints": {str(r.constraint): r.value for r in verdict.constraints},
            "rows": len(self.truth.y_test) if self.truth.y_test is not None else 0,
            "asked": 1 + sum(e["kind"] == "objective" for e in events),
        }
        self.workspace.metadata.log_event(self.name, "locked_slice", payload)
        return payload

    def recipe(self, candidate: Candidate | None = None) -> Recipe:
        """Restore the models of a candidate, ready to be built into a bundle."""
        chosen = self.best if candidate is None else candidate
        return chosen.recipe(self.whole, self.workspace.artifacts, self.encoder, self.schema, self.modality)

    def _on_test(self, chosen: Candidate) -> Verdict:
        truth = self.truth
        if truth.y_test is None or truth.columns_test is None:
            raise SearchError("This study has no locked test slice.", hint="Give one with --test or --test-size.")
        scores = self.test_scores(chosen)
        judge = Judge(chosen.objective, self.task, truth.y_test, truth.columns_test)
        return judge.judge(scores, chosen.cost, chosen.decision)

    def _objective(self, objective: Objective | str | None) -> Objective:
        if objective is None:
            return self.objective
        parsed = parse_objective(objective) if isinstance(objective, str) else objective
        return parsed.resolve(self.task, self.truth.columns)
