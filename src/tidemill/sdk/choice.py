"""The candidate that an objective chooses, with what can be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.core.task import TaskKind
from tidemill.core.transcripts import GREEDY
from tidemill.sdk.modality.choose import lines_decoding
from tidemill.search.candidate import Candidate

if TYPE_CHECKING:
    from tidemill.sdk.modality._base import Modality
    from tidemill.sdk.study import Study


class Choice:
    """A candidate of a study: what `Study.best` gives.

    Parameters
    ----------
    study : Study
        The study, under the objective that chose.
    candidate : Candidate
        What was chosen.
    """

    def __init__(self, study: Study, candidate: Candidate) -> None:
        self.study = study
        self.candidate = candidate

    def __repr__(self) -> str:
        return f"Choice({self.candidate.name}: {self.metric} {self.candidate.value:.5g})"

    @property
    def metric(self) -> str:
        """Name of the objective's metric."""
        return self.candidate.objective.metric

    def export(self, out: str | Path, *, decode: str = GREEDY) -> Bundle:
        """Write the bundle, with its answers proven equal to the trained models'.

        Parameters
        ----------
        out : path
            Folder; must not exist, or be an older bundle.
        decode : str
            Lines of text: ``"greedy"`` reads the best path, ``"beam"`` searches for the most probable text, following
            10 prefixes or as many as ``"beam:20"`` says. Nets that read better together when they search are
            shipped together.

        Returns
        -------
        Bundle
            Open for predictions.

        Raises
        ------
        ParityError
            If the graph and the models differ; nothing is written.
        BundleError
            If the folder can't be written.
        OptionError
            If nothing is decoded, or not so.
        """
        if decode == GREEDY:
            return self._write(Path(out), self.study.modality)
        lines = lines_decoding(self.study.modality, decode)
        return Choice(self.study, lines.best_of(self.study, self.candidate.objective))._write(Path(out), lines)

    def _write(self, out: Path, modality: Modality) -> Bundle:
        return modality.export(self.study, self.candidate, out, self.info(), self.evidence())

    def evidence(self) -> list[Evidence]:
        """What the candidate said of rows that it was not trained on, beside the truth."""
        search = self.study.search
        rows, truth = search.covered_rows, search.truth
        out = [Evidence("out_of_fold", truth.y[rows], self._scores())]
        test = self._test_scores()
        if test is not None and truth.y_test is not None:
            out.insert(0, Evidence("test", truth.y_test, test))
        return out

    def _scores(self) -> NDArray[np.float64]:
        search = self.study.search
        return self.candidate.scores(search.predictions(), search.frames(self.candidate.weights))

    def _test_scores(self) -> NDArray[np.float64] | None:
        search = self.study.search
        if search.truth.y_test is None:
            return None
        return search.test_scores(self.candidate)

    def info(self) -> BundleInfo:
        """What the search knows of it and a bundle keeps: objective, lineage, costs, notes."""
        search, prepared = self.study.search, self.study.prepared
        notes = [*prepared.notices, *(f.message for f in prepared.findings if f.severity != "info")]
        if not self.candidate.satisfied:
            broken = "; ".join(str(r) for r in self.candidate.constraints if not r.satisfied)
            notes.append(f"No model of the study keeps every constraint; this is the nearest ({broken}).")
        return BundleInfo(
            objective=str(self.candidate.objective),
            lineage={
                "study": search.name,
                "dataset_version": search.record.dataset_version,
                "trials": {self.candidate.names.get(n, str(n)): w for n, w in self.candidate.weights.items()},
                "seed": search.record.settings.get("seed"),
                "versions": search.record.versions,
            },
            cost=self.candidate.cost.to_json(),
            notes=tuple(notes),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return self.candidate.to_json()

    def in_words(self) -> str:
        """What was chosen and how good it is, in plain words."""
        chosen = self.candidate
        lines = [f"Best for “{chosen.objective}”: {chosen.name}, {self.metric} {chosen.value:.4g} out of fold."]
        if len(chosen.weights) > 1:
            parts = sorted(chosen.weights.items(), key=lambda item: -item[1])
            lines.append("It is made of " + ", ".join(f"{w:.0%} {chosen.names.get(n, n)}" for n, w in parts) + ".")
        if self.study.search.truth.y_test is not None:
            locked = self.study.search.report_locked_slice(chosen.objective)
            lines.append(f"On {locked['rows']} locked test rows it reaches {self.metric} {locked['value']:.4g}.")
        if self.study.task.kind is TaskKind.RECOGNITION:
            lines.append("These are figures of texts of the best path; a bundle that searches by beams has its own.")
        for result in chosen.constraints:
            lines.append(f"{'✓' if result.satisfied else '✗'} {result}")
        return "\n".join(lines)
