"""Runs Evidently's drift preset on two matrices; called by run.py with the rival's own Python."""

from __future__ import annotations

import json
import sys
import time
import warnings

BEGIN = time.perf_counter()
warnings.simplefilter("ignore")


def main() -> None:
    import numpy as np
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    before, after = (np.load(path) for path in sys.argv[1:3])
    names = [f"f{i:04d}" for i in range(before.shape[1])]
    old, new = pd.DataFrame(before, columns=names), pd.DataFrame(after, columns=names)
    begin = time.perf_counter()
    snapshot = Report([DataDriftPreset()]).run(new, old)
    answer = snapshot.dict()
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "process_s": time.perf_counter() - BEGIN, "drifted": _drifted(answer)}))


def _drifted(answer: dict) -> list[str]:
    """Columns that Evidently calls drifted: a p-value below its threshold, or a distance above it."""
    out = []
    for metric in answer["metrics"]:
        config = metric.get("config", {})
        if not str(config.get("type", "")).endswith("ValueDrift"):
            continue
        value, threshold = float(metric["value"]), float(config["threshold"])
        by_p_value = "p_value" in config["method"]
        if value < threshold if by_p_value else value >= threshold:
            out.append(config["column"])
    return out


if __name__ == "__main__":
    main()
