"""The main job on real data that ships with scikit-learn, end to end."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time as _time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidemill.core.errors import InternalError, OptionError
from tidemill.sdk.bare import make_bare_environment
from tidemill.sdk.fit import FitOptions, FitResult, fit_to_bundle
from tidemill.search.events import Event, Listener, ignore

TARGET = "diagnosis"
_MARK = ".tidemill-demo"


@dataclass(frozen=True)
class DemoResult:
    """What the demo did, for people and for programs."""

    fit: FitResult
    leaderboard: list[dict[str, Any]]
    rows: int
    right: int
    missed: int
    alarms: int
    answers: Path
    seconds: float
    folder: Path = field(default_factory=Path)

    def in_words(self) -> str:
        """The result in plain words, with the paths to look at."""
        return "\n".join(
            [
                f"Of {self.rows} patients that the search never saw, the model in the bundle told {self.right} right, "
                f"missed {self.missed} malignant and raised {self.alarms} false alarms.",
                "These answers came from run.py in an environment that holds onnxruntime and numpy, and nothing else.",
                "",
                f"  bundle   {self.fit.bundle}",
                f"  report   {self.fit.report}",
                f"  answers  {self.answers}",
                "",
                f"The whole took {self.seconds:.0f} s. Next: tidemill fit YOUR.csv --target COLUMN --out model.tm",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            **self.fit.to_json(),
            "rows": self.rows,
            "right": self.right,
            "missed": self.missed,
            "false_alarms": self.alarms,
            "answers": str(self.answers),
            "seconds": round(self.seconds, 1),
        }


def run_demo(out: Path, *, time: str = "60s", on_event: Listener = ignore) -> DemoResult:
    """Fit, rank, export, and predict in a bare environment.

    Parameters
    ----------
    out : Path
        Folder for everything; made, or replaced if an earlier demo made it.
    time : str
        Limit of the fit.
    on_event : callable
        Hears how the search goes.
    """
    begin = _now()
    _fresh(out)
    train, test = _write_data(out)
    result = fit_to_bundle(
        train,
        TARGET,
        out=out / "model.tm",
        options=FitOptions(time=time, test=test, positive="malignant", name="demo", started=begin),
        workspace=out / "workspace",
        on_event=on_event,
    )
    _tell(on_event, "predicting with run.py in a bare environment", begin)
    answers = out / "answers.csv"
    _predict_bare(out, out / "model.tm", test, answers)
    return _count(result, test, answers, out, _now() - begin)


def _now() -> float:
    return _time.monotonic()


def _tell(on_event: Callable[[Event], None], message: str, begin: float) -> None:
    on_event(Event("stage", "predict", "demo", "", _now() - begin, message=message))


def _fresh(out: Path) -> None:
    if out.exists() and not (out / _MARK).exists() and any(out.iterdir()):
        raise OptionError(
            "The folder holds other things than an earlier demo.", where=str(out), hint="Name another with --out."
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()


def _write_data(out: Path) -> tuple[Path, Path]:
    """Write the Wisconsin breast cancer data as two CSV files: every fourth row is for the test."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    header = [*(str(n).replace(" ", "_") for n in data.feature_names), TARGET]
    labels = [str(data.target_names[t]) for t in data.target]
    paths = out / "train.csv", out / "test.csv"
    for path, wanted in zip(paths, (False, True), strict=True):
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(
                [*map(repr, map(float, row)), label]
                for i, (row, label) in enumerate(zip(data.data, labels, strict=True))
                if (i % 4 == 3) == wanted
            )
    return paths


def _predict_bare(out: Path, bundle: Path, test: Path, answers: Path) -> None:
    python = make_bare_environment(out / "bare")
    done = subprocess.run(
        [str(python), "-I", str(bundle / "run.py"), str(test), str(answers)], capture_output=True, text=True
    )
    if done.returncode:
        raise InternalError(f"run.py ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def _count(result: FitResult, test: Path, answers: Path, out: Path, seconds: float) -> DemoResult:
    with test.open(newline="") as known, answers.open(newline="") as said:
        pairs = [(a[TARGET], b["prediction"]) for a, b in zip(csv.DictReader(known), csv.DictReader(said), strict=True)]
    return DemoResult(
        fit=result,
        leaderboard=result.study.leaderboard(),
        rows=len(pairs),
        right=sum(a == b for a, b in pairs),
        missed=sum(a == "malignant" != b for a, b in pairs),
        alarms=sum(b == "malignant" != a for a, b in pairs),
        answers=answers,
        seconds=seconds,
        folder=out,
    )
