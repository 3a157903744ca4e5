"""Run every system on every data set, one after the other, and write a table of what came out."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score, root_mean_squared_error

HERE = Path(__file__).resolve().parent
SYSTEMS: dict[str, tuple[str, str, str]] = {
    # name: (environment, script, variant)
    "tidemill": (".venv", "fit_tidemill.py", ""),
    "ag_best": ("autogluon", "fit_autogluon.py", "best_quality"),
    "ag_medium": ("autogluon", "fit_autogluon.py", "medium_quality"),
    "flaml": ("flaml", "fit_flaml.py", ""),
    "lgbm_default": (".venv", "fit_lightgbm_default.py", ""),
    "linear": (".venv", "fit_linear.py", ""),
}
FIELDS = [
    "dataset", "task", "system", "time_limit", "metric", "score", "score2", "fit_s", "total_s", "cpu_s", "peak_mb",
    "size_mb", "one_row_ms", "rows_per_s", "first_model_s", "parity", "loadavg", "note",
]  # fmt: skip


def main() -> None:
    """Read the arguments and run the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data" / "tabular")
    parser.add_argument("--time", type=float, default=60.0)
    parser.add_argument("--only", default="", help="data sets, separated by commas")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    parser.add_argument("--environments", type=Path, default=HERE.parent / ".environments")
    given = parser.parse_args()
    if not given.data.is_dir():
        sys.exit(f"{given.data} holds no data sets; give their folder with --data.")
    names = [n for n in given.only.split(",") if n] or sorted(p.parent.name for p in given.data.glob("*/meta.json"))
    with given.out.open("a", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        if file.tell() == 0:
            table.writeheader()
        for dataset in names:
            for system in given.systems.split(","):
                row = measure(given.data / dataset, system, given.time, given.environments)
                table.writerow({k: row.get(k) for k in FIELDS})
                file.flush()
                print(" ".join(f"{k}={_short(row.get(k))}" for k in FIELDS if row.get(k) not in (None, "")), flush=True)


def measure(folder: Path, system: str, time_s: float, environments: Path) -> dict[str, Any]:
    """Run one system on one data set in a process of its own."""
    environment, script, variant = SYSTEMS[system]
    root = HERE.parents[1] / ".venv" if environment == ".venv" else environments / environment
    meta = json.loads((folder / "meta.json").read_text())
    row: dict[str, Any] = {
        "dataset": folder.name, "task": meta["task"], "system": system, "time_limit": time_s,
        "loadavg": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    scratch = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        command = [
            str(root / "bin" / "python"), str(HERE / "systems" / script), "--folder", str(folder),
            "--time", str(time_s), "--out", str(scratch), "--variant", variant,
        ]  # fmt: skip
        begin = time.perf_counter()
        with (scratch / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=scratch)
            watch = _Watch(process.pid)
            # The kernel's account of the process and of every descendant that was waited for.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        row["total_s"] = round(time.perf_counter() - begin, 1)
        row["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 1)
        row["peak_mb"] = round(watch.stop() / 1e6)
        if process.returncode:
            return row | {"note": "FAILED: " + (scratch / "log").read_text()[-300:].replace("\n", " ")}
        facts = json.loads((scratch / "facts.json").read_text())
        row |= score(folder, meta, pd.read_csv(scratch / "answers.csv"))
        row |= {
            "fit_s": round(facts["fit_s"], 1), "size_mb": round(facts["size_bytes"] / 1e6, 3),
            "one_row_ms": round(facts["one_row_ms"], 3), "rows_per_s": round(facts["rows_per_s"]),
            "first_model_s": _first_model(scratch / "events.jsonl"), "note": facts["note"],
        }  # fmt: skip
        if facts.get("parity"):
            row["parity"] = json.dumps(facts["parity"])
        return row
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def score(folder: Path, meta: dict[str, Any], answers: pd.DataFrame) -> dict[str, Any]:
    """Compare the answers with the test rows' target."""
    truth = pd.read_csv(folder / "test.csv")[meta["target"]]
    if meta["task"] == "regression":
        got = answers["prediction"].to_numpy()
        return {
            "metric": "rmse/r2",
            "score": round(float(root_mean_squared_error(truth, got)), 5),
            "score2": round(float(r2_score(truth, got)), 5),
        }
    truth = truth.map(_label)
    answers = answers.rename(columns=_label)
    names = sorted(answers.columns)
    probabilities = answers[names].to_numpy()
    accuracy = accuracy_score(truth, np.array(names)[probabilities.argmax(axis=1)])
    if meta["task"] == "binary":
        value = roc_auc_score(truth == _label(meta["positive"]), answers[_label(meta["positive"])])
        return {"metric": "auc/acc", "score": round(float(value), 5), "score2": round(float(accuracy), 5)}
    value = log_loss(truth, probabilities / probabilities.sum(axis=1, keepdims=True), labels=names)
    return {"metric": "logloss/acc", "score": round(float(value), 5), "score2": round(float(accuracy), 5)}


def _label(value: Any) -> str:
    text = str(value)
    return text[:-2] if text.endswith(".0") else text


def _first_model(events: Path) -> float | None:
    if not events.exists():
        return None
    for line in events.read_text().splitlines():
        if line.startswith("{") and '"first_model_s"' in line:
            try:
                return float(json.loads(line)["first_model_s"])
            except (ValueError, KeyError, TypeError):
                return None
    return None


class _Watch:
    """Follows the memory of a process and all its descendants; shared pages count once."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.2):
            total = 0
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                continue
            for process in processes:
                try:
                    memory = process.memory_full_info()
                    total += getattr(memory, "pss", memory.rss)
                except psutil.Error:
                    continue
            self._peak = max(self._peak, total)

    def stop(self) -> int:
        """End the watch and return the largest sum that it saw, in bytes."""
        self._ended.set()
        self._thread.join()
        return self._peak


def _short(value: Any) -> str:
    return str(value)[:120]


if __name__ == "__main__":
    main()
