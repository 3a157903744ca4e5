"""Writes what nannyml's CBPE says of seeded data, for the test that holds ours against it.

    bench/.environments/nannyml/bin/python bench/watch/cbpe_reference.py > tests/deploy/watch/cbpe_nannyml.json

nannyml calibrates probabilities itself where its test finds them uncalibrated; here they are calibrated by
construction (labels are drawn from them), and its calibrator is replaced by one that changes nothing, so that both
sides compute from the same numbers.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import nannyml as nml
import numpy as np
import pandas as pd
from nannyml.calibration import Calibrator

SEED = 7
ROWS = 4000
SPREAD = {"binary": 1.4, "multiclass": 1.1}


class Nothing(Calibrator):
    """A calibrator that changes nothing."""

    def fit(self, *args: object, **kwargs: object) -> None:
        """Learn nothing."""

    def calibrate(self, y_pred_proba: np.ndarray, *args: object, **kwargs: object) -> np.ndarray:
        """Give back what came."""
        return y_pred_proba


def probabilities(kind: str, shift: float) -> np.ndarray:
    """Seeded probabilities; the test draws the same ones with the same three lines."""
    classes = 2 if kind == "binary" else 3
    rng = np.random.default_rng(SEED)
    scores = rng.normal(0.0, SPREAD[kind], (ROWS, classes)) * (1 - shift)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def frame(kind: str, shift: float) -> pd.DataFrame:
    p = probabilities(kind, shift)
    rng = np.random.default_rng(SEED + 1)
    truth = (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, p.shape[1] - 1)
    if kind == "binary":
        return pd.DataFrame({"p1": p[:, 1], "decided": p.argmax(axis=1), "truth": truth})
    columns = {f"p{k}": p[:, k] for k in range(p.shape[1])}
    return pd.DataFrame({**columns, "decided": p.argmax(axis=1).astype(str), "truth": truth.astype(str)})


def estimate(kind: str, shift: float) -> dict[str, float]:
    shown = "p1" if kind == "binary" else {str(k): f"p{k}" for k in range(3)}
    metrics = ["accuracy", "f1", "roc_auc"]
    estimator = nml.CBPE(
        problem_type="classification_binary" if kind == "binary" else "classification_multiclass",
        y_pred_proba=shown, y_pred="decided", y_true="truth", metrics=metrics, chunk_size=ROWS, calibrator=Nothing(),
    )  # fmt: skip
    estimator.fit(frame(kind, 0.0))
    found = estimator.estimate(frame(kind, shift).drop(columns="truth")).filter(period="analysis").to_df()
    return {m: float(found[(m, "value")].iloc[0]) for m in metrics}


if __name__ == "__main__":
    cases = [{"kind": k, "shift": s, "nannyml": estimate(k, s)} for k in SPREAD for s in (0.0, 0.5)]
    about = {"made_by": "bench/watch/cbpe_reference.py", "nannyml": version("nannyml"), "seed": SEED, "rows": ROWS}
    sys.stdout.write(json.dumps({**about, "spread": SPREAD, "cases": cases}, indent=1) + "\n")
