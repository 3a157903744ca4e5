"""Turn the results of `run.py` into the tables of ``docs/benchmarks.md``.

    .venv/bin/python bench/tabular/summary.py bench/tabular/results.csv [more.csv …]

Of several rows for one set and system the last counts, so that a part that was run again replaces the earlier one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

OURS = "tidemill"
ORDER = ["tidemill", "ag_best", "ag_medium", "flaml", "lgbm_default", "linear"]
TITLES = {
    "tidemill": "Tidemill", "ag_best": "AutoGluon best", "ag_medium": "AutoGluon medium", "flaml": "FLAML",
    "lgbm_default": "LightGBM", "linear": "linear",
}  # fmt: skip
WITHIN = 1e-3
"""A difference of a tenth of a percent counts as equal."""


def main() -> None:
    """Print scores, ranks and costs."""
    frame = pd.concat([pd.read_csv(path) for path in sys.argv[1:]])
    frame = frame.drop_duplicates(["dataset", "system"], keep="last")
    scores = frame.pivot(index="dataset", columns="system", values="score")[ORDER].dropna(subset=[OURS])
    metric = frame.drop_duplicates("dataset").set_index("dataset")["metric"].str.split("/").str[0]
    better = {name: metric[name] == "auc" for name in scores.index}  # the other metrics are losses
    _scores(scores, metric, better)
    _bars(scores, better)
    _costs(frame)


def _scores(scores: pd.DataFrame, metric: pd.Series, better: dict[str, bool]) -> None:
    print("| set | metric | " + " | ".join(TITLES[s] for s in ORDER) + " |")
    print("|---" * (len(ORDER) + 2) + "|")
    for name, row in scores.iterrows():
        best = row.max() if better[name] else row.min()
        cells = ["–" if pd.isna(v) else f"**{v:.5g}**" if v == best else f"{v:.5g}" for v in row]
        print(f"| {name} | {metric[name]} | " + " | ".join(cells) + " |")
    ranks = _ranks(scores, better)
    print("| mean rank | | " + " | ".join(f"{ranks[s].mean():.2f}" for s in ORDER) + " |")


def _ranks(scores: pd.DataFrame, better: dict[str, bool]) -> pd.DataFrame:
    signed = scores.mul([-1.0 if better[n] else 1.0 for n in scores.index], axis=0)
    return signed.rank(axis=1, na_option="bottom")


def _bars(scores: pd.DataFrame, better: dict[str, bool]) -> None:
    """Say on how many sets no rival is better by more than a tenth of a percent, and where one is by how much."""
    kept, lines = 0, []
    for name, row in scores.iterrows():
        rivals = row.drop(OURS)
        best = rivals.max() if better[name] else rivals.min()
        behind = (best - row[OURS] if better[name] else row[OURS] - best) / abs(best)
        kept += behind <= WITHIN
        if behind > 0:
            who = TITLES[str(rivals.idxmax() if better[name] else rivals.idxmin())]
            lines.append(f"{name} {100 * behind:.2f} % behind {who}")
    print(f"\nAt least as good as each rival (within 0.1 %) on {kept} of {len(scores)} sets.")
    print(f"Behind: {'; '.join(lines)}\n")


def _costs(frame: pd.DataFrame) -> None:
    print("| set | system | fit s | CPU s | peak MB | size MB | one row ms | rows/s | first model s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, group in frame.groupby("dataset"):
        for system in ORDER:
            for _, r in group[group.system == system].iterrows():
                first = "" if pd.isna(r.first_model_s) else f"{r.first_model_s:.1f}"
                cells = [
                    name, TITLES[system], f"{r.fit_s:.1f}", f"{r.cpu_s:.0f}", f"{r.peak_mb:.0f}", f"{r.size_mb:.2f}",
                    f"{r.one_row_ms:.2f}", f"{r.rows_per_s:,.0f}", first,
                ]  # fmt: skip
                print("| " + " | ".join(cells) + " |")
    ours = frame[frame.system == OURS]
    parity = [json.loads(p) for p in ours.parity.dropna()]
    print(
        f"\nTidemill: median size {ours.size_mb.median():.2f} MB (largest {ours.size_mb.max():.1f}), median row "
        f"{ours.one_row_ms.median():.2f} ms (slowest {ours.one_row_ms.max():.2f}), longest {ours.fit_s.max():.1f} s, "
        f"{sum(p['rows_that_differ'] for p in parity)} of {sum(p['rows'] for p in parity):,} rows differ"
    )


if __name__ == "__main__":
    if len(sys.argv) < 2 or not all(Path(p).is_file() for p in sys.argv[1:]):
        sys.exit(__doc__)
    main()
